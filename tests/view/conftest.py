"""One browser for all tests of the page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra fakesys[view] is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver

from tests.mounts import Mount, mounted
from tests.tools.kept import Unavailable
from tests.view.browser import WIDE, browser, logged, look

needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse is not usable here"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pages are of mounts."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.path.name != "test_parts.py":
            item.add_marker(needs_fuse)
            # Some share one browser.
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="session")
def only_browser() -> Iterator[webdriver.Chrome]:
    """The browser of all tests."""
    try:
        with browser() as driver:
            yield driver
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def driver(only_browser: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """The browser in its usual size; what it logs as an error fails the test."""
    look(only_browser, WIDE)
    logged(only_browser)
    yield only_browser
    only_browser.get("about:blank")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A mount with the default machine."""
    with mounted(tmp_path, scenario="default") as found:
        yield found
