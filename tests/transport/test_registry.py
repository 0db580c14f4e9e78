"""The directory in which daemons keep entries of their mounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakesys.daemon import registry


@pytest.fixture(autouse=True)
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_the_folder_is_private(runtime_dir: Path) -> None:
    assert registry.folder() == runtime_dir / "fakesys"
    assert registry.folder().stat().st_mode & 0o777 == 0o700


def test_a_folder_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = registry.folder().stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(PermissionError):
        registry.folder()


def test_a_link_in_its_place_is_refused(runtime_dir: Path) -> None:
    (runtime_dir / "fakesys").symlink_to("/")
    with pytest.raises(PermissionError):
        registry.folder()
