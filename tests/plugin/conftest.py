"""The pytest plugin as users get it: loaded by an entry point of the installed package."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """Skip where pytest cannot find the plugin."""
    if not any(entry.name == "fakesys" for entry in entry_points(group="pytest11")):
        pytest.skip("fakesys is not installed, only on the path: pip install -e .")
