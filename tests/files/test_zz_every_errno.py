"""Runs last in this folder: each errno that a row lists was provoked by some test before."""

from __future__ import annotations

import errno as errno_numbers
from pathlib import Path

import pytest

from fakesys.machine.reference.files import folders
from fakesys.tree.attr import Attr, Files
from tests.files.conftest import PROVOKED, RUN


def declared() -> set[tuple[str, str, int]]:
    found = set()
    for folder in folders():
        for entry in folder.entries.values():
            row = entry.row.attr if isinstance(entry.row, Files) else entry.row
            if isinstance(row, Attr):
                found |= {(row.name, row.doc, number) for number in row.errors}
    return found


def test_every_listed_errno_is_provoked() -> None:
    if set(Path(__file__).parent.glob("test_*.py")) != RUN:
        left = sorted(path.name for path in set(Path(__file__).parent.glob("test_*.py")) - RUN)
        pytest.skip(f"this process has not run {left}")
    missing = sorted(
        f"{name} ({doc[:40]}): {errno_numbers.errorcode[number]}"
        for name, doc, number in declared() - PROVOKED
    )
    assert not missing
