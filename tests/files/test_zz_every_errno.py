"""Runs last in this folder: each errno that a row lists was provoked by some test before."""

from __future__ import annotations

import errno as errno_numbers
import os
from pathlib import Path

import pytest

from fakesys.abi import folders
from fakesys.tree.attr import Attr, Files
from tests.files.conftest import PROVOKED


def declared() -> set[tuple[str, str, int]]:
    found = set()
    for folder in folders():
        for entry in folder.entries.values():
            row = entry.row.attr if isinstance(entry.row, Files) else entry.row
            if isinstance(row, Attr):
                found |= {(row.name, row.doc, number) for number in row.errors}
    return found


def test_every_listed_errno_is_provoked(request: pytest.FixtureRequest) -> None:
    here = Path(__file__).parent
    modules = {item.path for item in request.session.items if item.path.parent == here}
    if modules != set(here.glob("test_*.py")):
        pytest.skip("only some of the tests in this folder were selected")
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("the tests of this folder are spread over processes")
    missing = sorted(
        f"{name} ({doc[:40]}): {errno_numbers.errorcode[number]}"
        for name, doc, number in declared() - PROVOKED
    )
    assert not missing
