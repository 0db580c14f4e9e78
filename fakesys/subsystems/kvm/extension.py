"""What KVM's model of virtual machines asks of the models of memory and interrupts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fakesys.core.commands import Args
    from fakesys.subsystems.kvm.model import Vcpu, Vm


class Extension(Protocol):
    """What a later model adds to every VM. All checks of all models come before any change."""

    def check_vm(self, args: Args) -> None:
        """May a VM with these options be made? Raises."""

    def add_vm(self, vm: Vm, args: Args) -> None:
        """The VM exists, its directory too; nobody heard of it yet."""

    def check_irqchip(self, vm: Vm) -> None:
        """May this VM get an irqchip in the kernel? Raises."""

    def add_irqchip(self, vm: Vm) -> None:
        """KVM_CREATE_IRQCHIP was done."""

    def check_vcpu(self, vm: Vm, vcpu_id: int) -> None:
        """May the VM get this vCPU? Raises."""

    def add_vcpu(self, vcpu: Vcpu) -> None:
        """The vCPU exists."""

    def close_vcpu(self, vcpu: Vcpu) -> None:
        """Its descriptor is closed; it stays in the VM."""

    def hold_vcpu(self, vcpu: Vcpu) -> None:
        """From now on it stands in user space, unless something makes it run again."""

    def is_in_guest(self, vcpu: Vcpu) -> bool:
        """Does it run the guest now?"""

    def remove_vm(self, vm: Vm) -> None:
        """The last reference is gone; counters are still there."""
