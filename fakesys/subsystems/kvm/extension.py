"""What KVM's register of virtual machines asks of the models of memory and interrupts."""

from __future__ import annotations

from typing import Protocol

from fakesys.subsystems.kvm.vm import Irqchip, Vcpu, Vm, VmOptions


class Extension(Protocol):
    """What a later model adds to every VM.

    `Kvm` calls the `check_*` methods of all extensions before the first `add_*`: an extension
    refuses in the former, by KernelError, and only changes state in the latter.
    """

    def check_vm(self, irqchip: Irqchip, options: VmOptions) -> None:
        """Refuse to create a VM with this irqchip and these options."""

    def add_vm(self, vm: Vm, options: VmOptions) -> None:
        """Add state for a new VM. It has its directory; its uevent follows."""

    def check_irqchip(self, vm: Vm) -> None:
        """Refuse KVM_CREATE_IRQCHIP for this VM."""

    def add_irqchip(self, vm: Vm) -> None:
        """Create the interrupt controllers of a VM that was created without."""

    def check_vcpu(self, vm: Vm, vcpu_id: int) -> None:
        """Refuse to create a vCPU of this id."""

    def add_vcpu(self, vcpu: Vcpu, *, start: bool) -> None:
        """Add state for a new vCPU. `start`: user space runs it at once."""

    def close_vcpu(self, vcpu: Vcpu) -> None:
        """Stop a vCPU whose descriptor was closed; it stays in the VM."""

    def hold_vcpu(self, vcpu: Vcpu) -> None:
        """Leave the vCPU in user space until a command runs it again."""

    def is_in_guest(self, vcpu: Vcpu) -> bool:
        """Return whether the vCPU runs the guest now."""

    def remove_vm(self, vm: Vm) -> None:
        """Drop the state of a VM whose last reference is gone; its counters are still there."""
