"""perf list: tracepoints of a tracefs that an environment variable names."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.mounts import Mount
from tests.tools.helpers import SECONDS, needs, run
from tests.tools.world import script_output

pytestmark = needs("perf")


def works() -> bool:
    """Some distributions install a `perf` that only looks for the one of the running kernel."""
    done = subprocess.run(["perf", "--version"], capture_output=True, timeout=SECONDS, check=False)
    return done.returncode == 0


def listed(text: str) -> set[str]:
    """The tracepoints that perf names."""
    return set(re.findall(r"^ *(\w+:\w+) +\[Tracepoint event\]$", text, re.MULTILINE))


@pytest.fixture(scope="module", autouse=True)
def _working_perf() -> None:
    if not works():
        pytest.skip("perf does not run with this kernel")


@pytest.mark.parametrize("system", ["kvm", "kvmmmu"])
def test_all_events_of_a_system(plain: Mount, system: str) -> None:
    tracing = plain.root / "sys/kernel/tracing"
    environment = {**os.environ, "TRACEFS_PATH": str(tracing)}
    said = run("perf", "list", f"{system}:*", env=environment)
    folders = {path.name for path in (tracing / "events" / system).iterdir() if path.is_dir()}
    assert listed(said) == {f"{system}:{name}" for name in folders}
    assert len(folders) > 15


@pytest.mark.usefixtures("private_world")
def test_exec_names_the_place_for_it(prefix: tuple[str, ...]) -> None:
    said = script_output(
        "perf list 'kvm:kvm_e*'; echo ==; cd /sys/kernel/tracing/events/kvm; ls -d kvm_e*",
        prefix=prefix,
    )
    shown, _, names = said.partition("==")
    assert listed(shown) == {f"kvm:{name}" for name in names.split()}
    assert "kvm:kvm_exit" in listed(shown)
