"""What all parts of a VM's memory model share: policy, knobs, pages, sptes, counters, vCPUs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from fakesys.core.events import Bus
from fakesys.subsystems.kvm.stats import VmStats
from fakesys.subsystems.kvm_mmu.shadow.pages import ShadowPages
from fakesys.subsystems.kvm_mmu.shadow.policy import MMIO_18, MmioBits, MmuPolicy, ZapFlow
from fakesys.subsystems.kvm_mmu.shadow.role import INVALID
from fakesys.subsystems.kvm_mmu.shadow.sptes import Sptes


class Request:
    """What a vCPU must do before it enters the guest: KVM_REQ_* that concern memory.

    Plain bits: they are asked for millions of times, and the operators of enum.Flag are slow.
    """

    NONE = 0
    # MMU_RELOAD (5.4), MMU_FREE_OBSOLETE_ROOTS (6.0).
    RELOAD = 1
    MMU_SYNC = 2
    TLB_FLUSH = 4
    TLB_FLUSH_GUEST = 8


class Knobs(Struct, frozen=True):
    """The choices of spec/mmu.md 1, fixed while a VM lives. `delete_flow` None: as the kernel."""

    tdp: bool = True
    preempt: bool = True
    mmio_caching: bool = True
    mmio_gen_bits: int = 19
    as_num: int = 2
    wrap_gen: int = 0
    delete_flow: ZapFlow | None = None


class Requested(Protocol):
    """A vCPU as far as others may ask something of it."""

    requests: int

    def in_guest(self) -> bool:
        """Must it be kicked to notice a request?"""

    def held_roots(self) -> Iterable[int]:
        """The pages that it counts in root_count."""


@dataclass(eq=False)
class Kit:
    """One VM's memory, without the parts that act on it."""

    bus: Bus
    policy: MmuPolicy
    knobs: Knobs
    stats: VmStats
    vcpus: list[Requested] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pages = ShadowPages()
        self.sptes = Sptes(self.pages, self.stats)
        # Pages zapped by a fast zap and not yet freed (kvm->arch.zapped_obsolete_pages).
        self.zapped_obsolete: list[int] = []
        # mmu_notifier_seq: a fault that began before a change must be retried.
        self.notifier_seq = 0
        self.unsync_pages = 0
        # The host maps large pages without X, see nx.py; this VM is trusted and spared.
        self.nx_on_host = False
        self.nx_disabled = False
        # Tables that stand for a large page because of that.
        self.nx_splits: dict[int, None] = {}

    @property
    def nx_huge_pages(self) -> bool:
        """Are large pages mapped without X? Like mmu_internal.h:is_nx_huge_page_enabled (v6.1)."""
        return self.nx_on_host and not self.nx_disabled

    @property
    def mmio_bits(self) -> MmioBits:
        """Where MMIO sptes keep their generation."""
        return MMIO_18 if self.knobs.mmio_gen_bits == 18 else self.policy.mmio_19

    @property
    def delete_flow(self) -> ZapFlow:
        """What the deletion or move of a slot calls."""
        return self.knobs.delete_flow or self.policy.delete_flow

    @property
    def wrap_flow(self) -> ZapFlow:
        """What the wrap of the MMIO generation calls."""
        return self.knobs.delete_flow or self.policy.wrap_flow

    def note_split(self, row: int) -> None:
        """This table stands for a large page. Like mmu.c:account_huge_nx_page (v6.1)."""
        if row not in self.nx_splits:
            self.nx_splits[row] = None
            self.stats.nx_lpage_splits += 1

    def forget_split(self, row: int) -> None:
        """It goes, or may stay as it is. Like mmu.c:unaccount_huge_nx_page (v6.1)."""
        del self.nx_splits[row]
        self.stats.nx_lpage_splits -= 1

    def is_obsolete(self, row: int) -> bool:
        """Like mmu.c:is_obsolete_sp (v5.4)."""
        if self.policy.invalid_is_obsolete and self.pages.role[row] & INVALID:
            return True
        return self.pages.gen[row] != self.pages.valid_gen

    def request_all(self, request: int) -> None:
        """Ask every vCPU."""
        for vcpu in self.vcpus:
            vcpu.requests |= request

    def flush_remote_tlbs(self) -> None:
        """Like kvm_main.c:kvm_flush_remote_tlbs."""
        if self.policy.counts_flush_requests:
            self.stats.remote_tlb_flush_requests += 1
        self.request_all(Request.TLB_FLUSH)
        # Was one in the guest and had to be kicked out?
        if any(vcpu.in_guest() for vcpu in self.vcpus):
            self.stats.remote_tlb_flush += 1
