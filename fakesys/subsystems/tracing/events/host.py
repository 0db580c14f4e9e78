"""Events of tasks: those of the systems around KVM that happen.

Those of real processes that use the mount come from `instances/task_watch.py`, when a client sends
a request; those of threads of vCPUs and of workers from `instances/run_queues.py`.
Their formats are those of each kernel, in `formats/`; a class has the fields of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from fakesys.core.c_types import (
    Bool,
    Comm,
    DynamicString,
    Int,
    Long,
    Pid,
    SizeT,
    UnsignedInt,
    UnsignedLong,
    VoidPointer,
    octets,
)
from fakesys.core.tracepoint import IRQS_OFF, Tracepoint

SLEEPING = 1
# EXIT_DEAD, and TASK_REPORT_MAX, which stands for a preempted task.
DEAD, PREEMPTED = 0x10, 0x100
PRIORITY = 120
TIMER_SOFTIRQ = 1
IN_SOFTIRQ = 0x10
NO_ARGUMENTS = bytes(48)

Arguments = Annotated[bytes, octets("unsigned long", 48)]


class SchedSwitch(Tracepoint):
    """A CPU switches from one task to another."""

    system = "sched"
    event = "sched_switch"
    common_flags = IRQS_OFF
    common_preempt_count = 2

    prev_comm: Comm
    prev_pid: Pid
    prev_prio: Int
    prev_state: Long
    next_comm: Comm
    next_pid: Pid
    next_prio: Int

    def pids(self, pid: int) -> tuple[int, ...]:
        return self.prev_pid, self.next_pid


class SchedProcessFork(Tracepoint):
    """A process has forked a child."""

    system = "sched"
    event = "sched_process_fork"

    parent_comm: DynamicString
    parent_pid: Pid
    child_comm: DynamicString
    child_pid: Pid


class SchedProcessExec(Tracepoint):
    """A process executes another program."""

    system = "sched"
    event = "sched_process_exec"

    filename: DynamicString
    pid: Pid
    old_pid: Pid


class SchedProcessExit(Tracepoint):
    """A process has ended."""

    system = "sched"
    event = "sched_process_exit"

    comm: Comm
    pid: Pid
    prio: Int
    group_dead: Bool


class SchedProcessFree(Tracepoint):
    """What a process had is given back."""

    system = "sched"
    event = "sched_process_free"

    comm: Comm
    pid: Pid
    prio: Int


class _Wakeup(Tracepoint):
    """Base of the steps of a wake-up."""

    system = "sched"

    comm: Comm
    pid: Pid
    prio: Int
    target_cpu: Int


class SchedWaking(_Wakeup):
    """A task is to become runnable."""

    event = "sched_waking"
    common_flags = IRQS_OFF
    common_preempt_count = 2


class SchedWakeup(_Wakeup):
    """A task has become runnable."""

    event = "sched_wakeup"
    common_flags = IRQS_OFF
    common_preempt_count = 3


class SchedWakeupNew(_Wakeup):
    """A new task has become runnable."""

    event = "sched_wakeup_new"
    common_flags = IRQS_OFF
    common_preempt_count = 2


class SchedMigrateTask(Tracepoint):
    """A task moves to another CPU."""

    system = "sched"
    event = "sched_migrate_task"
    common_flags = IRQS_OFF
    common_preempt_count = 2

    comm: Comm
    pid: Pid
    prio: Int
    orig_cpu: Int
    dest_cpu: Int


class Kmalloc(Tracepoint):
    """The kernel allocates memory on behalf of a task."""

    system = "kmem"
    event = "kmalloc"

    call_site: UnsignedLong
    ptr: VoidPointer
    bytes_req: SizeT
    bytes_alloc: SizeT
    gfp_flags: UnsignedLong
    node: Int


class SysEnter(Tracepoint):
    """A system call begins."""

    system = "raw_syscalls"
    event = "sys_enter"

    id: Long
    args: Arguments


class SysExit(Tracepoint):
    """A system call returns."""

    system = "raw_syscalls"
    event = "sys_exit"

    id: Long
    ret: Long


class _Softirq(Tracepoint):
    """Base of the steps of a softirq: the timer's, while the CPU is idle."""

    system = "irq"
    common_flags = IN_SOFTIRQ

    vec: UnsignedInt


class SoftirqRaise(_Softirq):
    """A softirq is asked for."""

    event = "softirq_raise"
    common_flags = IRQS_OFF


class SoftirqEntry(_Softirq):
    """A softirq handler begins."""

    event = "softirq_entry"


class SoftirqExit(_Softirq):
    """A softirq handler has ended."""

    event = "softirq_exit"


EVENTS: Mapping[str, type[Tracepoint]] = MappingProxyType(
    {
        f"{cls.system}:{cls.event}": cls
        for cls in (
            SchedSwitch,
            SchedProcessFork,
            SchedProcessExec,
            SchedProcessExit,
            SchedProcessFree,
            SchedWaking,
            SchedWakeup,
            SchedWakeupNew,
            SchedMigrateTask,
            Kmalloc,
            SysEnter,
            SysExit,
            SoftirqRaise,
            SoftirqEntry,
            SoftirqExit,
        )
    }
)
"""The classes by the name of the event."""
