"""syslog(2) of the command: the messages of the simulated kernel, as `dmesg` of busybox reads them.

Like kernel/printk/printk.c:do_syslog (v6.1) with dmesg_restrict=0. What was read or cleared is that
of one view. The console levels are accepted and change nothing: there is no console.
"""

from __future__ import annotations

from collections.abc import Iterable
from errno import EINVAL, EPERM

from fakesys.execution.base.places import FAKE, MESSAGES
from fakesys.execution.requests.seccomp import Answer, Call

CAP_SYSLOG, CAP_SYS_ADMIN = 34, 21
CLOSE, OPEN, READ, READ_ALL, READ_CLEAR, CLEAR = range(6)
CONSOLE_OFF, CONSOLE_ON, CONSOLE_LEVEL, SIZE_UNREAD, SIZE_BUFFER = range(6, 11)
BUFFER = 1 << 18
LOWEST_LEVEL, HIGHEST_LEVEL = 1, 8


def line_of(record: str) -> str:
    """Return a record of /dev/kmsg, `PRIORITY,NUMBER,MICROSECONDS,-;TEXT`, as syslog has it."""
    head, _, text = record.partition(";")
    priority, _, microseconds, *_ = head.split(",")
    seconds, rest = divmod(int(microseconds), 1_000_000)
    return f"<{priority}>[{seconds:5}.{rest:06}] {text}\n"


def last_lines(lines: Iterable[bytes], size: int) -> bytes:
    """Return the newest lines that fit into `size` bytes, the oldest of them first."""
    kept: list[bytes] = []
    for line in reversed(list(lines)):
        size -= len(line)
        if size < 0:
            break
        kept.append(line)
    return b"".join(reversed(kept))


class MessageCalls:
    """Answers the calls. `_read`, `_cleared`: numbers of messages before which nothing is left."""

    def __init__(self) -> None:
        self._read = self._cleared = 0

    def syslog(self, call: Call) -> Answer | None:
        """Do syslog(2)."""
        kind, address, size = call.arguments[:3]
        kind, size = kind & 0xFFFF_FFFF, size & 0xFFFF_FFFF
        if kind > SIZE_BUFFER:
            return Answer(EINVAL)
        open_to_all = kind in (READ_ALL, SIZE_BUFFER)
        if not (open_to_all or call.may(CAP_SYSLOG) or call.may(CAP_SYS_ADMIN)):
            return Answer(EPERM)
        if kind in (READ, READ_ALL, READ_CLEAR):
            return self._give(call, kind, address, size)
        if kind == CLEAR:
            self._cleared = _next()
        if kind == CONSOLE_LEVEL and not LOWEST_LEVEL <= size <= HIGHEST_LEVEL:
            return Answer(EINVAL)
        if kind == SIZE_UNREAD:
            return Answer(value=len(b"".join(_lines(self._read))))
        return Answer(value=BUFFER if kind == SIZE_BUFFER else 0)

    def _give(self, call: Call, kind: int, address: int, size: int) -> Answer:
        if not address or size > 0x7FFF_FFFF:
            return Answer(EINVAL)
        data = self._unread(size) if kind == READ else last_lines(_lines(self._cleared), size)
        if kind == READ_CLEAR:
            self._cleared = _next()
        call.write_memory(address, data)
        return Answer(value=len(data))

    def _unread(self, size: int) -> bytes:
        """Return whole lines that were not read yet; unlike the kernel it does not wait."""
        data = b""
        for record in _records():
            line = _line(record)
            if _number(record) < self._read:
                continue
            if len(data) + len(line) > size:
                break
            data += line
            self._read = _number(record) + 1
        return data


def _records() -> list[str]:
    text = (FAKE / MESSAGES).read_bytes().decode("utf-8", "surrogateescape")
    return text.split("\n")[:-1]


def _number(record: str) -> int:
    return int(record.split(",", 2)[1])


def _lines(first: int) -> list[bytes]:
    """Return the lines of syslog from this number on."""
    return [_line(record) for record in _records() if _number(record) >= first]


def _line(record: str) -> bytes:
    return line_of(record).encode("utf-8", "surrogateescape")


def _next() -> int:
    records = _records()
    return _number(records[-1]) + 1 if records else 0
