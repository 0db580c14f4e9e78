"""splice(2) and sendfile(2): pages of the trace, texts, refusals, and readers that wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EAGAIN, EINVAL
from pathlib import Path

import pytest

from fakesys.subsystems.tracing.ring_buffer.raw_page import RawPage
from tests.mounts import Mount, has_open, wait_until

pytestmark = pytest.mark.usefixtures("on_cpu0")

PAGE = 4096
RAW = "sys/kernel/tracing/per_cpu/cpu0/trace_pipe_raw"
RW = "sys/devices/virtual/selftest/selftest0/rw"
# Splices a file that is given by number or name, and ends; 64 KiB are more than there is.
SPLICER = "import os, sys; os.splice(os.open(sys.argv[1], os.O_RDONLY), os.pipe()[1], 65536)"


@pytest.fixture(scope="module")
def transport() -> str:
    """The native one: libfuse 2 hides which reads are those of splice."""
    return "native"


class Splicer:
    """An open file and a pipe."""

    def __init__(self, path: Path, flags: int = os.O_NONBLOCK) -> None:
        self.file = os.open(path, os.O_RDONLY | flags)
        self._out, self._in = os.pipe()

    def splice(self, size: int = 16 * PAGE) -> bytes:
        """What one call moves."""
        moved = os.splice(self.file, self._in, size)
        return os.read(self._out, moved) if moved else b""

    def refusal(self, size: int = 16 * PAGE) -> int:
        """The errno of one call."""
        with pytest.raises(OSError) as refused:
            self.splice(size)
        assert refused.value.errno is not None
        return refused.value.errno

    def close(self) -> None:
        for descriptor in (self.file, self._out, self._in):
            os.close(descriptor)


@contextmanager
def opened(path: Path, flags: int = os.O_NONBLOCK) -> Iterator[Splicer]:
    splicer = Splicer(path, flags)
    try:
        yield splicer
    finally:
        splicer.close()


@pytest.fixture
def raw(shared_mount: Mount) -> Iterator[Path]:
    """`trace_pipe_raw` of the CPU that gets the events."""
    (shared_mount.root / "sys/kernel/tracing/buffer_size_kb").write_text("4096")
    yield shared_mount.root / RAW
    shared_mount.command("reset")
    assert shared_mount.bugs() == 0


def mark(raw: Path, first: int, count: int) -> None:
    """Events of 500 bytes that begin with their number: seven or eight of them fill a page."""
    with (raw.parents[2] / "trace_marker").open("w") as marker:
        for number in range(first, first + count):
            marker.write(f"{number:05d}".ljust(500, "."))
            marker.flush()


def numbers(data: bytes) -> list[int]:
    """The numbers in whole pages."""
    assert len(data) % PAGE == 0
    pages = [data[start : start + PAGE] for start in range(0, len(data), PAGE)]
    records = [record for page in pages for record in RawPage.decode(page).events()]
    return [int(bytes(record.payload).split(b"....")[0][-5:]) for record in records]


def test_pages_come_in_order_and_then_eagain(raw: Path) -> None:
    with opened(raw) as splicer:
        assert splicer.refusal() == EAGAIN
        mark(raw, 0, 40)
        found = numbers(splicer.splice(PAGE))
        assert os.fstat(splicer.file).st_size == raw.stat().st_size == 0
        found += numbers(splicer.splice())
        assert splicer.refusal() == splicer.refusal(PAGE) == EAGAIN
        assert found == list(range(len(found)))
        # The page that the kernel writes to is for read(2).
        rest = numbers(os.read(splicer.file, PAGE))
        assert found + rest == list(range(40))
        assert len(rest) < 9
        mark(raw, 40, 20)
        assert numbers(splicer.splice())[0] == 40


def test_each_page_goes_to_one_of_two_readers(raw: Path) -> None:
    with opened(raw) as one, opened(raw) as other:
        mark(raw, 0, 80)
        found = []
        for splicer in (one, other) * 2:
            found += numbers(splicer.splice(PAGE))
        found += numbers(one.splice())
        assert found == list(range(len(found)))
        assert other.refusal() == EAGAIN


def test_a_page_that_read_began_is_not_spliced(raw: Path) -> None:
    with opened(raw) as splicer:
        mark(raw, 0, 40)
        page = os.read(splicer.file, 2000)
        assert splicer.refusal() == EINVAL
        page += os.read(splicer.file, 1000)
        page += os.read(splicer.file, PAGE)
        assert numbers(page)[0] == 0
        assert numbers(splicer.splice())[0] == len(numbers(page))


@contextmanager
def blocked_splicer(raw: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", SPLICER, str(raw)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wchan = Path(f"/proc/{process.pid}/wchan")
            # Its open waits for an answer too, for a moment.
            wait_until(lambda: has_open(process.pid, raw.name))
            wait_until(lambda: wchan.read_text() == "request_wait_answer")
            yield process
        finally:
            process.kill()


def state(pid: int) -> str:
    """The state of a process, such as S or D."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_splicer_that_waits(raw: Path, number: signal.Signals) -> None:
    with blocked_splicer(raw) as process:
        assert state(process.pid) == "S"
        process.send_signal(number)
        process.wait(10)


def test_a_splicer_that_waits_stops_nobody(raw: Path) -> None:
    with blocked_splicer(raw) as process:
        folder = f"/proc/{process.pid}/fd"
        mine = next(fd for fd in os.listdir(folder) if "raw" in os.readlink(f"{folder}/{fd}"))
        # The first is the very inode whose page the splicer waits for.
        for path in (Path(folder, mine), raw):
            check = f"import os; os.stat({str(path)!r}); os.open({str(path)!r}, os.O_NONBLOCK)"
            subprocess.run([sys.executable, "-c", check], timeout=10, check=True)
        with opened(raw) as other:
            assert other.refusal() == EAGAIN
        subprocess.run(["ls", "-l", str(raw.parent)], timeout=10, check=True, capture_output=True)
        assert process.poll() is None
        mark(raw, 0, 40)
        assert process.wait(10) == 0


@pytest.mark.parametrize("size", [0, PAGE])
def test_a_long_stream_is_spliced_whole(raw: Path, size: int) -> None:
    """More pages than the kernel is let to keep."""
    with opened(raw) as splicer:
        found: list[int] = []
        for start in range(0, 3000, 60):
            mark(raw, start, 60)
            try:
                while True:
                    found += numbers(splicer.splice(size or 16 * PAGE))
                    if size:
                        assert os.fstat(splicer.file).st_size == 0
            except BlockingIOError:
                pass
        assert found == list(range(len(found)))
        assert len(found) > 2900


def sendfile(path: Path, size: int = 1 << 16) -> bytes | int:
    """The text by one call as `busybox cat` makes it, or the errno."""
    out, into = os.pipe()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        moved = os.sendfile(into, descriptor, None, size)
        return os.read(out, moved) if moved else b""
    except OSError as refused:
        assert refused.errno is not None
        return refused.errno
    finally:
        for number in (descriptor, out, into):
            os.close(number)


@pytest.mark.parametrize(
    "path",
    [
        "sys/kernel/debug/selftest/rw",
        "sys/kernel/debug/selftest/seq",
        "sys/kernel/debug/fakesys/state",
        "sys/kernel/tracing/tracing_on",
        "sys/kernel/tracing/trace",
        "sys/kernel/tracing/set_event",
    ],
)
def test_programs_are_told_to_read_instead(shared_mount: Mount, path: str) -> None:
    file = shared_mount.root / path
    for _ in range(2):
        assert sendfile(file) == EINVAL
        # Attributes tell the kernel a size of 0 again.
        assert file.stat().st_size == 0
        with file.open("rb", buffering=0) as opened_file:
            assert os.fstat(opened_file.fileno()).st_size == 0
            assert sendfile(file) == EINVAL


def test_a_text_of_sysfs_is_spliced_as_it_is_now(shared_mount: Mount) -> None:
    file = shared_mount.root / RW
    for text in ("1500\n", "9\n", "123456\n"):
        # The write leaves a size of 0, the splice one of the length of the text.
        file.write_text(text)
        assert sendfile(file) == text.encode()
        assert sendfile(file) == text.encode()
        assert file.stat().st_size == PAGE
    file.write_text("1500\n")
