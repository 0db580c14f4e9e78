"""The parameters of kvm_amd that a VM was created with."""

from __future__ import annotations

from msgspec import Struct


class Module(Struct, frozen=True):
    """Parameters of kvm_amd when the VM was created; `avic` is false without `npt`.

    `ipiv`: hardware sees in the physical table which vCPUs run, and so can send IPIs to them.
    `any_irqchip`: AVIC works with every irqchip, as after the last patch of the series.
    """

    avic: bool
    nested: bool
    x2avic: bool
    ipiv: bool = True
    any_irqchip: bool = False

    @property
    def highest_id(self) -> int:
        """The highest APIC id that the physical id table can hold."""
        return 511 if self.x2avic else 254
