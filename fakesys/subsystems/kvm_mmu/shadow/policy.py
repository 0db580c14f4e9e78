"""How kernels differ in their MMU: one frozen object per kernel, no version test elsewhere.

Sources: arch/x86/kvm/mmu.c of 5.1, 5.3 and 5.4; the eleven patches of the fast invalidate/zap
series (2019-09-12); arch/x86/kvm/mmu/*.c of 6.1, 6.12 and 6.18.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fakesys.subsystems.kvm_mmu.shadow import role


class ZapFlow(Enum):
    """Which shadow pages are zapped when a memslot is deleted or moved, and how."""

    # All of them.
    ZAP_ALL = "zap_all"
    FAST = "fast"
    # Those of the slot.
    SLOT = "slot"


class Generation(Enum):
    """What `mmu_valid_gen` is."""

    NONE = "none"
    COUNTER = "counter"
    TOGGLE = "toggle"


class SpteBits(Struct, frozen=True):
    """The software bits of a present leaf spte."""

    host_writable: int
    mmu_writable: int
    mmu_present: int


class MmioBits(Struct, frozen=True):
    """Where an MMIO spte keeps its generation: (first bit of generation, bits, spte bit) twice."""

    low: tuple[int, int, int]
    high: tuple[int, int, int]

    @property
    def width(self) -> int:
        """Number of generation bits in an spte."""
        return self.low[1] + self.high[1]

    @property
    def mask(self) -> int:
        """Mask of the generation bits that fit into an spte."""
        return (1 << self.width) - 1

    def pack(self, generation: int) -> int:
        """Return the spte bits that encode this generation."""
        word = 0
        for first, bits, at in (self.low, self.high):
            word |= (generation >> first & (1 << bits) - 1) << at
        return word

    def unpack(self, spte: int) -> int:
        """Return the generation that an spte carries."""
        generation = 0
        for first, bits, at in (self.low, self.high):
            generation |= (spte >> at & (1 << bits) - 1) << first
        return generation


class NxRules(Struct, frozen=True):
    """How a kernel works around the flaw of fetched large pages; see vm/nx_huge_pages.py."""

    # Until 5.9 any table made by a fetch counted, also where no large page was possible.
    counts_all: bool
    # 5.16: the recovery's period is a parameter, by default an hour divided by the ratio.
    period_by_ratio: bool
    # 6.3: what a logged slot maps is forgotten instead of zapped.
    spares_logged: bool
    # 6.0: a VM may be spared; 6.5, and stable kernels: `never` switches it off for good.
    may_be_off: bool


class TdpRules(Struct, frozen=True):
    """The TDP MMU of a kernel; see `kvm_mmu.tdp`."""

    # 6.10: an empty entry suppresses #VE, bit 63.
    empty: int
    # The levels of entries that each pass over a root zaps. 6.11: the leaves go first.
    zap_passes: tuple[int, ...]
    # 6.11: a write to a large page of a logged slot splits it; before, the leaf was zapped.
    write_splits: bool
    # Until 6.2: with nx_huge_pages every table stays where a large page is possible.
    nx_keeps_tables: bool
    # 6.12: what a fault or the end of a log replaces is set to its last value at once.
    zaps_in_one_step: bool


class MmuPolicy(Struct, frozen=True):
    """One kernel. The comments name the patch of the series that changed a line (series NN)."""

    name: str
    # series 01: delete and move call the fast flow; 03: so does the wrap of the MMIO generation.
    delete_flow: ZapFlow
    wrap_flow: ZapFlow
    # Until series 03 the old flow leaves out pages without MMIO sptes there.
    wrap_mmio_only: bool
    # series 10: a u8 that toggles.
    generation: Generation
    # series 02: an invalid page counts as obsolete.
    invalid_is_obsolete: bool
    # series 06: pages zapped before a lock break is considered; 0: after every page.
    batch: int
    # 2021-11: every zapped page counts for the batch, not only those of an unstable walk.
    batch_counts_all: bool
    # series 01-06: what is zapped is freed, with a flush, before the lock is dropped.
    commit_on_break: bool
    # series 07: the reload is requested right after the generation changed.
    explicit_reload: bool
    # series 08: zapped pages wait on a list of the VM, which the shrinker frees first.
    vm_zapped_list: bool
    # series 09: zapping a rooted page asks for a reload only if it was not obsolete.
    reload_unless_obsolete: bool
    # series 11: the walk passes over invalid pages only if they are roots.
    skip_only_rooted: bool
    # 6.0: an invalid root leaves the list; before that it moves to the head.
    roots_leave_list: bool
    # 6.0: only roots that are obsolete are freed at a reload.
    reload_obsolete_only: bool
    # 5.7: recycling passes over roots and counts pages, not calls.
    recycle_skips_roots: bool
    # 5.8: the budget follows creation and deletion only.
    budget_on_every_change: bool
    # 5.14: every request for a remote flush is counted.
    counts_flush_requests: bool
    # 6.0: LOG_DIRTY flushes whether or not an spte lost its W.
    log_dirty_always_flushes: bool
    # 6.0: faults are counted by outcome; before that each one that got to an spte is `pf_fixed`.
    counts_by_outcome: bool
    # RET_PF_INVALID as a fast fault tells it (6.1, 6.12).
    ret_pf_invalid: int
    # 6.13: KVM no longer has a shrinker of shadow pages.
    has_shrinker: bool
    # 5.4: `kvm_mmu_set_spte` follows `mark_mmio_spte`.
    mmio_set_spte_event: bool
    # 6.12: slot-only zap while the quirk SLOT_ZAP_ALL is disabled.
    slot_zap_quirk: int
    quirks: int
    manual_dirty_caps: int
    get_nr_mmu_pages: bool
    user_mem_slots: int
    base_role: int
    spte: SpteBits
    # Where 19 bits of MMIO generation stand; 18 bits stand at the same place everywhere.
    mmio_19: MmioBits
    # 5.4; None: no such workaround.
    nx: NxRules | None = None
    # 5.10; None: no TDP MMU.
    tdp: TdpRules | None = None
    # 6.12: a fast fault records the whole error code, with the bits above 31.
    wide_fault_codes: bool = False
    # Whether guests run as a processor runs them: it walks their tables through those of KVM and
    # executes real mode. Not in older kernels, which were modelled before that.
    runs_guests: bool = False
    # 5.11: dirty pages can be logged in rings.
    dirty_rings: bool = False
    # Whether a fault on an MMIO spte asks the vCPU's cache of the last page first.
    asks_mmio_cache: bool = False
    # 6.2: KVM_SET_SREGS of another mode, CR3 or EFER asks for a TLB flush that is counted.
    sregs_flush: bool = True
    # 6.6: a guest whose CR3 is in no slot gets a root that maps nothing; else a triple fault.
    dummy_roots: bool = False

    def traced_code(self, error: int) -> int:
        """Return an error code as a fast fault records it."""
        return error if self.wide_fault_codes else error & (1 << 32) - 1

    def next_generation(self, valid_gen: int) -> int:
        """Return the generation after a fast zap.

        A kernel without generations zaps fast only if the knob `zap_flow` says so; then it counts
        up.
        """
        return valid_gen ^ 1 if self.generation is Generation.TOGGLE else valid_gen + 1


OLD_SPTE = SpteBits(host_writable=1 << 10, mmu_writable=1 << 11, mmu_present=0)
NEW_SPTE = SpteBits(host_writable=1 << 9, mmu_writable=1 << 10, mmu_present=1 << 11)

MMIO_19_OLD = MmioBits(low=(0, 9, 3), high=(9, 10, 52))
MMIO_18 = MmioBits(low=(0, 9, 3), high=(9, 9, 54))
MMIO_19_NEW = MmioBits(low=(0, 8, 3), high=(8, 11, 52))

_COMMON_ROLE = role.EFER_NX | role.CR0_WP

K5_3 = MmuPolicy(
    name="5.3",
    delete_flow=ZapFlow.ZAP_ALL,
    wrap_flow=ZapFlow.ZAP_ALL,
    wrap_mmio_only=True,
    generation=Generation.NONE,
    invalid_is_obsolete=False,
    batch=0,
    batch_counts_all=False,
    commit_on_break=False,
    explicit_reload=False,
    vm_zapped_list=False,
    reload_unless_obsolete=False,
    skip_only_rooted=True,
    roots_leave_list=False,
    reload_obsolete_only=False,
    recycle_skips_roots=False,
    budget_on_every_change=True,
    counts_flush_requests=False,
    log_dirty_always_flushes=False,
    counts_by_outcome=False,
    ret_pf_invalid=3,
    has_shrinker=True,
    mmio_set_spte_event=True,
    slot_zap_quirk=0,
    quirks=0,
    manual_dirty_caps=1,
    get_nr_mmu_pages=True,
    user_mem_slots=509,
    base_role=_COMMON_ROLE | role.PTE_SIZE,
    spte=OLD_SPTE,
    mmio_19=MMIO_19_OLD,
)
# What the series' letter calls a regression, reverted in 5.3.
K5_1 = replace(K5_3, name="5.1", delete_flow=ZapFlow.SLOT)
PATCHES = 11


def with_patches(name: str, patches: frozenset[int]) -> MmuPolicy:
    """Return 5.3 with these patches of the series; 04 and 05 are features of events only.

    Precondition: a patch is there with those that it needs.
    """
    policy = replace(K5_3, name=name)
    for patch in sorted(patches):
        policy = replace(policy, **_CHANGED.get(patch, {}))
    return policy


_CHANGED: dict[int, dict[str, Any]] = {
    1: {
        "delete_flow": ZapFlow.FAST,
        "generation": Generation.COUNTER,
        "commit_on_break": True,
        "skip_only_rooted": False,
    },
    2: {"invalid_is_obsolete": True},
    3: {"wrap_flow": ZapFlow.FAST, "wrap_mmio_only": False},
    6: {"batch": 10},
    7: {"commit_on_break": False, "explicit_reload": True},
    8: {"vm_zapped_list": True},
    9: {"reload_unless_obsolete": True},
    10: {"generation": Generation.TOGGLE},
    11: {"skip_only_rooted": True},
}
SERIES: tuple[MmuPolicy, ...] = tuple(
    with_patches(f"series-{count:02d}", frozenset(range(1, count + 1)))
    for count in range(1, PATCHES + 1)
)
K5_4 = replace(
    SERIES[-1],
    name="5.4",
    nx=NxRules(counts_all=True, period_by_ratio=False, spares_logged=False, may_be_off=False),
)
K5_4_STABLE = replace(K5_4, name="5.4-stable", batch_counts_all=True)
K6_1 = replace(
    K5_4_STABLE,
    name="6.1",
    roots_leave_list=True,
    reload_obsolete_only=True,
    recycle_skips_roots=True,
    budget_on_every_change=False,
    counts_flush_requests=True,
    log_dirty_always_flushes=True,
    counts_by_outcome=True,
    mmio_set_spte_event=False,
    quirks=0x7F,
    manual_dirty_caps=3,
    user_mem_slots=32764,
    base_role=_COMMON_ROLE,
    spte=NEW_SPTE,
    mmio_19=MMIO_19_NEW,
    nx=NxRules(counts_all=False, period_by_ratio=True, spares_logged=False, may_be_off=True),
    tdp=TdpRules(
        empty=0, zap_passes=(3, 4), write_splits=False, nx_keeps_tables=True, zaps_in_one_step=False
    ),
    sregs_flush=False,
    asks_mmio_cache=True,
    dirty_rings=True,
    runs_guests=True,
)
# 6.12.117, which has the quirk of the guest's PAT from a later kernel.
K6_12 = replace(
    K6_1,
    name="6.12",
    ret_pf_invalid=4,
    wide_fault_codes=True,
    slot_zap_quirk=1 << 7,
    quirks=0x2FF,
    get_nr_mmu_pages=False,
    nx=NxRules(counts_all=False, period_by_ratio=True, spares_logged=True, may_be_off=True),
    tdp=TdpRules(
        empty=1 << 63,
        zap_passes=(1, 2, 3, 4),
        write_splits=True,
        nx_keeps_tables=False,
        zaps_in_one_step=True,
    ),
    sregs_flush=True,
    dummy_roots=True,
)
K6_18 = replace(K6_12, name="6.18", vm_zapped_list=False, has_shrinker=False, quirks=0x3FF)

POLICIES: tuple[MmuPolicy, ...] = (K5_1, K5_3, *SERIES, K5_4, K5_4_STABLE, K6_1, K6_12, K6_18)
