"""`fakesys sweep` as a command: exit status, files, Ctrl-C, going on, and the fixture of pytest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.long import LONG
from tests.mounts import COMMAND

pytest_plugins = "pytester"

READS = ("sh", "-c", "for n in 1 2; do cat /sys/bus/ap/apmask || exit 1; done")
CARELESS = ("sh", "-c", "echo -5 > /sys/bus/ap/apmask; true")


pytestmark = pytest.mark.usefixtures("world")


def start(*words: str) -> subprocess.Popen[str]:
    """The command, in a group of its own as at a terminal."""
    return subprocess.Popen(
        [*COMMAND, "sweep", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def said(*words: str) -> tuple[int, str]:
    """Exit status and output of the command."""
    process = start(*words)
    output, _ = process.communicate(timeout=110)
    return process.returncode, output


def test_findings_are_printed_and_written(tmp_path: Path) -> None:
    page, junit, saved = (tmp_path / name for name in ("page.html", "junit.xml", "saved.json"))
    files = ("--html", str(page), "--junit", str(junit), "--json", str(saved))
    status, output = said("-j", "0", "--faults", "EIO", *files, "--", *CARELESS)
    assert status == 1
    assert "2:EIO silent: exit 0, but the machine is not as after an undisturbed run" in output
    assert "--- /sys/bus/ap/apmask" in output
    assert "Traceback" not in output
    assert "silent" in page.read_text()
    assert ET.parse(junit).getroot().attrib["failures"] == "2"
    assert [one["verdict"] for one in json.loads(saved.read_text())["judged"]] == ["silent"] * 2


def test_ctrl_c_keeps_what_is_known_and_resume_goes_on(tmp_path: Path) -> None:
    saved, whole, other = (str(tmp_path / name) for name in ("saved", "whole", "other"))
    choice = ("--faults", "EIO", "--", *READS)
    process = start("-j", "2", "--json", saved, *choice)
    # Somewhere in the middle; it does not matter where.
    time.sleep(2.0)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode in (0, 130), output
    assert "Traceback" not in output
    resume = ("--resume", saved) if Path(saved).exists() else ()
    assert said("-j", "2", *resume, "--json", whole, *choice)[0] == 0
    if not LONG:
        return
    assert said("-j", "0", "--json", other, *choice)[0] == 0
    assert Path(whole).read_bytes() == Path(other).read_bytes()


def test_wrong_usage_is_2() -> None:
    assert said("-j", "0", "--replay", "1:EXDEV", "--", *CARELESS)[0] == 2


def test_the_fixture_fails_with_the_table(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(f"""
        def test_careful(sweep):
            assert sweep("cat", "/sys/bus/ap/apmask", faults=("EIO",), limit=1).complete

        def test_careless(sweep):
            sweep(*{CARELESS}, faults=("EIO",), only=("write",))
    """)
    result = pytester.runpytest_inprocess("--strict-markers", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*2:EIO silent: *"])
