"""Which task is on each CPU, and the events of the scheduler when that changes.

Threads of vCPUs and workers are switched by the models of KVM, through `Bus.scheduler`; clients of
the mount by `task_watch.py`. `Tracing.update_watch` installs this only while such an event is
wanted; what was on the CPUs before that is learned from the first thing that a task does.

Like kernel/sched/core.c: __schedule, try_to_wake_up, wake_up_new_task, and exit.c:do_exit (v6.1).
Differs: a preempted thread makes room for the stopper of its CPU; there are no time slices.
"""

from __future__ import annotations

from fakesys.core.events import Bus, Task
from fakesys.subsystems.tracing.events import host
from fakesys.subsystems.tracing.events.host import PREEMPTED, PRIORITY, SLEEPING

STOPPER_PRIORITY = 0
# The stopper of CPU 0, and the distance to that of the next CPU, as kernels number them at boot.
_FIRST_STOPPER, _STOPPERS = 17, 6


def idle_of(cpu: int) -> Task:
    """Return the task that a CPU runs when there is nothing to do."""
    return Task(0, f"swapper/{cpu}", cpu)


def stopper_of(cpu: int) -> Task:
    """Return the task that preempts everything on its CPU."""
    return Task(_FIRST_STOPPER + _STOPPERS * cpu, f"migration/{cpu}", cpu)


class RunQueues:
    """The tasks on the CPUs; the `Scheduler` of the bus.

    `current`: what each CPU runs, as far as it is known. `waiting`: the pids of tasks that are on
    a CPU only until another one comes, as their work is done. `runnable`: the pids of tasks that
    were woken or displaced, and have not run since.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.current: dict[int, Task] = {}
        self.waiting: set[int] = set()
        self.runnable: set[int] = set()

    def clear(self) -> None:
        """Forget all tasks."""
        self.current.clear()
        self.waiting.clear()
        self.runnable.clear()

    def begin(self) -> None:
        """Put the current task of the bus, which has waited for work, on its CPU."""
        self._run(self._bus.task, known=True)

    def run(self) -> None:
        """Put the current task of the bus on its CPU, unless it is there."""
        self._run(self._bus.task, known=False)

    def sleep(self, task: Task) -> None:
        """Take a task off its CPU: it waits. Nothing happens if another one is there."""
        self._learn(task)
        self.wait(task)

    def wait(self, task: Task) -> None:
        """Take a task off its CPU if it is known to be there."""
        if self._is_on_cpu(task):
            self._switch(task, SLEEPING, idle_of(task.cpu))

    def wake(self, task: Task) -> None:
        """Make a task that waits runnable, on behalf of the current task of the bus."""
        self.current.setdefault(task.cpu, idle_of(task.cpu))
        self.wait(task)
        if task.pid in self.runnable:
            return
        self.runnable.add(task.pid)
        bus = self._bus
        before = bus.task
        if before.pid == task.pid:
            # Its timer, or an interrupt from the CPU of the task that wakes it.
            bus.task = self.current[task.cpu]
        for step in (host.SchedWaking, host.SchedWakeup):
            if step in bus.wanted:
                bus.emit(step(task.comm, task.pid, PRIORITY, task.cpu))
        bus.task = before

    def preempt(self, task: Task) -> None:
        """Displace a task that could go on."""
        self._learn(task)
        if self._is_on_cpu(task):
            stopper = stopper_of(task.cpu)
            self.runnable.add(task.pid)
            self._switch(task, PREEMPTED, stopper)
            self.waiting.add(stopper.pid)

    def migrate(self, task: Task, cpu: int) -> None:
        """Move a task that is not running to another CPU; it learns of it when it is woken."""
        if cpu != task.cpu and host.SchedMigrateTask in self._bus.wanted:
            event = host.SchedMigrateTask(task.comm, task.pid, PRIORITY, task.cpu, cpu)
            self._bus.emit(event)

    def fork(self, parent: Task, child: Task) -> None:
        """Make a thread, which runs until it waits for its first work."""
        bus = self._bus
        before, bus.task = bus.task, parent
        if host.SchedProcessFork in bus.wanted:
            bus.emit(host.SchedProcessFork(parent.comm, parent.pid, parent.comm, child.pid))
        if host.SchedWakeupNew in bus.wanted:
            bus.emit(host.SchedWakeupNew(parent.comm, child.pid, PRIORITY, child.cpu))
        bus.task = before
        self.runnable.add(child.pid)
        self._run(child, known=True)
        self.sleep(child)

    def exit(self, task: Task) -> None:
        """End a thread: it is woken, and runs for the last time."""
        bus = self._bus
        self._run(task, known=True)
        before, bus.task = bus.task, task
        if host.SchedProcessExit in bus.wanted:
            bus.emit(host.SchedProcessExit(task.comm, task.pid, PRIORITY, False))
        idle = idle_of(task.cpu)
        self._switch(task, host.DEAD, idle)
        bus.task = idle
        if host.SchedProcessFree in bus.wanted:
            bus.emit(host.SchedProcessFree(task.comm, task.pid, PRIORITY))
        bus.task = before

    def serve(self, task: Task) -> None:
        """Put a client on its CPU for one request; then it waits there for the next one."""
        self.wait(task)
        self.runnable.add(task.pid)
        self._run(task, known=True)
        self.waiting.add(task.pid)

    def before(self, task: Task) -> Task:
        """Return what the CPU of a task runs until that task comes."""
        found = self.current.get(task.cpu)
        return idle_of(task.cpu) if found is None or found.pid == task.pid else found

    def _is_on_cpu(self, task: Task) -> bool:
        found = self.current.get(task.cpu)
        return found is not None and found.pid == task.pid

    def _learn(self, task: Task) -> None:
        """Note that a task is on its CPU: it acts, and nothing else was seen there."""
        if task.cpu not in self.current and task.pid not in self.runnable:
            self.current[task.cpu] = task

    def _run(self, task: Task, *, known: bool) -> None:
        """Switch to a task. `known`: it was not on its CPU if that is not known otherwise."""
        if not known:
            self._learn(task)
        if self._is_on_cpu(task):
            return
        self.wake(task)
        left = self.current[task.cpu]
        self.runnable.discard(task.pid)
        self._switch(left, self._displace(left), task)

    def _displace(self, task: Task) -> int:
        """Return the state of a task that another one displaces."""
        if task.pid == 0:
            return 0
        if task.pid in self.waiting:
            return SLEEPING
        self.runnable.add(task.pid)
        return PREEMPTED

    def _switch(self, left: Task, state: int, task: Task) -> None:
        self.waiting.discard(left.pid)
        self.current[task.cpu] = task
        bus = self._bus
        if host.SchedSwitch not in bus.wanted:
            return
        before, bus.task = bus.task, left
        bus.emit(
            host.SchedSwitch(
                left.comm, left.pid, _priority(left), state, task.comm, task.pid, _priority(task)
            )
        )
        bus.task = before


def _priority(task: Task) -> int:
    return STOPPER_PRIORITY if task.comm.startswith("migration/") else PRIORITY
