"""Sweeps of small scripts, in this process."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import fakesys
from fakesys.machine.machine import Machine
from fakesys.sweep.plan import Choice, program_of
from fakesys.sweep.search import Report, Sweep

EXAMPLES = Path(fakesys.__file__).parent / "docs" / "examples"


def swept(
    *command: str,
    choice: Choice | None = None,
    names: Collection[str] = (),
    machine: Machine | None = None,
    **values: Any,
) -> Report:
    """The report of a command, by default on the default machine; `names`: of these cells only."""
    program = program_of(command, machine or Machine(), dict(os.environ), Path.cwd(), **values)
    found = Sweep(program, choice or Choice())
    found.begin()
    found.go_on([cell for cell in found.cells() if not names or cell.name in names])
    return found.report


def verdicts(report: Report) -> dict[str, str]:
    """Verdict of each cell by its name."""
    return {one.cell.name: one.verdict for one in report.judged}
