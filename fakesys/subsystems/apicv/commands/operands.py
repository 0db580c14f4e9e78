"""Operands, options, error tables and look-ups that the commands about interrupts share."""

from __future__ import annotations

from collections.abc import Callable
from errno import EBUSY, EINVAL, ENODEV, ENOENT

from fakesys.core.commands import (
    Args,
    Operand,
    Option,
    OptionalOperand,
    flag,
    number_within,
    words_of,
)
from fakesys.core.errors import KernelError
from fakesys.subsystems.apicv.chips.lapic import Mode
from fakesys.subsystems.apicv.engine import vcpu_run
from fakesys.subsystems.apicv.engine.quiesce import command
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.files.commands import NO_VM, vcpu_of, vm_of

NO_VCPU = {ENOENT: "there is no such VM or vCPU"}
NOT_IN_GUEST = NO_VCPU | {EBUSY: "the vCPU is not in guest"}
NO_CHIP = NO_VM | {ENODEV: "the controller is not in the kernel"}
MAX_COUNT = 10_000_000

vector = number_within(0, 255)
DELIVERY = {mode.name.lower(): mode for mode in Mode}


def delivery_mode(text: str) -> Mode:
    """Parse the name of a delivery mode. Raises EINVAL."""
    if text not in DELIVERY:
        raise KernelError(EINVAL, f"{text!r} is none of {', '.join(DELIVERY)}")
    return DELIVERY[text]


def apic_id(text: str) -> int:
    """Parse an APIC id of up to 32 bits. Raises EINVAL."""
    return number_within(0, 0xFFFFFFFF)(text)


COUNT = OptionalOperand("N", number_within(1, MAX_COUNT), 1)
CPU: Option[int | None] = Option("cpu", number_within(0, 4095), None, "host CPU to run on")
VEC = Option("vec", vector, 0, "vector", required=True)
DST = Option("dst", apic_id, 0, "APIC id, or logical destination")
DESTINATION = Option("mode", words_of("phys", "logical"), "phys", "what dst= means")
LEVEL = Operand("0|1", flag, one_of=("0", "1"))

VcpuAction = Callable[[ApicVm, ApicVcpu], None]


def apic_vm(apicv: Apicv, args: Args) -> ApicVm:
    """Return the VM that a command names. Raises ENOENT."""
    return apicv.of(vm_of(apicv.kvm, args))


def apic_vcpu(apicv: Apicv, args: Args) -> tuple[ApicVm, ApicVcpu]:
    """Return the vCPU that a command names, and its VM. Raises ENOENT."""
    return apicv.vcpu_of(vcpu_of(apicv.kvm, args))


def by_guest(action: VcpuAction) -> Callable[[Apicv, Args], str]:
    """Return the handler of a command that a guest carries out; it refuses unless in guest."""

    def run(apicv: Apicv, args: Args) -> str:
        vm, vcpu = apic_vcpu(apicv, args)
        vcpu_run.require_in_guest(vcpu)
        with command(vm, vcpu):
            action(vm, vcpu)
        return ""

    return run


def require_lapics(vm: ApicVm) -> None:
    """Raise ENODEV if the VM has no local APICs in the kernel."""
    if not vm.has_lapics:
        raise KernelError(ENODEV, f"{vm.kvm.name} has no local APICs in the kernel")
