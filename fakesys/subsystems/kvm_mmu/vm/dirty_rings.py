"""Dirty pages logged in rings of the vCPUs: KVM_CAP_DIRTY_LOG_RING.

Follows virt/kvm/dirty_ring.c, kvm_main.c:kvm_vm_ioctl_reset_dirty_pages (v6.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from errno import EINVAL

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.dirty_ring import RESERVED, DirtyRing
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.slots.host import PAGE
from fakesys.subsystems.kvm_mmu.vm.dirty_log import DirtyLog

CAP_DIRTY_RING = 192
# sizeof(struct kvm_dirty_gfn), KVM_DIRTY_RING_MAX_ENTRIES.
RING_ENTRY, MAX_RING_ENTRIES = 16, 65536


class DirtyRings:
    """The rings of a VM's vCPUs."""

    def __init__(self, arch: MmuArch, log: DirtyLog) -> None:
        self._arch = arch
        self._log = log

    def enable(self, size: int, vcpus: Iterable[VcpuMmu]) -> None:
        """Log dirty pages in a ring of `size` bytes per vCPU.

        Raises EINVAL for a size that cannot be, once a vCPU exists, the second time, and where the
        kernel lacks rings.
        """
        fits = self.is_size(size) and self._arch.policy.dirty_rings
        if not fits or list(vcpus) or self._log.ring_entries:
            raise KernelError(EINVAL, "a power of two of bytes, once, before the first vCPU")
        self._log.ring_entries = size // RING_ENTRY

    @staticmethod
    def is_size(size: int) -> bool:
        """Return whether a ring can have so many bytes."""
        entries = size // RING_ENTRY
        return size >= PAGE and size & size - 1 == 0 and RESERVED < entries <= MAX_RING_ENTRIES

    def add(self, vcpu: VcpuMmu) -> None:
        """Give a vCPU its ring, if there are rings."""
        if self._log.ring_entries:
            vcpu.ring = DirtyRing(self._arch.bus, vcpu.id, self._log.ring_entries)

    def reset(self, vcpus: Iterable[VcpuMmu]) -> int:
        """Protect the pages that user space has harvested from all rings; return how many.

        That is KVM_RESET_DIRTY_RINGS. Raises EINVAL without rings.
        """
        if not self._log.ring_entries:
            raise KernelError(EINVAL, "there are no dirty rings")
        cleared = sum(self._log.reset_ring(vcpu.ring) for vcpu in vcpus)
        if cleared:
            self._arch.flush_remote_tlbs()
        return cleared
