"""The tables of names and thread groups of tasks: a record in a buffer holds only a pid.

Like kernel/trace/trace.c:trace_save_cmdline, trace_save_tgid (v6.1).
"""

from __future__ import annotations

from errno import EINVAL

from fakesys.core.errors import KernelError
from fakesys.core.events import Task

UNKNOWN = "<...>"
IDLE_NAME = "<idle>"
# A table cannot be larger than the range of pids: kernel/trace/trace.c:tracing_saved_cmdlines_size.
LARGEST = 32768
# TASK_COMM_LEN without its NUL.
COMM_LENGTH = 15


class SavedCmdlines:
    """The newest `size` pairs of pid and comm, and the pairs of pid and tgid.

    The options `record-cmd` and `record-tgid` of the whole machine are kept here because
    `learn` depends on nothing else; it runs for every recorded event.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._record_cmd = True
        self._record_tgid = False
        # The task that was learned last, while nothing about it is to be learned again.
        self.newest: Task | None = None
        self.comms: dict[int, str] = {}
        self.tgids: dict[int, int] = {}
        # Incremented whenever a name changes, so that renderers know when to drop kept prefixes.
        self.version = 0

    def learn(self, task: Task) -> None:
        """Remember the name and thread group of a task, as far as the options ask for them."""
        if self._record_cmd and self.comms.get(task.pid) != task.comm:
            self.save(task.pid, task.comm)
        if self._record_tgid:
            self.save_tgid(task.pid, task.tgid)
        self.newest = task

    @property
    def record_cmd(self) -> bool:
        """The option `record-cmd`: are names remembered?"""
        return self._record_cmd

    @record_cmd.setter
    def record_cmd(self, on: bool) -> None:
        self._record_cmd, self.newest = on, None

    @property
    def record_tgid(self) -> bool:
        """The option `record-tgid`: are thread groups remembered?"""
        return self._record_tgid

    @record_tgid.setter
    def record_tgid(self, on: bool) -> None:
        self._record_tgid, self.newest = on, None

    def save(self, pid: int, comm: str) -> None:
        """Remember the name of a task; pid 0 is never saved. The oldest names make room."""
        if pid == 0 or self.comms.get(pid) == comm:
            return
        self.newest = None
        self.comms[pid] = comm[:COMM_LENGTH]
        self.version += 1
        while len(self.comms) > self.size:
            del self.comms[next(iter(self.comms))]

    def save_tgid(self, pid: int, tgid: int) -> None:
        """Remember the thread group of a task; pid 0 is never saved."""
        if pid and self.tgids.get(pid) != tgid:
            self.newest = None
            self.tgids[pid] = tgid
            self.version += 1

    def comm(self, pid: int) -> str:
        """Return the name of a task, `<...>` if it is not known."""
        return self.comms.get(pid, UNKNOWN) if pid else IDLE_NAME

    def tgid(self, pid: int) -> int | None:
        """Return the thread group of a task, None if it is not known."""
        return self.tgids.get(pid)

    def text(self) -> str:
        """Return `PID COMM` lines, oldest first."""
        return "".join(f"{pid} {comm}\n" for pid, comm in self.comms.items())

    def tgids_text(self) -> str:
        """Return `PID TGID` lines, by pid."""
        return "".join(f"{pid} {tgid}\n" for pid, tgid in sorted(self.tgids.items()))

    def resize(self, size: int) -> None:
        """Empty the table and limit it to `size` names.

        Raises EINVAL for 0 and for more than LARGEST.
        """
        if not 0 < size <= LARGEST:
            raise KernelError(EINVAL, f"{size} is not in 1..{LARGEST}")
        self.size = size
        self.comms.clear()
        self.newest = None
        self.version += 1
