"""kvm_stat of the kernel's tools, debugfs provider: it shows what the files show.

Its tracepoint provider asks the running kernel by perf events and never sees the fake.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.tools import kernel_source
from tests.tools.helpers import need_a_line_of_debugfs
from tests.tools.world import GUEST, script_output, sections

pytestmark = pytest.mark.usefixtures("private_world")

# Never shown by kvm_stat: Debugfs provider, get_available_fields.
HIDDEN = {"halt_poll_fail_ns", "halt_poll_success_ns", "halt_wait_ns"}
SETUP = (
    """
ctl=/sys/kernel/debug/fakesys/kvm/ctl
while read -r command; do echo "$command" > $ctl; done <<END
"""
    + GUEST
    + """a vcpu 0 run w=0x300000 r=0x3f00000
END
sleep 300 & owner=$!
trap "kill $owner" EXIT
echo "vm create b pid=$owner" > $ctl
echo "b vcpu add" > $ctl
"""
)
FILES = """
cd /sys/kernel/debug/kvm
grep -H '' $(find . -maxdepth 1 -type f -printf '%f ')
"""


@pytest.fixture(scope="module")
def kvm_stat(request: pytest.FixtureRequest) -> Path:
    """The program, installed or from the kernel's source. It looks for a mount of debugfs."""
    need_a_line_of_debugfs()
    installed = shutil.which("kvm_stat")
    if installed:
        return Path(installed)
    tools: kernel_source.Source = request.getfixturevalue("kernel_tools")
    return tools.root / kernel_source.KVM_STAT / "kvm_stat"


def totals(text: str) -> dict[str, int]:
    """`NAME TOTAL CURRENT` lines as kvm_stat -1 prints them."""
    return {name: int(total) for name, total in re.findall(r"^(\S+) +(\d+) +\d+$", text, re.M)}


def from_files(text: str) -> dict[str, int]:
    """`NAME:VALUE` lines of grep."""
    return {
        name: int(value)
        for name, _, value in (line.partition(":") for line in text.splitlines())
        if name not in HIDDEN
    }


@pytest.mark.parametrize("profile", ["seed", "6.1", "6.12", "6.18"])
def test_totals_are_those_of_the_files(kvm_stat: Path, profile: str) -> None:
    script = f"""{SETUP}
    echo "== shown"; python3 {kvm_stat} -d -1 -i
    echo "== files"; {FILES}
    """
    said = sections(script_output(script, options=("--profile", profile)))
    shown = totals(said["shown"])
    assert shown == from_files(said["files"])
    assert len(shown) == (38 if profile == "seed" else 57)
    assert shown["exits"] >= shown["mmio_exits"] > 0


def test_totals_are_the_sums_of_the_guests(kvm_stat: Path) -> None:
    script = f"""{SETUP}
    echo "== shown"; python3 {kvm_stat} -d -1 -i
    cd /sys/kernel/debug/kvm
    echo "== files"; grep -H '' $(find . -mindepth 2 -maxdepth 2 -type f -printf '%P ') || true
    """
    said = sections(script_output(script))
    sums: dict[str, int] = {}
    for path, _, value in (line.partition(":") for line in said["files"].splitlines()):
        name = path.partition("/")[2]
        sums[name] = sums.get(name, 0) + int(value)
    shown = totals(said["shown"])
    assert {name: sums[name] for name in shown} == shown


def test_a_log(kvm_stat: Path) -> None:
    script = f"""{SETUP}
    echo "== shown"; timeout -s INT 10 python3 {kvm_stat} -d -l -i -s 0.2 -f '^exits$' > /run/log &
    for _ in $(seq 200); do [ "$(wc -l < /run/log)" -ge 3 ] && break; sleep 0.05; done
    kill -INT $!; cat /run/log
    """
    said = sections(script_output(script))["shown"].splitlines()
    assert said[0].split() == ["exits"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +0", line) for line in said[1:3])


def test_a_flag_of_the_processor_is_there_where_the_machine_has_none(kvm_stat: Path) -> None:
    """Without `vmx` or `svm` it does not even start on x86."""
    assert totals(script_output(f"{SETUP} python3 {kvm_stat} -d -1"))


def test_as_an_ordinary_user(kvm_stat: Path, user_of_a_host_with_debugfs: tuple[str, ...]) -> None:
    with TemporaryDirectory() as folder:
        # A place that every user can read, unlike root's.
        os.chmod(folder, 0o755)
        program = shutil.copy(kvm_stat, folder)
        script = f"{SETUP} echo '== shown'; python3 {program} -d -1 -i; echo '== files'; {FILES}"
        said = sections(script_output(script, prefix=user_of_a_host_with_debugfs))
    assert totals(said["shown"]) == from_files(said["files"])


def test_one_process_alone(kvm_stat: Path) -> None:
    script = f"""{SETUP}
    echo "== shown"; python3 {kvm_stat} -d -1 -i -p $owner
    cd /sys/kernel/debug/kvm/$owner-10
    echo "== files"; grep -H '' $(find . -maxdepth 1 -type f -printf '%f ')
    """
    said = sections(script_output(script))
    assert totals(said["shown"]) == from_files(said["files"])


def test_a_choice_of_fields(kvm_stat: Path) -> None:
    script = f"{SETUP} echo '== shown'; python3 {kvm_stat} -d -1 -i -f '^io_exits$'"
    assert totals(sections(script_output(script))["shown"]).keys() == {"io_exits"}
