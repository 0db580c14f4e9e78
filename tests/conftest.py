"""Options of the whole test suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--root /` runs the tests of tests/native on the files of the running kernel."""
    parser.addoption("--root", help="tests/native: use the files below this folder, not a mount")
