"""The lists of `set_event_pid` and `set_event_notrace_pid`. Like kernel/trace/pid_list.c."""

from __future__ import annotations

from errno import EINVAL, EPERM

from fakesys.core.errors import KernelError
from fakesys.core.text import kstrtoull
from fakesys.subsystems.tracing.base.trace_parser import first_word

# kernel/trace/pid_list.h: pids of up to 30 bits.
PID_LIMIT = 1 << 30


class PidList:
    """A set of pids; an empty list is not used."""

    def __init__(self) -> None:
        self.pids: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self.pids)

    def text(self) -> str:
        """Return one pid a line, ascending."""
        return "".join(f"{pid}\n" for pid in sorted(self.pids))

    def add(self, text: str) -> int:
        """Add the pids in a text, up to an empty word; return the number of characters taken.

        Raises EINVAL for what is no pid, EPERM for more than 30 bits, and adds nothing then.
        Like kernel/trace/trace.c:trace_pid_write (v6.1).
        """
        found: set[int] = set()
        taken = 0
        while taken < len(text):
            word, length = first_word(text[taken:])
            taken += length
            if not word:
                break
            found.add(_pid(word))
        self.pids |= found
        return taken

    def clear(self) -> None:
        """Empty the list."""
        self.pids.clear()


def _pid(word: str) -> int:
    """Parse a pid. Like kernel/trace/pid_list.c:trace_pid_list_set: at most 30 bits of a pid_t."""
    try:
        pid = kstrtoull(word) & 0xFFFFFFFF
    except KernelError:
        raise KernelError(EINVAL, f"{word!r} is no pid") from None
    if pid >= PID_LIMIT:
        raise KernelError(EPERM, f"{word!r} has more than 30 bits")
    return pid
