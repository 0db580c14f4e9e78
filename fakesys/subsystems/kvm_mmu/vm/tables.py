"""What guests and commands ask of the tables of a VM, whichever MMU has made them."""

from __future__ import annotations

from typing import Protocol

from fakesys.subsystems.kvm_mmu.mmu.fast_page_fault import RetPf
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu


class Walker(Protocol):
    """The processor's walk through the tables of a VM."""

    def allows(self, vcpu: VcpuMmu, address: int, error: int) -> bool:
        """Return whether the tables allow an access of this kind."""

    def error_code(self, vcpu: VcpuMmu, address: int, error: int) -> int:
        """Return the error code of a fault: `error` with P and RSVD added."""


class Faults(Protocol):
    """A page fault handler."""

    def page_fault(self, vcpu: VcpuMmu, address: int, error: int) -> RetPf:
        """Handle a fault and count its outcome."""
