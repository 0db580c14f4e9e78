"""Events of the real processes that use the mount, derived from their requests.

A client that sends a request has run since its last one; a new pid was forked, a new name means
exec, a pid that is gone has exited. `Tracing.update_watch` installs `TaskWatch.on_request` as
`Kernel.on_request` only while one of these events is wanted, so other requests pay nothing.
"""

from __future__ import annotations

from typing import Protocol

from fakesys.core.events import Bus, Task
from fakesys.core.kernel import Caller
from fakesys.subsystems.tracing.events import host
from fakesys.subsystems.tracing.events.host import PRIORITY
from fakesys.subsystems.tracing.events.stacks import ADDRESSES
from fakesys.subsystems.tracing.instances.run_queues import RunQueues, idle_of

SWAPPER = "swapper/0"
# More processes than a shell script has at a time; older ones are dropped without an exit event.
REMEMBERED = 256
# How many ancestors of a new process are searched for a known one.
GENERATIONS = 8
# x86's number of read(2). Requests do not tell the system call, so sys_exit always names this.
READ_CALL = 0
ALLOCATED = 4096
GFP_KERNEL = 0xCC0


class Processes(Protocol):
    """What a watch asks about real processes."""

    def comm(self, pid: int) -> str:
        """Return the short name, `<...>` if the process is gone."""

    def cpu(self, pid: int) -> int:
        """Return the CPU on which a thread runs or ran last, 0 if unknown."""

    def parent(self, pid: int) -> int:
        """Return the pid of the parent, 0 if unknown."""

    def alive(self, pid: int) -> bool:
        """Return whether the process exists."""

    def reaped(self, pid: int) -> int:
        """Return a number that grows when a child has ended and was waited for."""

    def newest(self) -> int:
        """Return the pid that was assigned last."""


class Followers(Protocol):
    """What a watch reports forks and exits to, for the option event-fork."""

    def forked(self, parent: int, child: int) -> None:
        """Follow a fork."""

    def exited(self, pid: int) -> None:
        """Follow an exit."""


class TaskWatch:
    """Turns requests into events of sched, irq, kmem and raw_syscalls."""

    def __init__(self, bus: Bus, processes: Processes, followers: Followers) -> None:
        self._bus = bus
        self._processes = processes
        self._followers = followers
        # The clients by pid: their names, and `Processes.reaped` of each; the one that ran last.
        self.known: dict[int, str] = {}
        self.reaped: dict[int, int] = {}
        self.last = Task(0, SWAPPER, 0)
        self.queues = RunQueues(bus)

    def begin(self, pid: int) -> None:
        """Forget all processes but this one (0: none), which has just enabled an event."""
        self.known.clear()
        self.reaped.clear()
        if pid:
            self.last = Task(pid, self._processes.comm(pid), 0)
            self.known[pid] = self.last.comm
            self.reaped[pid] = self._processes.reaped(pid)

    def on_request(self, caller: Caller) -> None:
        """Emit the events that lead to a request of this client."""
        pid = caller.pid
        if pid == 0:
            return
        before = self._bus.task
        try:
            self._watch(pid)
        finally:
            self._bus.task = before

    def _watch(self, pid: int) -> None:
        exited = pid != self.last.pid and self._emit_exits()
        comm = self._processes.comm(pid)
        if pid not in self.known:
            self._emit_fork(pid, comm)
        elif self.known[pid] != comm:
            self._emit_exec(pid, comm)
        self._emit_short_lived_child(pid, comm, exited)
        self._emit_switch(Task(pid, comm, self._processes.cpu(pid)))

    def _emit_short_lived_child(self, pid: int, comm: str, exited: bool) -> None:
        """Emit fork and exit of a child that ran between two requests and never sent one."""
        before, now = self.reaped.get(pid), self._processes.reaped(pid)
        self.reaped[pid] = now
        if before is None or before == now or exited:
            return
        child = self._processes.newest()
        if host.SchedProcessFork in self._bus.wanted:
            self._bus.task = Task(pid, comm, 0)
            self._bus.emit(host.SchedProcessFork(comm, pid, comm, child))
        if host.SchedProcessExit in self._bus.wanted:
            self._bus.task = Task(child, comm, 0)
            self._bus.emit(host.SchedProcessExit(comm, child, PRIORITY, True))

    def _emit_switch(self, task: Task) -> None:
        """Emit what happens from the wake-up of a task to the return of its system call."""
        bus = self._bus
        bus.task = idle = idle_of(task.cpu)
        for softirq in (host.SoftirqRaise, host.SoftirqEntry):
            if softirq in bus.wanted:
                bus.emit(softirq(host.TIMER_SOFTIRQ))
        self.queues.wait(task)
        bus.task = self.queues.before(task)
        for step in (host.SchedWaking, host.SchedWakeup):
            if step in bus.wanted:
                bus.emit(step(task.comm, task.pid, PRIORITY, task.cpu))
        if host.SoftirqExit in bus.wanted:
            bus.task = idle
            bus.emit(host.SoftirqExit(host.TIMER_SOFTIRQ))
        self.queues.serve(task)
        bus.task = self.last = task
        self._emit_call(task)

    def _emit_call(self, task: Task) -> None:
        bus = self._bus
        if host.SysEnter in bus.wanted:
            bus.emit(host.SysEnter(READ_CALL, host.NO_ARGUMENTS))
        if host.Kmalloc in bus.wanted:
            site = ADDRESSES["ksys_write"]
            pointer = 0xFFFF888000000000 + (task.pid << 12)
            bus.emit(host.Kmalloc(site, pointer, ALLOCATED - 96, ALLOCATED, GFP_KERNEL, -1))
        if host.SysExit in bus.wanted:
            bus.emit(host.SysExit(READ_CALL, 0))

    def _emit_fork(self, pid: int, comm: str) -> None:
        """Emit the fork of a new process, before it those of unknown ancestors, then its exec."""
        parent = self._processes.parent(pid)
        if parent not in self.known and self._descends_from_known(parent):
            # A shell in between that never sent a request itself.
            comm_of_parent = self._processes.comm(parent)
            self._emit_fork(parent, comm_of_parent)
            self._emit_switch(Task(parent, comm_of_parent, 0))
        parent_comm = self._processes.comm(parent)
        self.known[pid] = parent_comm
        while len(self.known) > REMEMBERED:
            del self.known[next(iter(self.known))]
        self._followers.forked(parent, pid)
        if host.SchedProcessFork in self._bus.wanted:
            self._bus.task = Task(parent, parent_comm, 0)
            self._bus.emit(host.SchedProcessFork(parent_comm, parent, parent_comm, pid))
        if host.SchedWakeupNew in self._bus.wanted:
            self._bus.task = Task(parent, parent_comm, 0)
            self._bus.emit(host.SchedWakeupNew(parent_comm, pid, PRIORITY, 0))
        if comm != parent_comm:
            self._emit_exec(pid, comm)

    def _descends_from_known(self, pid: int) -> bool:
        for _ in range(GENERATIONS):
            if pid <= 1 or pid in self.known:
                break
            pid = self._processes.parent(pid)
        return pid in self.known

    def _emit_exec(self, pid: int, comm: str) -> None:
        self.known[pid] = comm
        if host.SchedProcessExec in self._bus.wanted:
            self._bus.task = Task(pid, comm, 0)
            self._bus.emit(host.SchedProcessExec(comm, pid, pid))

    def _emit_exits(self) -> bool:
        """Emit the exit of known processes that are gone; return whether there was one."""
        dead = [pid for pid in self.known if not self._processes.alive(pid)]
        for pid in dead:
            comm = self.known.pop(pid)
            self.reaped.pop(pid, None)
            if host.SchedProcessExit in self._bus.wanted:
                self._bus.task = Task(pid, comm, 0)
                self._bus.emit(host.SchedProcessExit(comm, pid, PRIORITY, True))
            if host.SchedProcessFree in self._bus.wanted:
                self._bus.task = Task(0, SWAPPER, 0)
                self._bus.emit(host.SchedProcessFree(comm, pid, PRIORITY))
            self._followers.exited(pid)
        return bool(dead)
