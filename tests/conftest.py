"""Options of the whole test suite, and how it is shared out among processes."""

from __future__ import annotations

from pathlib import Path

import pytest

# These are run by one process: the last of them asks what all others have provoked.
TOGETHER = Path(__file__).parent / "files"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--root /` runs the tests of tests/native on the files of the running kernel."""
    parser.addoption("--root", help="tests/native: use the files below this folder, not a mount")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 2 --dist loadgroup` a module stays in one process, and so do its mounts."""
    for item in items:
        together = TOGETHER in item.path.parents
        item.add_marker(pytest.mark.xdist_group("files" if together else str(item.path)))
