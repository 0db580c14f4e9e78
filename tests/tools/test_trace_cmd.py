"""trace-cmd, unmodified, in a world whose tracefs is the fake."""

from __future__ import annotations

import re

import pytest

from tests.tools.helpers import needs
from tests.tools.world import GUEST, script_output, sections

pytestmark = [pytest.mark.usefixtures("private_world"), needs("trace-cmd")]

SETUP = (
    """
cd $(mktemp -d)
tracing=/sys/kernel/tracing
ctl=/sys/kernel/debug/fakesys/kvm/ctl
guest() {
    while read -r command; do echo "$command" > $ctl; done <<END
"""
    + GUEST
    + """a vcpu 0 run w=0x300000 r=0x200000
END
}
"""
)
NAME = re.compile(r"^ *(.+)-(\d+) +\[(\d+)\] +(?:\S{5} +)?(\d+\.\d+): (\w+):", re.MULTILINE)


def events(text: str) -> list[tuple[str, ...]]:
    """Task, pid, CPU, time and name of each event line."""
    return [found.groups() for found in NAME.finditer(text)]


def script(body: str, prefix: tuple[str, ...] = ()) -> dict[str, str]:
    return sections(script_output(SETUP + body, options=("--profile", "6.18"), prefix=prefix))


def test_list_knows_events_tracers_options_and_clocks() -> None:
    said = script("""
        echo "== events"; trace-cmd list -e 'kvm_exit'
        echo "== tracers"; trace-cmd list -t
        echo "== options"; trace-cmd list -o
        echo "== option file"; cat $tracing/trace_options
        echo "== clocks"; trace-cmd list -C
    """)
    assert said["events"] == "kvm:kvm_exit"
    assert said["tracers"] == "nop"
    assert said["options"] == said["option file"]
    assert said["clocks"].startswith("[local] global counter")


def test_start_show_stop_reset() -> None:
    said = script("""
        trace-cmd start -e kvm
        echo "== enabled"; cat $tracing/events/kvm/enable
        echo "== stat"; trace-cmd stat
        guest
        trace-cmd stop
        echo "== on"; cat $tracing/tracing_on
        echo "== show"; trace-cmd show
        echo "== trace"; cat $tracing/trace
        trace-cmd reset
        echo "== after"; cat $tracing/events/kvm/enable $tracing/set_event
        echo "== left"; grep -c -v '^#' $tracing/trace || true
    """)
    assert said["enabled"] == "1"
    assert re.search(r"Individual systems:\s+kvm\n", said["stat"] + "\n")
    assert said["on"] == "0"
    assert said["show"] == said["trace"]
    assert "kvm_userspace_exit" in {event[4] for event in events(said["trace"])}
    assert said["after"] == "0"
    assert said["left"] == "0"


def test_extract_reports_what_trace_shows() -> None:
    said = script("""
        trace-cmd start -e kvm -e kvmmmu
        guest
        trace-cmd stop
        echo "== trace"; cat $tracing/trace
        trace-cmd extract -o extracted.dat > /dev/null
        echo "== report"; trace-cmd report -i extracted.dat
    """)
    seen = events(said["trace"])
    assert len(seen) > 10
    assert events(said["report"]) == seen
    assert "kvm_mmu_get_page" in {event[4] for event in seen}


def test_as_an_ordinary_user(user_of_a_host_with_debugfs: tuple[str, ...]) -> None:
    said = script(
        """
        echo "== list"; trace-cmd list -e 'kvm_exit'
        trace-cmd start -e kvm -e kvmmmu
        guest
        trace-cmd stop
        echo "== trace"; cat $tracing/trace
        echo "== show"; trace-cmd show
        """,
        user_of_a_host_with_debugfs,
    )
    assert said["list"] == "kvm:kvm_exit"
    assert said["show"] == said["trace"]
    assert len(events(said["trace"])) > 10


def test_record_around_a_command() -> None:
    said = script("""
        export ctl; export -f guest
        trace-cmd record -o recorded.dat -e kvm -e kvmmmu \\
            bash -c 'guest; cat /sys/kernel/tracing/trace > seen' > /dev/null
        echo "== seen"; cat seen
        echo "== report"; trace-cmd report -i recorded.dat
    """)
    seen = events(said["seen"])
    assert len(seen) > 10
    assert events(said["report"])[: len(seen)] == seen
    assert "CPU 0/KVM" in {event[0] for event in seen}
