"""What the kernel is told so that splice(2) works, without a kernel."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from errno import EAGAIN, EINVAL

import pytest

from fakesys.transport.fuse.protocol import Notify, Op
from fakesys.transport.fuse.splice import FAR, KEPT_PAGES
from tests.mounts import wait_until
from tests.transport.test_session import Wire, write_body

RW = "sys/devices/virtual/selftest/selftest0/rw"
DEBUG = "sys/kernel/debug/selftest/rw"
RAW = "sys/kernel/tracing/per_cpu/cpu0/trace_pipe_raw"
OPEN_FLAGS = struct.Struct("<QII")


class Client(Wire):
    """The kernel's side, with the messages that are no answers."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def message(self) -> tuple[int, int, bytes] | None:
        """The next message; sizes of NOTIFY_STORE are kept."""
        found = super().message()
        if found is not None and found[:2] == (0, Notify.STORE):
            _, offset, size, _ = struct.unpack_from("<QQII", found[2])
            self.sizes.append(offset + size)
        return found

    def by_page(self, nodeid: int, handle: int, thread: int = 42) -> tuple[int, bytes]:
        """A READ that comes from the page cache."""
        self.thread = thread
        body = struct.pack("<QQIIQII", handle, 0, 4096, 0, 0, os.O_NONBLOCK, 0)
        return self.ask(Op.READ, nodeid, body)

    def open_node(self, nodeid: int, flags: int = os.O_RDONLY) -> int:
        error, data = self.ask(Op.OPEN, nodeid, struct.pack("<II", flags, 0))
        assert not error
        return int(OPEN_FLAGS.unpack(data)[0])

    def release(self, nodeid: int, handle: int) -> None:
        unique = self.send(Op.RELEASE, nodeid, struct.pack("<QIIQ", handle, 0, 0, 0))
        while self.message() != (unique, 0, b""):
            pass


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()


def test_the_size_of_an_open_file_is_raised_before_each_answer_with_attributes(
    client: Client,
) -> None:
    nodeid = client.walk(DEBUG)
    assert client.sizes == []
    handle = client.open_node(nodeid)
    assert client.sizes[0] > FAR
    # It is raised already.
    client.open_node(nodeid)
    assert len(client.sizes) == 1
    for _ in range(3):
        error, data = client.ask(Op.GETATTR, nodeid, bytes(16))
        assert (error, struct.unpack_from("<16xQQ", data)[1]) == (0, 0)
    client.walk(DEBUG)
    # Always farther than before, so that no client can hold the lock of such a page.
    assert client.sizes == sorted(set(client.sizes))
    assert len(client.sizes) == 5
    assert all(size % (1 << 32) == 0 for size in client.sizes)
    # lseek(SEEK_END) names the handle and must see the real size.
    client.ask(Op.GETATTR, nodeid, struct.pack("<IIQ", 1, 0, handle))
    assert len(client.sizes) == 5


def test_a_size_that_nobody_needs_is_not_raised(client: Client) -> None:
    nodeid = client.walk(DEBUG)
    client.release(nodeid, client.open_node(nodeid))
    client.ask(Op.GETATTR, nodeid, bytes(16))
    client.open_node(nodeid, os.O_WRONLY)
    assert len(client.sizes) == 1
    client.open_node(nodeid)
    assert len(client.sizes) == 2


def test_the_size_is_raised_again_after_an_open_that_truncates(client: Client) -> None:
    nodeid = client.walk(DEBUG)
    client.open_node(nodeid)
    writer = client.open_node(nodeid, os.O_WRONLY | os.O_TRUNC)
    assert len(client.sizes) == 1
    assert client.ask(Op.WRITE, nodeid, write_body(writer, b"1\n"))[0] == 0
    assert len(client.sizes) == 2
    client.release(nodeid, writer)
    assert len(client.sizes) == 2


def test_far_pages_are_dropped_now_and_then(client: Client) -> None:
    nodeid = client.walk(DEBUG)
    client.open_node(nodeid)
    for _ in range(KEPT_PAGES - 2):
        client.ask(Op.GETATTR, nodeid, bytes(16))
    # The thread that tells the kernel may be quicker than the answer of the last one.
    client.send(Op.GETATTR, nodeid, bytes(16))
    dropped = 0, Notify.INVAL_INODE, struct.pack("<Qqq", nodeid, FAR, 0)
    wait_until(lambda: client.message() == dropped)


def test_a_file_of_pages_is_another_node_at_each_look_up(client: Client) -> None:
    one, other = client.walk(RAW), client.walk(RAW)
    assert one != other
    ino = [
        struct.unpack_from("<16xQ", client.ask(Op.GETATTR, nodeid, bytes(16))[1])[0]
        for nodeid in (one, other)
    ]
    assert ino[0] == ino[1]
    assert client.by_page(one, client.open_node(one)) == (EAGAIN, b"")


def test_where_splice_is_refused_read_is_not(client: Client) -> None:
    nodeid = client.walk(DEBUG)
    handle = client.open_node(nodeid)
    assert client.by_page(nodeid, handle) == (EINVAL, b"")


def test_a_text_is_not_spliced_while_the_kernel_may_change_its_size(client: Client) -> None:
    nodeid = client.walk(RW)
    handle, writer = client.open_node(nodeid), client.open_node(nodeid, os.O_RDWR | os.O_TRUNC)
    assert client.ask(Op.WRITE, nodeid, write_body(writer, b"1400"))[0] == 0
    assert client.by_page(nodeid, handle) == (0, b"1400\n")
    assert client.by_page(nodeid, handle, thread=43) == (EINVAL, b"")
    client.release(nodeid, handle)
    handle = client.open_node(nodeid)
    client.release(nodeid, writer)
    assert client.by_page(nodeid, handle, thread=43) == (0, b"1400\n")
