"""What lies below a directory is reached, nothing else: absolute paths, `..`, links, procfs."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from errno import EAGAIN, EEXIST, EINVAL, ELOOP, ENOENT, ENOSYS, ENOTDIR, EXDEV
from pathlib import Path

import pytest

from fakesys.machine.untrusted import below
from fakesys.machine.untrusted.below import Below


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/file").write_text("text")
    for name, target in (
        ("inside", "a/file"),
        ("up", "a/b/../file"),
        ("a/folder", "../a/b"),
        ("out", ".."),
        ("absolute", str(root / "a/file")),
        ("victim", "../victim"),
        ("loop", "loop"),
    ):
        (root / name).symlink_to(target)
    (tmp_path / "victim").write_text("whole")
    (tmp_path / "empty").mkdir()
    return root


@pytest.fixture
def place(root: Path) -> Iterator[Below]:
    with Below(root) as place:
        yield place


def number(action: object, *words: object) -> int | None:
    assert callable(action)
    with pytest.raises(OSError, match=r"\[Errno") as error:
        action(*words)
    return error.value.errno


@pytest.mark.parametrize("path", ["a/file", "inside", "up", "a/folder/../file", "a//./b/../file"])
def test_what_stays_below_is_opened(place: Below, path: str) -> None:
    with os.fdopen(place.open(path, os.O_RDONLY)) as file:
        assert file.read() == "text"
        assert not os.get_inheritable(file.fileno())


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "..", "../victim", "a/../../victim", "out/victim", "absolute", "victim"]
)
def test_what_leads_out_is_refused(place: Below, tmp_path: Path, path: str) -> None:
    assert number(place.open, path, os.O_WRONLY | os.O_TRUNC) == EXDEV
    assert number(place.mkdir, path if path == ".." else f"{path}/new") in (EXDEV, ENOTDIR)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "root", "victim"]
    assert (tmp_path / "victim").read_text() == "whole"


def test_directories_are_made_and_removed_below_only(place: Below, root: Path) -> None:
    place.mkdir("new")
    place.mkdir("a/folder/new/")
    assert (root / "new").is_dir()
    assert (root / "a/b/new").is_dir()
    assert number(place.mkdir, "new") == number(place.mkdir, ".") == EEXIST
    assert number(place.mkdir, "a/folder") == EEXIST
    assert number(place.rmdir, "a/folder") == ENOTDIR
    place.rmdir("new/")
    place.rmdir("a/folder/new")
    for path in ("../empty", "out/empty", "/empty", str(root.parent / "empty"), "a/../.."):
        assert number(place.rmdir, path) == EXDEV, path
        assert number(place.mkdir, f"{path}/x") == EXDEV, path
    assert number(place.mkdir, "/x") == EXDEV
    assert number(place.mkdir, "none/x") == ENOENT
    assert (root.parent / "empty").is_dir()


def test_other_refusals(place: Below, root: Path) -> None:
    assert number(place.open, "none", os.O_RDONLY) == ENOENT
    assert number(place.open, "loop", os.O_RDONLY) == ELOOP
    assert number(place.open, "a/file\0/../..", os.O_RDONLY) == EINVAL
    assert number(Below, root / "none") == ENOENT
    assert number(Below, root / "a/file") == ENOTDIR


def test_links_of_procfs_lead_nowhere(root: Path) -> None:
    descriptor = os.open(root / "a/file", os.O_RDONLY)
    try:
        with Below(Path("/proc/self")) as place:
            assert number(place.open, f"fd/{descriptor}", os.O_RDONLY) == ELOOP
            assert number(place.open, "cwd/x", os.O_RDONLY) == ELOOP
    finally:
        os.close(descriptor)


def test_a_kernel_without_openat2(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    # A number that no kernel has.
    monkeypatch.setattr(below, "OPENAT2", 4242)
    with pytest.raises(OSError, match="this kernel has no openat2") as error:
        Below(root)
    assert error.value.errno == ENOSYS
    assert error.value.filename == str(root)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lookup_beside_a_rename_is_tried_again(
    place: Below, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel answers EAGAIN to a lookup of `..` while anything is renamed."""
    real, calls = below._libc, [0]

    class Busy:
        """The C library of a kernel on which two renames come in between."""

        def syscall(self, *words: object) -> int:
            calls[0] += 1
            if calls[0] < 3:
                ctypes.set_errno(EAGAIN)
                return -1
            return int(real.syscall(*words))

    monkeypatch.setattr(below, "_libc", Busy())
    os.close(place.open("up", os.O_RDONLY))
    assert calls == [3]
