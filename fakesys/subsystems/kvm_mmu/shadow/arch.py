"""The memory state of one VM that all operations on it share: pages, sptes, counters, requests."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from fakesys.core.events import Bus
from fakesys.subsystems.kvm.stats import VmStats
from fakesys.subsystems.kvm_mmu.shadow.dirty_ring import DirtyRing
from fakesys.subsystems.kvm_mmu.shadow.pages import ShadowPages
from fakesys.subsystems.kvm_mmu.shadow.policy import MMIO_18, MmioBits, MmuPolicy, ZapFlow
from fakesys.subsystems.kvm_mmu.shadow.role import INVALID
from fakesys.subsystems.kvm_mmu.shadow.sptes import Sptes
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot


class Request:
    """What a vCPU must do before it enters the guest: those KVM_REQ_* that concern memory.

    Plain integers rather than enum.Flag, whose operators are slow: the bits are tested millions of
    times.
    """

    NONE = 0
    # MMU_RELOAD (5.4), MMU_FREE_OBSOLETE_ROOTS (6.0).
    RELOAD = 1
    TLB_FLUSH = 4
    TLB_FLUSH_GUEST = 8


class Knobs(Struct, frozen=True):
    """Parameters of one VM's memory, fixed while the VM exists; `params.py` describes each.

    `delete_flow` None: the flow that the kernel uses.
    """

    tdp: bool = True
    tdp_mmu: bool = False
    preempt: bool = True
    mmio_caching: bool = True
    mmio_gen_bits: int = 19
    as_num: int = 2
    wrap_gen: int = 0
    delete_flow: ZapFlow | None = None


class RequestedVcpu(Protocol):
    """A vCPU as far as the MMU requests something of it; `roots`: see `VcpuMmu`."""

    requests: int
    roots: list[int]

    def in_guest(self) -> bool:
        """Return whether the vCPU must be kicked before it notices a request."""


class MmuArch:
    """Memory state of one VM that all its operations share; `struct kvm_arch` in the kernel.

    It owns the shadow pages and their leaf sptes, and refers to the policy of the kernel, the
    knobs and counters of the VM and its vCPUs. It knows no operation.
    """

    def __init__(self, bus: Bus, policy: MmuPolicy, knobs: Knobs, stats: VmStats) -> None:
        self.bus = bus
        self.policy = policy
        self.knobs = knobs
        self.stats = stats
        self.vcpus: list[RequestedVcpu] = []
        self.pages = ShadowPages()
        self.mmu_lock = self.pages.mmu_lock
        self.sptes = Sptes(self.pages, self.stats)
        # Pages zapped by a fast zap and not yet freed (kvm->arch.zapped_obsolete_pages).
        self.zapped_obsolete: list[int] = []
        # mmu_invalidate_seq (v6.1): a fault that began before a change must be retried.
        self.notifier_seq = 0
        self.unsync_pages = 0
        # The host maps large pages without X, see vm/nx_huge_pages.py; this VM may be exempt.
        self.nx_on_host = False
        self.nx_disabled = False
        # Of the vCPU that runs, where dirty pages are logged in rings.
        self.ring: DirtyRing | None = None
        # Tables that replace a large page because of that, oldest first.
        self.nx_splits: dict[int, None] = {}

    @property
    def nx_huge_pages(self) -> bool:
        """Whether large pages are mapped without X: mmu_internal.h:is_nx_huge_page_enabled."""
        return self.nx_on_host and not self.nx_disabled

    @property
    def mmio_bits(self) -> MmioBits:
        """Where MMIO sptes keep their generation."""
        return MMIO_18 if self.knobs.mmio_gen_bits == 18 else self.policy.mmio_19

    @property
    def delete_flow(self) -> ZapFlow:
        """The zap flow that the deletion or move of a slot runs."""
        return self.knobs.delete_flow or self.policy.delete_flow

    @property
    def wrap_flow(self) -> ZapFlow:
        """The zap flow that the wrap of the MMIO generation runs."""
        chosen = self.knobs.delete_flow
        # Which concerns no slot.
        return self.policy.wrap_flow if chosen in (None, ZapFlow.SLOT) else chosen

    @property
    def wraps_mmio_only(self) -> bool:
        """Whether the wrap of the MMIO generation zaps only pages with MMIO sptes."""
        return self.policy.wrap_mmio_only and self.wrap_flow is ZapFlow.ZAP_ALL

    def mark_dirty(self, slot: Memslot, gfn: int, *, locked: bool = True) -> None:
        """Log a page of a slot as dirty, in the ring of the running vCPU if there are rings.

        `locked`: mmu_lock is held, as everywhere but in a fast page fault. Like
        kvm_main.c:mark_page_dirty_in_slot (v6.1).
        """
        if not slot.logs_dirty:
            return
        if self.ring is None:
            slot.mark_dirty(gfn)
        else:
            number = slot.as_id << 16 | slot.id
            self.ring.push(number, gfn - slot.base_gfn, locked=locked)

    def account_nx_huge_page(self, row: int) -> None:
        """Count a table that replaces a large page. Like mmu.c:account_huge_nx_page (v6.1)."""
        if row not in self.nx_splits:
            self.nx_splits[row] = None
            self.stats.nx_lpage_splits += 1

    def unaccount_nx_huge_page(self, row: int) -> None:
        """Stop counting such a table. Like mmu.c:unaccount_huge_nx_page (v6.1)."""
        del self.nx_splits[row]
        self.stats.nx_lpage_splits -= 1

    def is_obsolete(self, row: int) -> bool:
        """Return whether the page is of an older generation. Like mmu.c:is_obsolete_sp (v5.4)."""
        if self.policy.invalid_is_obsolete and self.pages.role[row] & INVALID:
            return True
        return self.pages.gen[row] != self.pages.valid_gen

    def request_all(self, request: int) -> None:
        """Make a request of every vCPU."""
        for vcpu in self.vcpus:
            vcpu.requests |= request

    def flush_remote_tlbs(self) -> None:
        """Request a TLB flush of all vCPUs. Like kvm_main.c:kvm_flush_remote_tlbs."""
        if self.policy.counts_flush_requests:
            self.stats.remote_tlb_flush_requests += 1
        self.request_all(Request.TLB_FLUSH)
        # A flush counts if at least one vCPU had to be kicked out of the guest.
        if any(vcpu.in_guest() for vcpu in self.vcpus):
            self.stats.remote_tlb_flush += 1
