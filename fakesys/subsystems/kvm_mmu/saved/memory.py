"""The memory of one VM in a snapshot."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from fakesys.core.errors import KernelError
from fakesys.core.saved import U63, Natural, Saved, check, refuse
from fakesys.subsystems.kvm.stats import VmStats
from fakesys.subsystems.kvm_mmu.saved.host import SavedHost, restore_host, save_host
from fakesys.subsystems.kvm_mmu.saved.links import SavedLinks, restore_links, save_links
from fakesys.subsystems.kvm_mmu.saved.packed import packed, rows_of
from fakesys.subsystems.kvm_mmu.saved.pages import SavedShadowPages, restore_pages, save_pages
from fakesys.subsystems.kvm_mmu.saved.slots import SavedSpace, restore_slots, save_slots
from fakesys.subsystems.kvm_mmu.saved.sptes import SavedSptes, restore_sptes, save_sptes
from fakesys.subsystems.kvm_mmu.saved.tdp import SavedTdp, restore_tdp, save_tdp
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.role import INVALID
from fakesys.subsystems.kvm_mmu.vm.dirty_rings import RING_ENTRY
from fakesys.subsystems.kvm_mmu.vm.memory import MIN_MMU_PAGES, VmMemory


class SavedShadow(Saved, frozen=True):
    """The shadow MMU. `nx_splits`: rows of the tables that replace a large page, oldest first.

    `n_max`, `n_requested`: the budget of pages. `seq`: changes of mappings by the host.
    """

    pages: SavedShadowPages
    sptes: SavedSptes
    links: SavedLinks
    nx_splits: bytes
    nx_on_host: bool
    nx_disabled: bool
    n_max: Natural
    n_requested: Natural
    seq: U63


class SavedVmMemory(Saved, frozen=True):
    """Host memory, slots, shadow MMU. `manual`: what KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 got."""

    host: SavedHost
    spaces: list[SavedSpace]
    shadow: SavedShadow
    manual: Natural
    disabled_quirks: Natural
    # None for a VM without the TDP MMU.
    tdp: SavedTdp | None
    children: Natural
    ring_entries: Natural


def save_memory(memory: VmMemory) -> SavedVmMemory:
    """Return what a snapshot holds of the memory of a VM, without its vCPUs."""
    return SavedVmMemory(
        host=save_host(memory.host),
        spaces=save_slots(memory.spaces),
        shadow=_save_shadow(memory),
        manual=memory.dirty.manual,
        disabled_quirks=memory.disabled_quirks,
        tdp=None if memory.tdp is None else save_tdp(memory.tdp.tables, memory.arch),
        children=memory.notifier.children,
        ring_entries=memory.dirty.ring_entries,
    )


def restore_memory(saved: SavedVmMemory, memory: VmMemory, *, zapping: bool = False) -> set[int]:
    """Fill a memory without slots; return the rows of its shadow pages.

    `zapping`: a zap of all pages is in its middle, which comes with a race. Raises
    BadSnapshotError. Call `check_roots` when its vCPUs are restored too.
    """
    restore_host(saved.host, memory.host)
    memory.notifier.children = saved.children
    if saved.ring_entries:
        fits = memory.rings.is_size(saved.ring_entries * RING_ENTRY)
        check(fits and memory.arch.policy.dirty_rings, "the entries of a ring of dirty pages")
        memory.dirty.ring_entries = saved.ring_entries
    rings = bool(saved.ring_entries)
    restore_slots(saved.spaces, memory.spaces, memory.host, rings=rings)
    try:
        memory.dirty.set_manual(saved.manual)
        if saved.disabled_quirks:
            memory.disable_quirks(saved.disabled_quirks)
    except KernelError as error:
        refuse(error.why)
    if saved.tdp is None or memory.tdp is None:
        check(saved.tdp is None and memory.tdp is None, "a TDP MMU where there can be none")
        return _restore_shadow(saved.shadow, memory, zapping)
    with _without_gauges(memory.arch.stats):
        check(not _restore_shadow(saved.shadow, memory, zapping), "shadow pages beside the TDP MMU")
    restore_tdp(saved.tdp, memory.tdp.tables, memory.arch)
    return set()


@contextmanager
def _without_gauges(stats: VmStats) -> Iterator[None]:
    """Let the shadow MMU find that it has no sptes, as it has none in a VM with the TDP MMU."""
    gauges = ("pages_4k", "pages_2m", "pages_1g", "largepages", "nx_lpage_splits")
    before = {name: getattr(stats, name) for name in gauges}
    for name in gauges:
        setattr(stats, name, 0)
    yield
    for name, value in before.items():
        setattr(stats, name, value)


def check_roots(arch: MmuArch, used: set[int], unfreed: Collection[int] = ()) -> None:
    """Refuse an invalid page that no vCPU has as a root. Raises BadSnapshotError.

    `unfreed`: rows of pages that were zapped.
    """
    pages = arch.pages
    for row in used.difference(unfreed):
        kept = pages.root_count[row] or not pages.role[row] & INVALID
        check(kept, f"shadow page {row} is invalid and no root")


def _save_shadow(memory: VmMemory) -> SavedShadow:
    arch = memory.arch
    return SavedShadow(
        pages=save_pages(arch.pages),
        sptes=save_sptes(arch),
        links=save_links(arch, memory.links),
        nx_splits=packed(array("i", arch.nx_splits if memory.tdp is None else ())),
        nx_on_host=arch.nx_on_host,
        nx_disabled=arch.nx_disabled,
        n_max=memory.roots.n_max,
        n_requested=memory.roots.n_requested,
        seq=arch.notifier_seq,
    )


def _restore_shadow(saved: SavedShadow, memory: VmMemory, zapping: bool) -> set[int]:
    arch, roots = memory.arch, memory.roots
    used = restore_pages(saved.pages, arch, memory.links, zapping=zapping)
    restore_sptes(saved.sptes, arch, used)
    restore_links(saved.links, arch, memory.links, used)
    splits = rows_of(saved.nx_splits, used, "tables that replace large pages")
    check(len(splits) == arch.stats.nx_lpage_splits, "the number of split large pages")
    check(not any(arch.pages.role[row] & INVALID for row in splits), "a split that is invalid")
    arch.nx_splits = dict.fromkeys(splits)
    arch.nx_on_host, arch.nx_disabled = saved.nx_on_host, saved.nx_disabled
    rules = arch.policy.nx
    check(not saved.nx_disabled or (rules is not None and rules.may_be_off), "nx_huge_pages")
    check(saved.n_requested == 0 or saved.n_requested >= MIN_MMU_PAGES, "the budget of pages")
    roots.n_max, roots.n_requested = saved.n_max, saved.n_requested
    arch.notifier_seq = saved.seq
    return used
