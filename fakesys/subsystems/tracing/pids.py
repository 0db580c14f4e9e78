"""The lists behind `set_event_pid` and `set_event_notrace_pid`."""

from __future__ import annotations

import re
from errno import EPERM

from fakesys.core.errors import KernelError
from fakesys.core.text import kstrtoull

_WORD = re.compile(r"[^ \t\n\v\f\r]+")
# kernel/trace/pid_list.h: pids of up to 30 bits.
PID_LIMIT = 1 << 30


class PidList:
    """A set of pids; empty means that the list is not used."""

    def __init__(self) -> None:
        self.pids: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self.pids)

    def text(self) -> str:
        """One a line, ascending."""
        return "".join(f"{pid}\n" for pid in sorted(self.pids))

    def add(self, text: str) -> None:
        """Add the pids in a text. Raises EINVAL, ERANGE, EPERM; adds nothing then.

        Like kernel/trace/trace.c:trace_pid_write (v6.1).
        """
        self.pids |= {_pid(word) for word in _WORD.findall(text)}

    def clear(self) -> None:
        """Stop using the list."""
        self.pids.clear()


def _pid(word: str) -> int:
    """As kernel/trace/pid_list.c:trace_pid_list_set takes it: a pid_t of at most 30 bits."""
    pid = kstrtoull(word) & 0xFFFFFFFF
    if pid >= PID_LIMIT:
        raise KernelError(EPERM, f"{word!r} has more than 30 bits")
    return pid
