"""Each errno that a row lists is provoked by some test below tests/files.

The tests are shared out among processes, so no test can ask what all others have provoked. Each
worker hands its refusals to the controller when it ends, and the controller asks at the end of the
session. It asks nothing when a part of the folder was run or a test has failed.
"""

from __future__ import annotations

import errno as errno_numbers
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "files"
# (name of the row, its description, errno)
Refusal = tuple[str, str, int]
PROVOKED: set[Refusal] = set()
# The modules below FOLDER of which tests have run.
RUN: set[str] = set()


def declared() -> set[Refusal]:
    """Every errno of every row of the tree."""
    from fakesys.machine.reference.files import folders
    from fakesys.tree.attr import Attr, Files

    found = set()
    for folder in folders():
        for entry in folder.entries.values():
            row = entry.row.attr if isinstance(entry.row, Files) else entry.row
            if isinstance(row, Attr):
                found |= {(row.name, row.doc, number) for number in row.errors}
    return found


def unprovoked() -> list[str]:
    """Errnos that a row lists and no test has provoked, one line each."""
    return sorted(
        f"{name} ({doc[:40]}): {errno_numbers.errorcode[number]}"
        for name, doc, number in declared() - PROVOKED
    )


def whole(config: pytest.Config) -> bool:
    """Whether all modules of the folder have run, with all their tests."""
    chosen = config.option.keyword or config.option.markexpr or getattr(config.option, "lf", False)
    parts = any("::" in str(argument) for argument in config.args)
    return not chosen and not parts and {path.name for path in FOLDER.glob("test_*.py")} <= RUN


class Errnos:
    """The hooks of one session, in a worker, in the controller or where there is one process."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.asked = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker has provoked; one that died hands over nothing."""
        output = getattr(node, "workeroutput", {})
        PROVOKED.update((name, doc, number) for name, doc, number in output.get("provoked", ()))
        RUN.update(output.get("run", ()))

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Hand over what this worker has provoked, or ask whether anything is missing."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["provoked"] = sorted(PROVOKED)
            output["run"] = sorted(RUN)
        elif exitstatus == pytest.ExitCode.OK and whole(session.config):
            self.asked = True
            self.lines = unprovoked()
            if self.lines:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which errnos no test has provoked, or that there is none."""
        if self.lines:
            terminalreporter.section("errnos of rows that no test below tests/files provokes")
        for line in self.lines:
            terminalreporter.write_line(line, red=True)
        if self.asked and not self.lines:
            terminalreporter.write_line(f"each of {len(declared())} errnos of rows was provoked")
