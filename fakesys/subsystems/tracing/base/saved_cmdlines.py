"""Which pid had which name when it was last seen: records hold pids only."""

from __future__ import annotations

from errno import EINVAL

from fakesys.core.errors import KernelError

UNKNOWN = "<...>"
IDLE_NAME = "<idle>"
# As many as pids: a larger table is refused by kernel/trace/trace.c:tracing_saved_cmdlines_size.
LARGEST = 32768


class Cmdlines:
    """The newest `size` pairs of pid and comm, and of pid and tgid."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._comms: dict[int, str] = {}
        self._tgids: dict[int, int] = {}
        # Moves whenever a name changes, so that rendered prefixes can be kept.
        self.version = 0

    def save(self, pid: int, comm: str) -> None:
        """Remember the name of a task; pid 0 is never saved."""
        if pid == 0 or self._comms.get(pid) == comm:
            return
        self._comms[pid] = comm[:15]
        self.version += 1
        while len(self._comms) > self.size:
            del self._comms[next(iter(self._comms))]

    def save_tgid(self, pid: int, tgid: int) -> None:
        """Remember the thread group of a task; pid 0 is in none."""
        if pid and self._tgids.get(pid) != tgid:
            self._tgids[pid] = tgid
            self.version += 1

    def comm(self, pid: int) -> str:
        """The name of a task, `<...>` when it is not known."""
        return self._comms.get(pid, UNKNOWN) if pid else IDLE_NAME

    def tgid(self, pid: int) -> int | None:
        """The thread group, None when it is not known."""
        return self._tgids.get(pid)

    def text(self) -> str:
        """`PID COMM` lines."""
        return "".join(f"{pid} {comm}\n" for pid, comm in self._comms.items())

    def tgids_text(self) -> str:
        """`PID TGID` lines."""
        return "".join(f"{pid} {tgid}\n" for pid, tgid in sorted(self._tgids.items()))

    def resize(self, size: int) -> None:
        """Keep this many names. Raises EINVAL for 0 and for more than there are pids."""
        if not 0 < size <= LARGEST:
            raise KernelError(EINVAL, f"{size} is not in 1..{LARGEST}")
        self.size = size
        self._comms.clear()
        self.version += 1
