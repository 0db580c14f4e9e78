"""Events of the real processes that use the mount: sched, signal, kmem, irq, raw_syscalls.

There is no scheduler or allocator behind them: `instances/task_watch.py` emits them when a client
sends a request. They exist for programs that expect such events, like the kernel's ftracetest.
"""

from __future__ import annotations

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
)
from fakesys.core.tracepoint import Tracepoint, hashed
from fakesys.subsystems.tracing.events.stacks import ADDRESSES

SLEEPING = 1
PRIORITY = 120
TIMER_SOFTIRQ = 1
_SOFTIRQS = ("HI", "TIMER")
_LETTERS = "SDTtXZPI"

_STATES = (
    "0x00000000 | 0x00000001 | 0x00000002 | 0x00000004 | 0x00000008 | 0x00000010 | "
    "0x00000020 | 0x00000040"
)


class SchedSwitch(Tracepoint):
    """A CPU switches from one task to another."""

    system = "sched"
    event = "sched_switch"
    print_fmt = (
        '"prev_comm=%s prev_pid=%d prev_prio=%d prev_state=%s%s ==> next_comm=%s next_pid=%d '
        'next_prio=%d", REC->prev_comm, REC->prev_pid, REC->prev_prio, (REC->prev_state & '
        f"(((({_STATES}) + 1) << 1) - 1)) ? __print_flags(REC->prev_state & (((({_STATES}) + 1) "
        '<< 1) - 1), "|", { 0x00000001, "S" }, { 0x00000002, "D" }, { 0x00000004, "T" }, '
        '{ 0x00000008, "t" }, { 0x00000010, "X" }, { 0x00000020, "Z" }, { 0x00000040, "P" }, '
        f'{{ 0x00000080, "I" }}) : "R", REC->prev_state & ((({_STATES}) + 1) << 1) ? "+" : "", '
        "REC->next_comm, REC->next_pid, REC->next_prio"
    )

    prev_comm: Comm
    prev_pid: Pid
    prev_prio: Int
    prev_state: Long
    next_comm: Comm
    next_pid: Pid
    next_prio: Int

    def text(self) -> str:
        known = self.prev_state & ((1 << len(_LETTERS)) - 1)
        state = "|".join(letter for bit, letter in enumerate(_LETTERS) if known >> bit & 1) or "R"
        state += "+" if self.prev_state & 1 << len(_LETTERS) else ""
        return (
            f"prev_comm={self.prev_comm} prev_pid={self.prev_pid} prev_prio={self.prev_prio} "
            f"prev_state={state} ==> next_comm={self.next_comm} next_pid={self.next_pid} "
            f"next_prio={self.next_prio}"
        )

    def pids(self, pid: int) -> tuple[int, ...]:
        return self.prev_pid, self.next_pid


class SchedProcessFork(Tracepoint):
    """A process has forked a child."""

    system = "sched"
    event = "sched_process_fork"
    print_fmt = (
        '"comm=%s pid=%d child_comm=%s child_pid=%d", __get_str(parent_comm), REC->parent_pid, '
        "__get_str(child_comm), REC->child_pid"
    )

    parent_comm: DynamicString
    parent_pid: Pid
    child_comm: DynamicString
    child_pid: Pid

    def text(self) -> str:
        return (
            f"comm={self.parent_comm} pid={self.parent_pid} "
            f"child_comm={self.child_comm} child_pid={self.child_pid}"
        )


class SchedProcessExec(Tracepoint):
    """A process executes another program."""

    system = "sched"
    event = "sched_process_exec"
    print_fmt = '"filename=%s pid=%d old_pid=%d", __get_str(filename), REC->pid, REC->old_pid'

    filename: DynamicString
    pid: Pid
    old_pid: Pid

    def text(self) -> str:
        return f"filename={self.filename} pid={self.pid} old_pid={self.old_pid}"


class SchedProcessExit(Tracepoint):
    """A process has ended."""

    system = "sched"
    event = "sched_process_exit"
    print_fmt = (
        '"comm=%s pid=%d prio=%d group_dead=%s", REC->comm, REC->pid, REC->prio, '
        'REC->group_dead ? "true" : "false"'
    )

    comm: Comm
    pid: Pid
    prio: Int
    group_dead: Bool

    def text(self) -> str:
        dead = "true" if self.group_dead else "false"
        return f"comm={self.comm} pid={self.pid} prio={self.prio} group_dead={dead}"


class SchedWakeup(Tracepoint):
    """A task has become runnable."""

    system = "sched"
    event = "sched_wakeup"
    print_fmt = (
        '"comm=%s pid=%d prio=%d target_cpu=%03d", REC->comm, REC->pid, REC->prio, REC->target_cpu'
    )

    comm: Comm
    pid: Pid
    prio: Int
    target_cpu: Int

    def text(self) -> str:
        return f"comm={self.comm} pid={self.pid} prio={self.prio} target_cpu={self.target_cpu:03}"


class SignalGenerate(Tracepoint):
    """A signal is sent. Never emitted; its fields can be used in filters."""

    system = "signal"
    event = "signal_generate"
    print_fmt = (
        '"sig=%d errno=%d code=%d comm=%s pid=%d grp=%d res=%d", REC->sig, REC->errno, '
        "REC->code, REC->comm, REC->pid, REC->group, REC->result"
    )

    sig: Int
    errno: Int
    code: Int
    comm: Comm
    pid: Pid
    group: Int
    result: Int

    def text(self) -> str:
        return (
            f"sig={self.sig} errno={self.errno} code={self.code} comm={self.comm} "
            f"pid={self.pid} grp={self.group} res={self.result}"
        )


class Kmalloc(Tracepoint):
    """The kernel allocates memory on behalf of a task."""

    system = "kmem"
    event = "kmalloc"
    print_fmt = (
        '"call_site=%pS ptr=%p bytes_req=%zu bytes_alloc=%zu gfp_flags=0x%lx node=%d", '
        "(void *)REC->call_site, REC->ptr, REC->bytes_req, REC->bytes_alloc, REC->gfp_flags, "
        "REC->node"
    )

    call_site: UnsignedLong
    ptr: VoidPointer
    bytes_req: SizeT
    bytes_alloc: SizeT
    gfp_flags: UnsignedLong
    node: Int

    def text(self) -> str:
        return (
            f"call_site={_SITES.get(self.call_site, hex(self.call_site))} ptr={hashed(self.ptr)} "
            f"bytes_req={self.bytes_req} bytes_alloc={self.bytes_alloc} "
            f"gfp_flags={self.gfp_flags:#x} node={self.node}"
        )


class SysExit(Tracepoint):
    """A system call returns."""

    system = "raw_syscalls"
    event = "sys_exit"
    print_fmt = '"NR %ld (%ld)", REC->id, REC->ret'

    id: Long
    ret: Long

    def text(self) -> str:
        return f"NR {self.id} ({self.ret})"


class SoftirqEntry(Tracepoint):
    """A softirq handler begins: the timer's, while the CPU is idle."""

    system = "irq"
    event = "softirq_entry"
    print_fmt = (
        '"vec=%u [action=%s]", REC->vec, __print_symbolic(REC->vec, { 0, "HI" }, { 1, "TIMER" })'
    )
    common_flags = 0x10

    vec: UnsignedInt

    def text(self) -> str:
        action = _SOFTIRQS[self.vec] if self.vec < len(_SOFTIRQS) else hex(self.vec)
        return f"vec={self.vec} [action={action}]"


_SITES = {address: f"{name}+0x0/0x1000" for name, address in ADDRESSES.items()}
EVENTS: tuple[type[Tracepoint], ...] = (
    SchedProcessExec,
    SchedProcessFork,
    SchedProcessExit,
    SchedSwitch,
    SchedWakeup,
    SignalGenerate,
    Kmalloc,
    SysExit,
    SoftirqEntry,
)
