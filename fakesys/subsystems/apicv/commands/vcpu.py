"""Commands for the run state of a vCPU, and for its ioctls."""

from __future__ import annotations

from collections.abc import Callable
from errno import EBUSY, EINVAL, ENODEV

from fakesys.core.commands import (
    Args,
    Operand,
    Option,
    Verb,
    flag,
    number,
    word,
)
from fakesys.subsystems.apicv.commands.operands import (
    CPU,
    NO_VCPU,
    NOT_IN_GUEST,
    VEC,
    VcpuAction,
    apic_vcpu,
    by_guest,
)
from fakesys.subsystems.apicv.devices import synic
from fakesys.subsystems.apicv.engine import guest_steps, vcpu_run
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.files.commands import VCPU, VM

_GUEST_STATES: dict[str, Callable[[ApicVm, ApicVcpu], None]] = {
    "cli": lambda vm, vcpu: guest_steps.set_interrupts(vm, vcpu, on=False),
    "sti": lambda vm, vcpu: guest_steps.set_interrupts(vm, vcpu, on=True),
    "iret": lambda vm, vcpu: guest_steps.set_interrupts(vm, vcpu, on=True),
    "hlt": guest_steps.halt,
}
_HOST_STATES: dict[str, Callable[[ApicVm, ApicVcpu], None]] = {
    "stop": vcpu_run.stop,
    "preempt": vcpu_run.preempt,
}
_MOVES: dict[str, Callable[[ApicVm, ApicVcpu, int | None], None]] = {
    "start": vcpu_run.start,
    "resume": vcpu_run.resume,
}


def _host_state(action: VcpuAction) -> Callable[[Apicv, Args], str]:
    def run(apicv: Apicv, args: Args) -> str:
        action(*apic_vcpu(apicv, args))
        return ""

    return run


def _move(action: Callable[[ApicVm, ApicVcpu, int | None], None]) -> Callable[[Apicv, Args], str]:
    def run(apicv: Apicv, args: Args) -> str:
        vm, vcpu = apic_vcpu(apicv, args)
        action(vm, vcpu, args[CPU])
        return ""

    return run


def _run_states() -> tuple[Verb[Apicv], ...]:
    docs = {
        "cli": "The guest refuses interrupts.",
        "sti": "The guest takes interrupts.",
        "iret": "The guest's handler returns: it takes interrupts.",
        "hlt": "The guest halts, unless an interrupt waits.",
    }
    guests = [
        Verb(words=(VM, "vcpu", VCPU, name), run=by_guest(act), errors=NOT_IN_GUEST, doc=docs[name])
        for name, act in _GUEST_STATES.items()
    ]
    wrong = NO_VCPU | {EBUSY: "the vCPU is not in a state in which this can be"}
    hosts = {
        "stop": "A signal brings the vCPU's thread to user space.",
        "preempt": "The host takes the CPU from it.",
        "start": "KVM_RUN, of one that waits for INIT too.",
        "resume": "It gets a CPU again.",
    }
    outside = [
        Verb(words=(VM, "vcpu", VCPU, name), run=_host_state(act), errors=wrong, doc=hosts[name])
        for name, act in _HOST_STATES.items()
    ]
    moves = [
        Verb(
            words=(VM, "vcpu", VCPU, name),
            options=(CPU,),
            run=_move(act),
            errors=wrong,
            doc=hosts[name],
        )
        for name, act in _MOVES.items()
    ]
    return (*guests, *outside, *moves)


SVM: Option[bool | None] = Option("svm", flag, None, "CPUID has SVM")
X2APIC: Option[bool | None] = Option("x2apic", flag, None, "CPUID has x2APIC")
BLOCKIRQ = Option("blockirq", flag, False, "KVM_GUESTDBG_BLOCKIRQ", required=True)


def _cpuid(apicv: Apicv, args: Args) -> str:
    vm, vcpu = apic_vcpu(apicv, args)
    vcpu_run.set_cpuid(vm, vcpu, svm=args[SVM], x2apic=args[X2APIC])
    return ""


def _guest_debug(apicv: Apicv, args: Args) -> str:
    vm, vcpu = apic_vcpu(apicv, args)
    vcpu_run.set_guest_debug(vm, vcpu, block_irq=args[BLOCKIRQ])
    return ""


SINT = Operand("N", number)
AUTO_EOI = Option("autoeoi", flag, False, "the interrupt ends itself")
MASKED = Option("masked", flag, False, "no interrupts")


def _synic(apicv: Apicv, args: Args) -> str:
    synic.enable(*apic_vcpu(apicv, args))
    return ""


def _sint(apicv: Apicv, args: Args) -> str:
    vm, vcpu = apic_vcpu(apicv, args)
    synic.write_sint(vm, vcpu, args[SINT], args[VEC], auto_eoi=args[AUTO_EOI], masked=args[MASKED])
    return ""


NESTED_STEP = Operand("vmrun|vmexit", word, one_of=("vmrun", "vmexit"))


def _nested(apicv: Apicv, args: Args) -> str:
    step = vcpu_run.run_nested if args[NESTED_STEP] == "vmrun" else vcpu_run.leave_nested
    step(*apic_vcpu(apicv, args))
    return ""


def _ioctls() -> tuple[Verb[Apicv], ...]:
    running = NO_VCPU | {EBUSY: "the vCPU is in guest"}
    return (
        Verb(
            words=(VM, "vcpu", VCPU, "cpuid"),
            options=(SVM, X2APIC),
            run=_cpuid,
            errors=running,
            doc="KVM_SET_CPUID2: nested SVM may switch AVIC off, AVIC may hide x2APIC.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "guestdbg"),
            options=(BLOCKIRQ,),
            run=_guest_debug,
            errors=running,
            doc="KVM_SET_GUEST_DEBUG with or without KVM_GUESTDBG_BLOCKIRQ.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "hv", "synic"),
            run=_synic,
            errors=running | {ENODEV: "the VM has no local APICs in the kernel"},
            doc="KVM_CAP_HYPERV_SYNIC2.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "hv", "sint", SINT),
            options=(VEC, AUTO_EOI, MASKED),
            run=_sint,
            errors=NOT_IN_GUEST
            | {
                EINVAL: "the guest would get a general protection fault",
                ENODEV: "the VM has no local APICs in the kernel",
            },
            doc="The guest writes HV_X64_MSR_SINTx.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "nested", NESTED_STEP),
            run=_nested,
            errors=NOT_IN_GUEST | {EINVAL: "no nested SVM, or in the wrong one of the two"},
            doc="The guest enters or leaves its own guest.",
        ),
    )


VERBS: tuple[Verb[Apicv], ...] = (*_run_states(), *_ioctls())
