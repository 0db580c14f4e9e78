"""FUSE messages, packed and unpacked; INIT as kernels of several ages send it."""

from __future__ import annotations

import struct

import pytest

from fakesys.transport.fuse import protocol
from fakesys.transport.fuse.protocol import Init

HEADER = bytes(40)
# What a kernel offers besides flags that we do not know; all of ours came before 7.31.
OFFERED = 0x73FFFFFB
# minor, size of the body, does it carry a second word of flags? From the kernels' fuse.h:
# 5.4, 5.10, 5.15, 5.17, 6.1, 6.6, 6.12, 6.18.
KERNELS = [
    (31, 16, False),
    (32, 16, False),
    (34, 16, False),
    (36, 64, True),
    (37, 64, True),
    (39, 64, True),
    (41, 64, True),
    (45, 64, True),
]


def init_message(major: int, minor: int, size: int, flags: int, flags2: int = 0) -> bytes:
    """An INIT request as a kernel sends it."""
    body = struct.pack("<IIII", major, minor, 131072, flags)
    if size > 16:
        body += struct.pack("<I44x", flags2)
    return HEADER + body


def answer_fields(answer: bytes) -> tuple[int, ...]:
    """major minor readahead flags background congestion max-write gran max-pages."""
    return struct.unpack_from("<IIIIHHIIH", answer)


@pytest.mark.parametrize(("minor", "size", "extended"), KERNELS)
def test_init_of_each_kernel(minor: int, size: int, extended: bool) -> None:
    flags = OFFERED | (protocol.INIT_EXT if extended else 0)
    offer = protocol.unpack_init(init_message(7, minor, size, flags, flags2=0x8))
    assert offer[:3] == (7, minor, 131072)
    assert offer.flags >> 32 == (0x8 if extended else 0)
    answer = protocol.pack_init(offer)
    assert len(answer) == 64
    major, spoken, _, agreed, _, _, max_write, granularity, max_pages = answer_fields(answer)
    assert (major, spoken) == (7, minor)
    assert agreed == int(protocol.WANTED)
    assert (max_write, granularity, max_pages) == (1 << 20, 1, 256)


def test_init_ext_without_the_longer_message_has_no_second_word() -> None:
    offer = protocol.unpack_init(init_message(7, 35, 16, protocol.INIT_EXT))
    assert offer.flags == protocol.INIT_EXT


def test_init_of_a_newer_kernel_is_answered_with_our_version() -> None:
    offer = protocol.unpack_init(init_message(7, 99, 64, OFFERED))
    assert answer_fields(protocol.pack_init(offer))[:2] == (7, protocol.NEWEST_MINOR)


def test_init_agrees_only_to_what_is_offered() -> None:
    offer = protocol.unpack_init(init_message(7, 31, 16, int(Init.BIG_WRITES)))
    fields = answer_fields(protocol.pack_init(offer))
    assert fields[3] == Init.BIG_WRITES
    # Without MAX_PAGES a request has at most 32 pages.
    assert (fields[6], fields[8]) == (32 * 4096, 0)


def test_what_moves_times_or_takes_locks_is_never_asked_for() -> None:
    writeback, posix_locks, flock_locks, no_open = 1 << 16, 1 << 1, 1 << 10, 1 << 17
    assert not int(protocol.WANTED) & (writeback | posix_locks | flock_locks | no_open)


def test_another_major_version_gets_ours() -> None:
    assert struct.unpack_from("<II", protocol.pack_version_only()) == (7, protocol.NEWEST_MINOR)


@pytest.mark.parametrize(
    ("packed", "size"),
    [
        (protocol.IN_HEADER, 40),
        (protocol.OUT_HEADER, 16),
        (protocol.ENTRY_OUT, 128),
        (protocol.ATTR_OUT, 104),
        (protocol.SETATTR_IN, 40 + 88),
        (protocol.OPEN_OUT, 16),
        (protocol.READ_IN, 40 + 40),
        (protocol.WRITE_IN, 40 + 40),
        (protocol.WRITE_OUT, 8),
        (protocol.POLL_IN, 40 + 24),
        (protocol.POLL_OUT, 8),
        (protocol.LSEEK_IN, 40 + 24),
        (protocol.STATFS_OUT, 80),
        (protocol.MKNOD_IN, 40 + 16),
        (protocol.CREATE_IN, 40 + 16),
        (protocol.DIRENT, 24),
    ],
)
def test_sizes_of_structures(packed: struct.Struct, size: int) -> None:
    assert packed.size == size


def test_notices_carry_their_code_and_no_request_number() -> None:
    notices = {
        protocol.pack_poll_wakeup(5): (1, struct.pack("<Q", 5)),
        protocol.pack_inval_attributes(9): (2, struct.pack("<Qqq", 9, -1, 0)),
        protocol.pack_inval_entry(3, b"rw"): (3, struct.pack("<QII", 3, 2, 0) + b"rw\0"),
        protocol.pack_inc_epoch(): (8, b""),
    }
    for notice, (code, body) in notices.items():
        assert notice == struct.pack("<IiQ", 16 + len(body), code, 0) + body


def test_directory_entries_are_padded_to_eight_bytes() -> None:
    entry = protocol.pack_dirent(7, 3, 8, b"abc")
    assert entry == struct.pack("<QQII", 7, 3, 3, 8) + b"abc\0\0\0\0\0"
    assert len(protocol.pack_dirent(7, 3, 8, b"12345678")) == 32


def test_names_of_a_request_end_at_their_nul() -> None:
    assert protocol.names_in(HEADER + b"old\0new\0", 40) == [b"old", b"new"]


def test_length_of_a_request_in_a_larger_buffer() -> None:
    assert protocol.length_of(bytearray(struct.pack("<II", 64, 15)) + bytes(100)) == 64
