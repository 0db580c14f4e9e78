"""Commands on a vCPU: registers, programs, accesses."""

from __future__ import annotations

import errno as errno_numbers
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from errno import EINTR, EINVAL

from fakesys.core.commands import Args, Tail, Verb, number
from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm.files.commands import VCPU, VM, vcpu_of
from fakesys.subsystems.kvm.vcpu_run.reasons import INTERRUPT
from fakesys.subsystems.kvm.vm import Vcpu
from fakesys.subsystems.kvm_mmu.extension import MmuExtension
from fakesys.subsystems.kvm_mmu.files.operands import (
    CR3_VALUE,
    ENTRIES,
    FIRST,
    HEX,
    KIND,
    NO_VCPU,
    REAL_MODE,
    STRIDE,
    TIMES,
    VALUE,
    WHERE,
)
from fakesys.subsystems.kvm_mmu.guest.bulk_access import bulk_access
from fakesys.subsystems.kvm_mmu.guest.exits import Exit, VcpuExit
from fakesys.subsystems.kvm_mmu.guest.programs import GuestOp
from fakesys.subsystems.kvm_mmu.guest.real_code import RealModeCode
from fakesys.subsystems.kvm_mmu.guest.real_mode import RealMode
from fakesys.subsystems.kvm_mmu.guest.vcpu_run import Guest
from fakesys.subsystems.kvm_mmu.shadow.dirty_ring import DIRTY, HARVESTED

_GUEST_OP_KINDS = ("r", "w", "x", "w64", "rloop", "wloop")


def _guest_op(text: str) -> GuestOp:
    """Return one operation of a program, such as `w=0x400000` or `wloop=0x400000,512`.

    Raises EINVAL.
    """
    kind, _, arguments = text.partition("=")
    numbers = [number(word) for word in arguments.split(",")]
    if kind not in _GUEST_OP_KINDS:
        raise KernelError(EINVAL, f"{kind!r} is none of {', '.join(_GUEST_OP_KINDS)}")
    if kind == "w64" and len(numbers) == 2:
        return GuestOp(kind, numbers[0], value=numbers[1])
    if kind.endswith("loop") and len(numbers) in (2, 3):
        return GuestOp(kind, numbers[0], times=numbers[1], stride=(*numbers, 4096)[2])
    if len(kind) == 1 and len(numbers) == 1:
        return GuestOp(kind, numbers[0])
    raise KernelError(EINVAL, f"{text!r} has not the numbers of a {kind}")


def _ring(mmu: MmuExtension, args: Args) -> str:
    ring = mmu.mmus[vcpu_of(mmu.kvm, args)].ring
    if ring is None:
        raise KernelError(EINVAL, "there are no dirty rings")
    words = []
    for index in range(args[FIRST], args[FIRST] + args[ENTRIES]):
        entry = ring.entry(index)
        words.append(f"{entry.flags}:{entry.slot}:{entry.offset}")
        if entry.flags & DIRTY:
            entry.flags = HARVESTED
    return "entries=" + ",".join(words)


def _smi(mmu: MmuExtension, args: Args) -> str:
    mmu.guests[vcpu_of(mmu.kvm, args)].send_smi()
    return ""


@contextmanager
def _in_vcpu_thread(mmu: MmuExtension, vcpu: Vcpu) -> Iterator[None]:
    """Let events come from the vCPU's thread; a refused command does not count as a run.

    Afterwards the thread is where it was: a signal brings it back to user space, or user space
    calls KVM_RUN again.
    """
    before, mmu.bus.task = mmu.bus.task, vcpu.task
    running = mmu.mmus[vcpu]
    running.is_running_vcpu = True
    mmu.memories[vcpu.vm].arch.ring = running.ring
    run = mmu.guests[vcpu].vcpu_run
    was_in_guest, was_in_kvm_run = run.in_guest, run.in_kvm_run
    if mmu.bus.scheduler is not None and not was_in_kvm_run:
        mmu.bus.scheduler.begin()
    try:
        yield
    finally:
        _return_to(mmu.guests[vcpu], in_guest=was_in_guest, in_kvm_run=was_in_kvm_run)
        running.is_running_vcpu = False
        if mmu.bus.scheduler is not None and not run.in_kvm_run:
            mmu.bus.scheduler.sleep(vcpu.task)
        mmu.bus.task = before
    vcpu.runs()


def _return_to(guest: Guest, *, in_guest: bool, in_kvm_run: bool) -> None:
    """Bring a vCPU back to where a command found it."""
    run = guest.vcpu_run
    if run.in_guest and not in_guest:
        run.exit(INTERRUPT)
    if run.in_kvm_run and not in_kvm_run:
        guest.leave(VcpuExit(Exit.INTR, errno=EINTR))
    if guest.is_ring_full:
        # User space empties the ring first.
        return
    if in_kvm_run:
        run.begin()
    if in_guest and not run.in_guest and guest.reenter() is not None:
        # Without a root it would shut down again and again; interrupts find it in the guest.
        run.begin()
        run.enter()


def _set_up(mmu: MmuExtension, args: Args) -> str:
    vcpu = vcpu_of(mmu.kvm, args)
    vcpu.hold()
    mmu.guests[vcpu].set_up(real_mode=args[REAL_MODE])
    return ""


def _set_cr3(mmu: MmuExtension, args: Args) -> str:
    mmu.guests[vcpu_of(mmu.kvm, args)].set_cr3(args[CR3_VALUE])
    return ""


def _run(mmu: MmuExtension, args: Args) -> str:
    vcpu = vcpu_of(mmu.kvm, args)
    ops = [_guest_op(text) for text in args.tail]
    with _in_vcpu_thread(mmu, vcpu):
        return exits_word(mmu.guests[vcpu].run(ops))


def _run_real_mode(mmu: MmuExtension, args: Args) -> str:
    vcpu = vcpu_of(mmu.kvm, args)
    guest = mmu.guests[vcpu]
    if not guest.registers.real_mode:
        raise KernelError(EINVAL, "the vCPU is not in real mode")
    with _in_vcpu_thread(mmu, vcpu):
        kind = RealModeCode if guest.is_hardware else RealMode
        return exits_word(kind(mmu.memories[vcpu.vm], mmu.mmus[vcpu], guest).run(args[HEX]))


def _access(mmu: MmuExtension, args: Args) -> str:
    vcpu = vcpu_of(mmu.kvm, args)
    guest, memory = mmu.guests[vcpu], mmu.memories[vcpu.vm]
    if not guest.registers.ready and not memory.arch.knobs.tdp:
        raise KernelError(EINVAL, "the vCPU is not set up: nothing says how it translates")
    with _in_vcpu_thread(mmu, vcpu):
        accessed = bulk_access(
            memory,
            mmu.mmus[vcpu],
            guest,
            args[KIND],
            args[WHERE],
            times=args[TIMES],
            stride=args[STRIDE],
            value=args[VALUE],
        )
    return " ".join(filter(None, (f"faults={accessed.faults}", exits_word(accessed.exits))))


def exits_word(exits: Iterable[VcpuExit]) -> str:
    """Return `exits=...`, or nothing if there is none."""
    words = [_exit_word(vcpu_exit) for vcpu_exit in exits]
    return "exits=" + ",".join(words) if words else ""


def _exit_word(vcpu_exit: VcpuExit) -> str:
    if vcpu_exit.reason is None:
        return errno_numbers.errorcode[vcpu_exit.errno]
    if vcpu_exit.mmio is None:
        return vcpu_exit.reason.name
    address, write, length = vcpu_exit.mmio
    return f"MMIO:{address:#x}:{'write' if write else 'read'}:{length}"


def _state_verbs() -> tuple[Verb[MmuExtension], ...]:
    return (
        Verb(
            words=(VM, "vcpu", VCPU, "smi"),
            run=_smi,
            errors=NO_VCPU | {EINVAL: "without hardware for it, no guest runs in SMM"},
            doc="KVM_SMI: the next run begins in system management mode, at 0x38000 until RSM.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "ring"),
            options=(FIRST, ENTRIES),
            run=_ring,
            errors=NO_VCPU | {EINVAL: "there are no dirty rings"},
            doc="Entries FLAGS:SLOT:OFFSET of the ring of dirty pages; dirty ones are harvested.",
        ),
    )


def vcpu_verbs() -> tuple[Verb[MmuExtension], ...]:
    """Return the commands on a vCPU."""
    return (
        Verb(
            words=(VM, "vcpu", VCPU, "setup"),
            options=(REAL_MODE,),
            run=_set_up,
            errors=NO_VCPU,
            doc="Registers: 64-bit user code with CR3 0x10000 at 0x1000, or real mode.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "cr3", CR3_VALUE),
            run=_set_cr3,
            errors=NO_VCPU,
            doc="KVM_SET_SREGS with another CR3.",
        ),
        *_state_verbs(),
        Verb(
            words=(VM, "vcpu", VCPU, "run", Tail("ITEM...")),
            run=_run,
            errors=NO_VCPU
            | {EINVAL: "not set up for 64-bit programs, no such item, or too many accesses"},
            doc="A program: fetches, r=A w=A x=A w64=A,V rloop=A,N[,S] wloop=A,N[,S], doorbell.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "run_real"),
            options=(HEX,),
            run=_run_real_mode,
            errors=NO_VCPU | {EINVAL: "not in real mode"},
            doc="These bytes at 0x1000, until an exit that is neither MMIO nor IO.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "access", KIND, WHERE),
            options=(TIMES, STRIDE, VALUE),
            run=_access,
            errors=NO_VCPU
            | {EINVAL: "not set up, with shadow paging; or too many accesses one by one"},
            doc="The guest makes these accesses and nothing else.",
        ),
    )
