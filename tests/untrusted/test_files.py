"""Files that are no files, have no end or are too long: refused soon, in one line."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from fakesys.machine.untrusted import files
from fakesys.machine.untrusted.files import UnusableFileError, read_file


def refused(path: Path, most: int = 1000) -> str:
    with pytest.raises(UnusableFileError) as error:
        read_file(path, most)
    text = str(error.value)
    assert text.isprintable()
    name, _, why = text.rpartition(": ")
    assert name
    return why


def test_a_file_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a" * 1000)
    assert read_file(path, 1000) == b"a" * 1000
    assert refused(path, 999) == "1000 bytes, of which at most 999 can be used"
    path.write_bytes(b"")
    assert read_file(path, 0) == b""


def test_a_sparse_file_of_one_gib_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    os.truncate(path, 1 << 30)
    assert refused(path).startswith("1073741824 bytes")


def test_what_is_no_file(tmp_path: Path) -> None:
    assert refused(tmp_path) == "a directory, not a file"
    for path in ("/dev/zero", "/dev/null", "/dev/urandom"):
        assert refused(Path(path)) == "neither a regular file nor a pipe"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert refused(tmp_path / "s") == "neither a regular file nor a pipe"
    assert refused(tmp_path / "none") == "No such file or directory"
    # "embedded null byte", and from Python 3.13 on "embedded null character in path".
    assert refused(Path("a\0b")).startswith("embedded null ")
    assert refused(tmp_path / "a\nb\x1b") == "No such file or directory"
    (tmp_path / "loop").symlink_to("loop")
    assert refused(tmp_path / "loop") == "Too many levels of symbolic links"


def test_a_file_of_procfs_says_no_size() -> None:
    path = Path("/proc/self/status")
    assert read_file(path, 1 << 20).startswith(b"Name:")
    assert refused(path, 100) == "more than the 100 bytes that can be used"


def test_a_pipe_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    data = os.urandom(300_000)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    assert read_file(path, 300_000) == data
    writer.join(20)
    # A pipe without a name, such as that of `<(command)`.
    reader, other = os.pipe()
    os.write(other, b"text")
    os.close(other)
    assert read_file(Path(f"/proc/self/fd/{reader}"), 10) == b"text"
    os.close(reader)


@pytest.mark.parametrize("text", [b"", b"some"])
def test_a_pipe_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(files, "SECONDS", 0.2)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    # Nobody writes at all.
    assert refused(path) == "a pipe that did not end within 0.2 seconds"
    holder = os.open(path, os.O_RDWR)
    os.write(holder, text)
    assert refused(path) == "a pipe that did not end within 0.2 seconds"
    os.write(holder, b"x" * 1000 + b"x")
    assert refused(path) == "more than the 1000 bytes that can be used"
    os.close(holder)
