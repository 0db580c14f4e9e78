"""Pages as read from `trace_pipe_raw`: stamp, commit word, records, count of lost events.

Like kernel/trace/ring_buffer.c:ring_buffer_read_page (v6.1).
"""

from __future__ import annotations

import struct

from msgspec import Struct

from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import DATA_SIZE, Page, Record

MISSED_EVENTS = 1 << 31
MISSED_STORED = 1 << 30
COMMIT_MASK = (1 << 20) - 1

_HEADER = struct.Struct("<Qq")
_COUNT = struct.Struct("<Q")

HEADER_PAGE = (
    "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
    "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
    "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
    "\tfield: char data;\toffset:16;\tsize:{room};\tsigned:{char_signed};\n"
)
HEADER_EVENT = (
    "# compressed entry header\n"
    "\ttype_len    :    5 bits\n"
    "\ttime_delta  :   27 bits\n"
    "\tarray       :   32 bits\n"
    "\n"
    "\tpadding     : type == 29\n"
    "\ttime_extend : type == 30\n"
    "\ttime_stamp : type == 31\n"
    "\tdata max type_len  == 28\n"
)


class RawPage(Struct, frozen=True):
    """A page: `stamp` is the time before its first record.

    `lost`: how many events were lost before it; None if none were, 0 if the page had no room for
    the number. `room`: the bytes of records that it can have.
    """

    stamp: int
    records: bytes
    lost: int | None = None
    room: int = DATA_SIZE

    def encode(self) -> bytes:
        """Return the page as its bytes, 4096 or more."""
        commit, stored = len(self.records), b""
        if self.lost is not None:
            commit |= MISSED_EVENTS
            if self.lost and len(self.records) + _COUNT.size <= self.room:
                commit |= MISSED_STORED
                stored = _COUNT.pack(self.lost)
        # The kernel adds the flags to a signed 32-bit word and widens it.
        signed = commit - (1 << 32) if commit & MISSED_EVENTS else commit
        whole = _HEADER.pack(self.stamp, signed) + self.records + stored
        return whole.ljust(_HEADER.size + self.room, b"\0")

    @staticmethod
    def decode(page: bytes) -> RawPage:
        """Parse a page."""
        stamp, commit = _HEADER.unpack_from(page)
        size = commit & COMMIT_MASK
        lost: int | None = None
        if commit & MISSED_EVENTS:
            stored = commit & MISSED_STORED
            lost = _COUNT.unpack_from(page, _HEADER.size + size)[0] if stored else 0
        return RawPage(stamp, bytes(page[_HEADER.size : _HEADER.size + size]), lost)

    def events(self) -> list[Record]:
        """Return the records, decoded."""
        page = Page(self.stamp)
        page.data[: len(self.records)] = self.records
        page.commit = len(self.records)
        return list(page.records())
