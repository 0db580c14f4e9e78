"""The kernel's own tests of ftrace (tools/testing/selftests/ftrace), unchanged, on the fake."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.execution.helpers import fakesys_exec
from tests.tools import kernel_source

pytestmark = [pytest.mark.usefixtures("private_world"), pytest.mark.timeout(420)]

SECONDS = 150.0

# Cases by group, and how many verdicts they give, those repeated in an instance included.
GROUPS: dict[str, tuple[tuple[str, ...], int]] = {
    "core": (
        (
            "00basic/basic1",
            "00basic/basic2",
            "00basic/basic3",
            "00basic/ringbuffer_size",
            "00basic/trace_pipe",
            "instances/instance",
            "instances/instance-event",
        ),
        11,
    ),
    "sched": (
        (
            "00basic/basic4",
            "event/event-enable",
            "event/event-pid",
            "event/event-no-pid",
            "event/subsystem-enable",
            "event/toplevel-enable",
            "filter/event-filter-incomplete",
            "trigger/trigger-eventonoff",
            "trigger/trigger-filter",
            "trigger/trigger-stacktrace",
            "trigger/trigger-traceonoff",
        ),
        18,
    ),
    "signal": (("ftrace/tracing-error-log",), 1),
    "snapshot": (
        (
            "00basic/snapshot",
            "trigger/trigger-snapshot",
            "trigger/trigger-trace-marker-snapshot",
        ),
        5,
    ),
    "hist": (
        (
            "trigger/trigger-hist",
            "trigger/trigger-hist-expressions",
            "trigger/trigger-hist-mod",
            "trigger/trigger-hist-syntax-errors",
            "trigger/trigger-multihist",
            "trigger/trigger-trace-marker-hist",
        ),
        10,
    ),
}


@pytest.fixture(scope="module")
def ftracetest(kernel_tools: kernel_source.Source) -> Path:
    """The folder of the tests, from the kernel's source."""
    if kernel_tools.version != kernel_source.WANTED:
        pytest.skip(f"the cases are of Linux {kernel_source.WANTED}, not {kernel_tools.version}")
    return kernel_tools.root / kernel_source.FTRACETEST


# It kills five shells and looks for what their last children make: a slow host runs these later.
RACES_WITH_ITS_CHILDREN = "FAIL: Test creation and deletion of trace instances"


@pytest.mark.parametrize("group", GROUPS)
def test_group(ftracetest: Path, tmp_path: Path, group: str) -> None:
    cases, verdicts = GROUPS[group]
    for _ in range(4):
        done, results = run(ftracetest, tmp_path, cases)
        wrong = [f"{verdict}: {name}" for name, verdict in results if verdict != "PASS"]
        if wrong != [RACES_WITH_ITS_CHILDREN]:
            break
    assert not wrong, "\n".join([*wrong, *_logs(tmp_path / "logs")])
    assert len(results) == verdicts, done.stdout + done.stderr
    assert done.returncode == 0


def run(
    ftracetest: Path, tmp_path: Path, cases: Iterable[str]
) -> tuple[subprocess.CompletedProcess[str], list[tuple[str, str]]]:
    """Run these cases; what the program printed, and the verdict of each by its name."""
    files = [f"test.d/{case}.tc" for case in cases]
    script = 'cd "$0" && log=$1 && shift && exec ./ftracetest -l "$log" "$@"'
    done = fakesys_exec(
        *("sh", "-c", script, str(ftracetest), str(tmp_path / "logs"), *files),
        options=("--profile", "6.1"),
        scenario="default",
        seconds=SECONDS,
    )
    return done, re.findall(r"^\[\d+\] (.*)\t\S*\[(\w+)", done.stdout, re.MULTILINE)


def _logs(folder: Path) -> list[str]:
    """The ends of the logs that failed cases leave behind."""
    return [path.read_text(errors="replace")[-1500:] for path in sorted(folder.glob("*-*.tc-*"))]
