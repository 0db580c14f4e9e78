"""Mounting by fusermount3, with a helper of our own in its place; what is mounted, and whether
it answers.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from errno import EBUSY, EIO, ENOTCONN, EPERM
from pathlib import Path
from types import SimpleNamespace

import pytest

from fakesys.transport import mount_calls, mountinfo, mounting
from fakesys.transport.mounting import Busy, Mounted, MountError

# Hands over a pipe in place of the device, as fusermount3 does over the socket that it is given.
HANDS_OVER = """
import array, os, socket
peer = socket.socket(fileno=int(os.environ["_FUSE_COMMFD"]))
reader, writer = os.pipe()
rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reader]))
peer.sendmsg([b"x"], [rights])
"""
NOTES = """
import pathlib, sys
pathlib.Path(__file__).with_name("words").write_text(" ".join(sys.argv[1:]))
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the only fusermount3 that there is, as a Python program."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(source: str) -> None:
        program = tmp_path / "fusermount3"
        program.write_text(f"#!{sys.executable}\n{NOTES}{source}")
        program.chmod(0o755)

    return make


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel lets this process neither mount nor unmount."""
    libc = SimpleNamespace(mount=lambda *_: -1, umount2=lambda *_: -1)
    monkeypatch.setattr(mount_calls, "libc", lambda: libc)
    monkeypatch.setattr(ctypes, "get_errno", lambda: EPERM)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def words(folder: Path) -> str:
    """With what the helper was called."""
    return (folder / "words").read_text()


@pytest.mark.usefixtures("as_user")
def test_the_helper_hands_over_a_descriptor(tmp_path: Path, helper: Callable[[str], None]) -> None:
    helper(HANDS_OVER)
    device = mounting.mount(tmp_path / "a b", "abc", allow_other=True)
    try:
        assert not os.get_blocking(device)
        assert not os.get_inheritable(device)
    finally:
        os.close(device)
    options = "fsname=fakesys-abc,subtype=fakesys,default_permissions,nosuid,nodev,noexec"
    assert words(tmp_path) == f"-o {options},allow_other -- {tmp_path}/a b"


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "fusermount3 gave no descriptor"),
        ("sys.exit(1)", "fusermount3 failed"),
        ("print('noise', file=sys.stderr); sys.exit('fusermount3: mount failed: x')", "mount fa"),
    ],
)
def test_a_helper_that_fails_says_why_at_once(
    tmp_path: Path, helper: Callable[[str], None], source: str, message: str
) -> None:
    helper(source)
    # After HELPER_SECONDS it would be a TimeoutError.
    with pytest.raises(MountError, match=f"^{message}"):
        mounting.mount(tmp_path, "abc", allow_other=False)


@pytest.mark.usefixtures("as_user", "helper")
def test_without_the_helper_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="fusermount3 is missing: install fuse3"):
        mounting.mount(tmp_path, "abc", allow_other=False)


@pytest.mark.usefixtures("as_user")
def test_a_helper_that_may_not_be_run_is_named_with_the_reason(
    tmp_path: Path, helper: Callable[[str], None]
) -> None:
    helper("")
    (tmp_path / "fusermount3").chmod(0o644)
    why = r"^fusermount3 is missing or out of reach \(Permission denied\): install fuse3"
    with pytest.raises(MountError, match=why):
        mounting.mount(tmp_path, "abc", allow_other=False)


@pytest.mark.usefixtures("as_user")
def test_a_helper_that_hangs_is_given_up(
    tmp_path: Path, helper: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    helper("import time; time.sleep(60)")
    monkeypatch.setattr(mounting, "HELPER_SECONDS", 0.2)
    with pytest.raises(MountError, match="fusermount3 did not answer"):
        mounting.unmount(tmp_path)


@pytest.mark.usefixtures("as_user")
def test_unmounting_by_the_helper(tmp_path: Path, helper: Callable[[str], None]) -> None:
    helper("")
    mounting.unmount(tmp_path, lazy=True)
    assert words(tmp_path) == f"-u -z -- {tmp_path}"
    mounting.unmount(tmp_path)
    assert words(tmp_path) == f"-u -- {tmp_path}"
    helper("sys.exit('fusermount3: failed to unmount: Device or resource busy')")
    with pytest.raises(Busy):
        mounting.unmount(tmp_path)


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [(EBUSY, Busy, "is in use"), (EIO, MountError, "cannot unmount .*: Input/output error")],
)
def test_unmounting_that_the_kernel_refuses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[MountError],
    message: str,
) -> None:
    libc = SimpleNamespace(umount2=lambda *_: -1)
    monkeypatch.setattr(mount_calls, "libc", lambda: libc)
    monkeypatch.setattr(ctypes, "get_errno", lambda: number)
    with pytest.raises(kind, match=message):
        mounting.unmount(tmp_path)


def test_a_place_without_a_mount(tmp_path: Path) -> None:
    assert mounting.find(tmp_path) is None
    assert not mounting.clear_stale(tmp_path)
    if os.geteuid() == 0:
        with pytest.raises(MountError, match="is not a mount point"):
            mounting.unmount(tmp_path)


@pytest.mark.parametrize(
    ("given", "real"), [("real/mnt", "real/mnt"), ("link/mnt", "real/mnt"), ("link/..", "")]
)
def test_a_point_is_named_without_links(tmp_path: Path, given: str, real: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert mounting.real_point(tmp_path / given) == tmp_path / real
    assert mounting.real_point(Path("/")) == Path("/")


def test_names_with_blanks_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = r"36 25 0:51 / /a\040b rw - fuse.fakesys fakesys-x\0541 rw"
    table = tmp_path / "mountinfo"
    table.write_text(f"{line}\n35 25 0:50 / /c rw - fuse.sshfs host rw\n")

    monkeypatch.setattr(mountinfo, "MOUNTINFO", table)
    assert list(mounting.mounted()) == [Mounted(Path("/a b"), "fakesys-x,1", 51)]
    assert next(mounting.mounted()).instance == "x,1"


@pytest.mark.parametrize(("number", "answer"), [(ENOTCONN, False), (EPERM, True)])
def test_only_a_dead_mount_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, number: int, answer: bool
) -> None:
    def statvfs(_path: Path) -> None:
        raise OSError(number, os.strerror(number))

    assert mounting.answers(Path("/"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", statvfs)
        assert mounting.answers(Path("/x")) is answer


def test_a_call_that_does_not_come_back_is_not_waited_for() -> None:
    assert mounting.within(5, lambda: 7) == 7
    released = threading.Event()
    assert mounting.within(0.01, released.wait) is None
    released.set()


def test_aborting_by_fusectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounting, "CONNECTIONS", tmp_path)
    (tmp_path / "51").mkdir()
    mounting.abort(Mounted(Path("/x"), "fakesys-x", 51))
    assert (tmp_path / "51/abort").read_text() == "1"
