"""What the requests of real clients tell about their processes: they ran, were born, ended.

Installed as `Kernel.on_request` only while somebody listens, so that requests pay nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fakesys.core.events import Task
from fakesys.core.kernel import Caller, Kernel
from fakesys.subsystems.tracing.events.ftrace import ADDRESSES
from fakesys.subsystems.tracing.events.host import (
    PRIORITY,
    SLEEPING,
    TIMER_SOFTIRQ,
    Kmalloc,
    SchedProcessExec,
    SchedProcessExit,
    SchedProcessFork,
    SchedSwitch,
    SchedWakeup,
    SoftirqEntry,
    SysExit,
)

SWAPPER = "swapper/0"
# More processes than a shell script has at a time; older ones are forgotten without an exit.
REMEMBERED = 256
# How far up a family is looked for.
GENERATIONS = 8
# x86's number of read(2) is 0, of write(2) 1: which one it was the event does not need to know.
READ_CALL = 0
ALLOCATED = 4096
GFP_KERNEL = 0xCC0


class Processes(Protocol):
    """What is asked about real processes."""

    def comm(self, pid: int) -> str:
        """The short name, `<...>` when it is gone."""

    def parent(self, pid: int) -> int:
        """The pid of the parent, 0 when unknown."""

    def alive(self, pid: int) -> bool:
        """Does it exist?"""

    def reaped(self, pid: int) -> int:
        """A number that grows when a child of it has ended and was waited for."""

    def newest(self) -> int:
        """The pid given out last."""


# Told of a fork (parent, child) and of an exit (pid, None).
Family = Callable[[int, int | None], None]


class TaskWatch:
    """Turns requests into events of sched, kmem and raw_syscalls."""

    def __init__(self, kernel: Kernel, processes: Processes, family: Family) -> None:
        self._kernel = kernel
        self._bus = kernel.bus
        self._processes = processes
        self._family = family
        self._known: dict[int, str] = {}
        self._reaped: dict[int, int] = {}
        self._last = Task(0, SWAPPER, 0)

    def begin(self, pid: int) -> None:
        """Somebody listens from now on; this process, if any, made it so."""
        self._known.clear()
        self._reaped.clear()
        if pid:
            self._last = Task(pid, self._processes.comm(pid), 0)
            self._known[pid] = self._last.comm
            self._reaped[pid] = self._processes.reaped(pid)

    def on_request(self, caller: Caller) -> None:
        """A client asks for something."""
        pid = caller.pid
        if pid == 0:
            return
        before = self._bus.task
        try:
            self._watch(pid)
        finally:
            self._bus.task = before

    def _watch(self, pid: int) -> None:
        buried = pid != self._last.pid and self._bury()
        comm = self._processes.comm(pid)
        if pid not in self._known:
            self._born(pid, comm)
        elif self._known[pid] != comm:
            self._executes(pid, comm)
        self._unseen_child(pid, comm, buried)
        self._runs(Task(pid, comm, 0))

    def _unseen_child(self, pid: int, comm: str, buried: bool) -> None:
        """Between two requests a shell may have had a child that never asked for anything."""
        before, now = self._reaped.get(pid), self._processes.reaped(pid)
        self._reaped[pid] = now
        if before is None or before == now or buried:
            return
        child = self._processes.newest()
        if SchedProcessFork in self._bus.wanted:
            self._bus.task = Task(pid, comm, 0)
            self._bus.emit(SchedProcessFork(comm, pid, comm, child))
        if SchedProcessExit in self._bus.wanted:
            self._bus.task = Task(child, comm, 0)
            self._bus.emit(SchedProcessExit(comm, child, PRIORITY, True))

    def _runs(self, task: Task) -> None:
        bus = self._bus
        bus.task = idle = Task(0, SWAPPER, 0)
        if SoftirqEntry in bus.wanted:
            bus.emit(SoftirqEntry(TIMER_SOFTIRQ))
        bus.task = previous = self._last if self._last.pid != task.pid else idle
        if SchedWakeup in bus.wanted:
            bus.emit(SchedWakeup(task.comm, task.pid, PRIORITY, 0))
        if SchedSwitch in bus.wanted:
            bus.emit(
                SchedSwitch(
                    previous.comm,
                    previous.pid,
                    PRIORITY,
                    SLEEPING if previous.pid else 0,
                    task.comm,
                    task.pid,
                    PRIORITY,
                )
            )
        bus.task = self._last = task
        if Kmalloc in bus.wanted:
            site = ADDRESSES["ksys_write"]
            pointer = 0xFFFF888000000000 + (task.pid << 12)
            bus.emit(Kmalloc(site, pointer, ALLOCATED - 96, ALLOCATED, GFP_KERNEL, -1))
        if SysExit in bus.wanted:
            bus.emit(SysExit(READ_CALL, 0))

    def _born(self, pid: int, comm: str) -> None:
        parent = self._processes.parent(pid)
        if parent not in self._known and self._descends_from_known(parent):
            # A shell between two commands that never asked for anything itself.
            comm_of_parent = self._processes.comm(parent)
            self._born(parent, comm_of_parent)
            self._runs(Task(parent, comm_of_parent, 0))
        parent_comm = self._processes.comm(parent)
        self._known[pid] = parent_comm
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        self._family(parent, pid)
        if SchedProcessFork in self._bus.wanted:
            self._bus.task = Task(parent, parent_comm, 0)
            self._bus.emit(SchedProcessFork(parent_comm, parent, parent_comm, pid))
        if comm != parent_comm:
            self._executes(pid, comm)

    def _descends_from_known(self, pid: int) -> bool:
        for _ in range(GENERATIONS):
            if pid <= 1 or pid in self._known:
                break
            pid = self._processes.parent(pid)
        return pid in self._known

    def _executes(self, pid: int, comm: str) -> None:
        self._known[pid] = comm
        if SchedProcessExec in self._bus.wanted:
            self._bus.task = Task(pid, comm, 0)
            self._bus.emit(SchedProcessExec(comm, pid, pid))

    def _bury(self) -> bool:
        dead = [pid for pid in self._known if not self._processes.alive(pid)]
        for pid in dead:
            comm = self._known.pop(pid)
            self._reaped.pop(pid, None)
            if SchedProcessExit in self._bus.wanted:
                self._bus.task = Task(pid, comm, 0)
                self._bus.emit(SchedProcessExit(comm, pid, PRIORITY, True))
            self._family(pid, None)
        return bool(dead)
