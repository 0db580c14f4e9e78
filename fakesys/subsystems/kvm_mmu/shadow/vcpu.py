"""The MMU state of one vCPU: how it translates, its root pages, and what is requested of it.

Follows `struct kvm_mmu` and the MMIO cache of `struct kvm_vcpu_arch`
(arch/x86/include/asm/kvm_host.h, v6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from msgspec import Struct

from fakesys.subsystems.kvm.stats import VcpuStats
from fakesys.subsystems.kvm_mmu.shadow.arch import Request
from fakesys.subsystems.kvm_mmu.shadow.dirty_ring import DirtyRing


class Paging(Enum):
    """What the roots of a vCPU translate."""

    # Guest physical addresses: the processor walks the guest's own tables.
    TDP = "tdp"
    # Real mode with shadow paging: four roots of a PAE table.
    NONE = "none"
    # 64-bit guest with shadow paging.
    LONG = "long"


class MmioCache(Struct):
    """The last MMIO page that a vCPU accessed; valid for one memslot generation only."""

    gva: int
    gfn: int
    generation: int


def never_in_guest() -> bool:
    """Answer for a vCPU that is always in user space when something is requested of it."""
    return False


class VcpuMmu:
    """MMU state of one vCPU.

    `roots` are the rows of the shadow pages that it counts in root_count; the list is empty while
    no root is loaded. `is_running_vcpu` is set while the vCPU's own thread executes KVM code,
    which then needs no kick. `in_guest` tells whether the vCPU runs the guest otherwise.
    """

    def __init__(
        self,
        vcpu_id: int,
        stats: VcpuStats,
        paging: Paging,
        *,
        in_guest: Callable[[], bool] = never_in_guest,
    ) -> None:
        self.id = vcpu_id
        self.stats = stats
        self.paging = paging
        self.cr3 = 0
        self.roots: list[int] = []
        self.requests: int = Request.NONE
        self._in_guest = in_guest
        self.is_running_vcpu = False
        self.mmio: MmioCache | None = None
        # The address space: 1 while the vCPU is in SMM.
        self.as_id = 0
        # Where it logs dirty pages, if the VM has rings.
        self.ring: DirtyRing | None = None

    def in_guest(self) -> bool:
        """Return whether the vCPU must be kicked before it notices a request."""
        return not self.is_running_vcpu and self._in_guest()
