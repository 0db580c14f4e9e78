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
    assert said["tracers"] == "blk nop"
    # The file has those of the present tracer only, the directory those of all.
    of_blk = ["noblk_classic", "noblk_cgroup", "noblk_cgname"]
    assert said["options"].splitlines() == [*said["option file"].splitlines(), *of_blk]
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


def untimed(text: str) -> list[tuple[str, ...]]:
    """The same without the time, which each instance takes for itself."""
    return [(task, pid, cpu, name) for task, pid, cpu, _, name in events(text)]


WATCHED = """
mkdir $tracing/instances/all
echo 1 > $tracing/instances/all/events/kvm/enable
runs() { for n in $(seq $1); do echo 'a vcpu 0 run w=0x300000 r=0x200000' > $ctl; done; }
guest
"""


def test_stream_shows_the_events_that_trace_shows() -> None:
    said = script(
        WATCHED
        + """
        echo > $tracing/instances/all/trace
        # Without job control SIGINT would be ignored.
        set -m
        trace-cmd stream -e kvm > streamed 2>&1 & stream=$!
        set +m
        # trace-cmd turns tracing off while it enables events.
        until [ "$(cat $tracing/events/kvm/enable $tracing/tracing_on | xargs)" = '1 1' ]; do
            sleep 0.01
        done
        runs 100
        echo "== trace"; cat $tracing/instances/all/trace
        until [ "$(grep -h ^entries $tracing/per_cpu/cpu*/stats | sort -u)" = 'entries: 0' ]; do
            sleep 0.01
        done
        # The first ends the recording, the second a last wait for one more event.
        while kill -INT $stream 2> /dev/null; do sleep 0.2; done
        echo "== stream"; cat streamed
        """
    )
    # Names of tasks are known when a recording ends only.
    seen = [event[1:] for event in untimed(said["trace"])]
    assert len(seen) >= 500
    assert [event[1:] for event in untimed(said["stream"])] == seen


def test_record_around_eight_workloads_loses_nothing() -> None:
    said = script(
        WATCHED
        + """
        export ctl; export -f runs
        for n in $(seq 8); do
            echo > $tracing/instances/all/trace
            trace-cmd record -o $n.dat -e kvm bash -c 'runs 100' > /dev/null 2> errors
            echo "== trace $n"; cat $tracing/instances/all/trace
            echo "== report $n"; trace-cmd report -i $n.dat
        done
        """
    )
    for number in range(1, 9):
        seen = untimed(said[f"trace {number}"])
        assert len(seen) >= 500
        assert untimed(said[f"report {number}"]) == seen
        assert "LOST" not in said[f"report {number}"]
        assert "DROPPED" not in said[f"report {number}"]


def test_profile_shows_the_events_of_the_guest() -> None:
    said = script(
        WATCHED
        + """
        export ctl; export -f runs
        # Its recorders splice while the command runs: it does not read what comes later.
        echo 0 > $tracing/buffer_percent
        echo "== profile"; trace-cmd profile -p nop -e kvm bash -c 'runs 40' 2> errors
        """
    )
    exits = re.search(r"Event: kvm_userspace_exit:\S+ \((\d+)\)", said["profile"])
    assert exits
    assert 20 < int(exits[1]) <= 40
