"""The memory of one VM: its parts, and the ioctls that concern it."""

from __future__ import annotations

from collections.abc import Callable
from errno import EBUSY, EINVAL, ENOTTY
from typing import NamedTuple

from fakesys.core.errors import KernelError
from fakesys.core.events import Bus
from fakesys.subsystems.kvm.stats import VcpuStats, VmStats
from fakesys.subsystems.kvm_mmu.mmu.direct_map import DirectMap
from fakesys.subsystems.kvm_mmu.mmu.faultin import HostFaults
from fakesys.subsystems.kvm_mmu.mmu.faults import PageFaults
from fakesys.subsystems.kvm_mmu.mmu.flows import FLOWS, ZapMmio, ZapSlot
from fakesys.subsystems.kvm_mmu.mmu.get_page import PageFinder
from fakesys.subsystems.kvm_mmu.mmu.guest_walker import GuestWalker
from fakesys.subsystems.kvm_mmu.mmu.mmio import Mmio
from fakesys.subsystems.kvm_mmu.mmu.prefetch import Prefetch
from fakesys.subsystems.kvm_mmu.mmu.pte_write import PteWriter
from fakesys.subsystems.kvm_mmu.mmu.roots import Roots
from fakesys.subsystems.kvm_mmu.mmu.set_spte import SpteSetter
from fakesys.subsystems.kvm_mmu.mmu.sync_page import PageSyncer
from fakesys.subsystems.kvm_mmu.mmu.zap import Flow, Zapper, lock_uncontended
from fakesys.subsystems.kvm_mmu.shadow.arch import Knobs, MmuArch
from fakesys.subsystems.kvm_mmu.shadow.links import ShadowLinks
from fakesys.subsystems.kvm_mmu.shadow.policy import MmuPolicy, ZapFlow
from fakesys.subsystems.kvm_mmu.shadow.vcpu import Paging, VcpuMmu, never_in_guest
from fakesys.subsystems.kvm_mmu.shadow.walk import ShadowWalker
from fakesys.subsystems.kvm_mmu.slots.guest_memory import GuestMemory
from fakesys.subsystems.kvm_mmu.slots.host import PAGE, HostMemory, HostSpace
from fakesys.subsystems.kvm_mmu.slots.memslots import (
    UPDATE_IN_PROGRESS,
    AddressSpaces,
    Change,
    Memslot,
    Region,
)
from fakesys.subsystems.kvm_mmu.tdp.mmu import TdpMmu
from fakesys.subsystems.kvm_mmu.tdp.roots import TdpRoots
from fakesys.subsystems.kvm_mmu.vm.dirty_log import CAP_MANUAL_PROTECT, DirtyLog
from fakesys.subsystems.kvm_mmu.vm.dirty_rings import CAP_DIRTY_RING, DirtyRings
from fakesys.subsystems.kvm_mmu.vm.mmu_notifier import MmuNotifier
from fakesys.subsystems.kvm_mmu.vm.tables import Faults, Walker

# KVM_MIN_ALLOC_MMU_PAGES; one shadow page per 50 pages of guest memory.
MIN_MMU_PAGES = 64
PAGES_PER_SHADOW_PAGE = 50
# Guest physical bits that tables of four levels map, and those of a shadowed guest.
TDP_BITS = 48
SHADOW_BITS = 52
CAP_DISABLE_QUIRKS2 = 213
# Memory with more shadow pages, or slots of more pages, is worked on in slices.
FEW_PAGES = 256
FEW_GFNS = 1 << 20
CAP_DISABLE_NX_HUGE_PAGES = 220


class Zapped(NamedTuple):
    """Cost of deleting or moving a slot: pages zapped, drops of the lock."""

    pages: int
    rounds: int


class VmMemory:
    """Memslots, shadow pages and translations of one VM.

    It makes every part and hands each what it needs; no part knows the VmMemory. Guest code and
    commands go through it:

        memory = VmMemory(Bus(), K6_1, Knobs(), VmStats())
        ram = memory.host.add("ram", 2 << 20)
        memory.set_region(Region(0, 0, 0, ram.size, ram.hva))
        vcpu = memory.add_vcpu(0, VcpuStats())
        memory.roots.enter(vcpu)
        memory.faults.page_fault(vcpu, 0x1000, PF_WRITE)
    """

    def __init__(self, bus: Bus, policy: MmuPolicy, knobs: Knobs, stats: VmStats) -> None:
        self.host = HostSpace()
        self.spaces = AddressSpaces(
            self.host,
            as_num=knobs.as_num,
            user_mem_slots=policy.user_mem_slots,
            physical_bits=TDP_BITS if knobs.tdp else SHADOW_BITS,
            start=knobs.wrap_gen,
        )
        self.slots = self.spaces.memslots[0]
        self._guest_memories = [GuestMemory(space) for space in self.spaces.memslots]
        self.guest_memory = self._guest_memories[0]
        arch = self.arch = MmuArch(bus, policy, knobs, stats)
        links = self.links = ShadowLinks(arch)
        self.guest_walker = GuestWalker(bus, self.guest_memory)
        self.mmio = Mmio(arch, self.spaces)
        self.setter = SpteSetter(arch, links, self.spaces)
        self.zapper = Zapper(arch, links)
        syncer = PageSyncer(arch, self.guest_memory)
        self.finder = PageFinder(arch, links, self.zapper, syncer)
        self.notifier = MmuNotifier(arch, self.spaces)
        host = HostFaults(self.notifier.copy_page)
        self.shadow_walker = ShadowWalker(arch, links)
        roots = TdpRoots if knobs.tdp_mmu else Roots
        self.roots = roots(arch, links, self.zapper, syncer, self.finder, self.spaces)
        self.direct_map = DirectMap(arch, links, self.finder, self.roots, self.shadow_walker)
        self.walker: Walker = self.shadow_walker
        self.faults: Faults = PageFaults(
            arch,
            links,
            self.spaces,
            shadow_walker=self.shadow_walker,
            guest_walker=self.guest_walker,
            finder=self.finder,
            roots=self.roots,
            direct_map=self.direct_map,
            setter=self.setter,
            prefetch=Prefetch(arch, self.spaces, self.guest_memory, self.setter),
            mmio=self.mmio,
            host=host,
        )
        self.tdp = self._tdp_mmu(host)
        self.pte_writer = PteWriter(arch, links, self.zapper)
        self.dirty = DirtyLog(arch, self.spaces, self.tdp)
        self.rings = DirtyRings(arch, self.dirty)
        self.vcpus: dict[int, VcpuMmu] = {}
        self.disabled_quirks = 0
        # While a deletion of a slot is paused: brings it to its end.
        self.ends_removal: Callable[[], object] | None = None

    def _tdp_mmu(self, host: HostFaults) -> TdpMmu | None:
        """Put the TDP MMU in the place of the shadow MMU, if the VM has it."""
        rules = self.arch.policy.tdp
        if not isinstance(self.roots, TdpRoots) or rules is None:
            return None
        tdp = TdpMmu(self.arch, self.spaces, rules, self.mmio, host)
        self.roots.attach(tdp.tables, tdp.changes)
        self.walker, self.faults = tdp.walker, tdp.faults
        self.notifier.also_unmaps(tdp.zapper)
        return tdp

    def add_vcpu(
        self, vcpu_id: int, stats: VcpuStats, in_guest: Callable[[], bool] = never_in_guest
    ) -> VcpuMmu:
        """Add a vCPU without roots. `in_guest`: tells whether it runs the guest now."""
        paging = Paging.TDP if self.arch.knobs.tdp else Paging.NONE
        vcpu = VcpuMmu(vcpu_id, stats, paging, in_guest=in_guest)
        self.rings.add(vcpu)
        self.vcpus[vcpu_id] = vcpu
        self.arch.vcpus.append(vcpu)
        return vcpu

    def require_slots(self) -> None:
        """Refuse an ioctl that takes slots_lock while a deletion of a slot is paused: EBUSY.

        Differs: the kernel lets it wait.
        """
        if self.ends_removal is not None:
            raise KernelError(EBUSY, "the deletion of a memslot is paused")

    def lock_slots(self) -> None:
        """Take slots_lock for KVM itself: a deletion of a slot that is paused ends first."""
        if self.ends_removal is not None:
            self.ends_removal()

    def set_region(self, region: Region) -> Zapped | None:
        """Create, change, move or delete a slot: KVM_SET_USER_MEMORY_REGION.

        Return what a deletion or move cost. Raises EINVAL and EEXIST as `AddressSpaces.check` does.
        Like kvm_main.c:kvm_set_memslot (v6.1), __kvm_set_memory_region (v5.4).
        """
        with self.arch.mmu_lock:
            return self._set_region(region)

    def _set_region(self, region: Region) -> Zapped | None:
        change = self.spaces.check(region)
        old = self.spaces.slot(region.slot)
        if change is Change.CREATE:
            self._create(region)
        elif change is Change.FLAGS_ONLY:
            assert old is not None
            self._change_flags(old, region.flags)
        elif change in (Change.DELETE, Change.MOVE):
            assert old is not None
            return self._delete(old, region if change is Change.MOVE else None)
        return None

    def _delete(self, slot: Memslot, moved_to: Region | None = None) -> Zapped:
        flow = self.begin_removal(slot)
        flow.step()
        self.end_removal(slot, moved_to)
        return Zapped(flow.zapped, flow.rounds)

    def set_private_slot(self, slot_id: int, gpa: int, *, present: bool) -> int:
        """Add or remove a page of KVM's own in every address space.

        Return how many updates that took, 0 where a slot of the owner lies there. Like
        x86.c:__x86_set_memory_region (v6.1).
        """
        self.lock_slots()
        spaces = self.spaces.memslots
        if present and any(space.overlap(slot_id, gpa // PAGE, 1) for space in spaces):
            return 0
        page = self.host.private_page()
        with self.arch.mmu_lock:
            for as_id, space in enumerate(spaces):
                if present:
                    self._create(Region(as_id << 16 | slot_id, 0, gpa, PAGE, page.hva))
                else:
                    self._delete(space.by_id[slot_id])
        return len(spaces)

    def has_private_slot(self, slot_id: int) -> bool:
        """Return whether every address space has a slot of this id with KVM's own page."""
        slots = [space.by_id.get(slot_id) for space in self.spaces.memslots]
        page = self.host.private
        return page is not None and all(slot and slot.memory is page for slot in slots)

    def guest_memory_of(self, vcpu: VcpuMmu) -> GuestMemory:
        """Return the memory that a vCPU sees: in SMM that of another address space."""
        return self._guest_memories[vcpu.as_id]

    def touch(self, gpa: int) -> None:
        """Write a page of the guest's memory as its owner, whatever is written."""
        slot = self.slots.find(gpa >> 12)
        if slot is not None and slot.memory is not None and slot.backed(gpa >> 12):
            self.write_host(slot.memory, slot.page(gpa >> 12) << 12, b"")

    def write_host(self, memory: HostMemory, offset: int, data: bytes) -> None:
        """Write to host memory as its owner: pages that are shared are copied. Raises EINVAL."""
        for page in range(offset // PAGE, (offset + max(len(data), 1) - 1) // PAGE + 1):
            if page < memory.npages and not memory.is_writable(page):
                self.notifier.copy_page(memory, page)
        memory.write(offset, data)

    @property
    def takes_long(self) -> bool:
        """Whether what concerns all pages or slots is done in slices."""
        return self.arch.pages.used > FEW_PAGES or self.spaces.npages > FEW_GFNS

    def has_slot_at(self, gpa: int) -> bool:
        """Return whether there is guest memory at this address."""
        return any(space.find(gpa // PAGE) is not None for space in self.spaces.memslots)

    def zap_gfn_range(self, start: int, end: int) -> None:
        """Drop what is mapped at these gfns. Like mmu.c:kvm_zap_gfn_range (v6.1)."""
        self.arch.notifier_seq += 1
        with self.arch.mmu_lock:
            dropped = False
            for as_id in range(self.spaces.as_num):
                dropped |= self.arch.sptes.drop_range(start, end - start, as_id) > 0
                if self.tdp is not None:
                    dropped |= self.tdp.zapper.unmap(as_id, start, end - start)
            if dropped:
                self.arch.flush_remote_tlbs()

    def begin_removal(
        self,
        slot: Memslot,
        flow: ZapFlow | None = None,
        break_wanted: Callable[[], bool] = lock_uncontended,
    ) -> Flow:
        """Make a slot invalid and begin to zap.

        `flow`: instead of the kernel's. The caller steps the flow until it is done, then calls
        `end_removal`.
        """
        slot.invalid = True
        self._install(slot.as_id)
        if flow is None:
            alone = self.disabled_quirks & self.arch.policy.slot_zap_quirk
            flow = ZapFlow.SLOT if alone else self.arch.delete_flow
        zap = self.flow(flow, break_wanted, slot)
        zap.begin()
        return zap

    def end_removal(self, slot: Memslot, moved_to: Region | None) -> None:
        """Remove the slot, or insert it at its new place.

        Precondition: the flow that `begin_removal` returned is finished.
        """
        space = self.spaces.memslots[slot.as_id]
        space.remove(slot)
        if moved_to is not None:
            slot.invalid = False
            slot.base_gfn = moved_to.guest_phys_addr >> 12
            slot.flags = moved_to.flags
            self.dirty.prepare(slot)
            space.insert(slot)
        self._install(slot.as_id)
        self._set_budget(Change.DELETE if moved_to is None else Change.MOVE)

    def begin_zap(self, flow: ZapFlow, break_wanted: Callable[[], bool] = lock_uncontended) -> Flow:
        """Begin to zap everything; the caller steps the flow until it is done."""
        zap = self.flow(flow, break_wanted)
        zap.begin()
        return zap

    def flow(
        self,
        flow: ZapFlow,
        break_wanted: Callable[[], bool] = lock_uncontended,
        slot: Memslot | None = None,
    ) -> Flow:
        """Return a zap that has not begun: of everything, or of what `slot` has."""
        if self.tdp is not None:
            return self.tdp.flow(flow, self.zapper, break_wanted, slot)
        if flow is not ZapFlow.SLOT:
            return FLOWS[flow](self.arch, self.zapper, break_wanted)
        assert slot is not None
        newer = self.arch.policy.slot_zap_quirk != 0
        return ZapSlot(self.arch, self.zapper, break_wanted, slot, shadowing_only=newer)

    def set_nr_mmu_pages(self, number: int) -> None:
        """Set the budget of shadow pages: KVM_SET_NR_MMU_PAGES. Raises EINVAL below 64."""
        if number < MIN_MMU_PAGES:
            raise KernelError(EINVAL, f"{number} shadow pages are fewer than {MIN_MMU_PAGES}")
        self.roots.change_budget(number)
        self.roots.n_requested = number

    def get_nr_mmu_pages(self) -> int:
        """Return the budget: KVM_GET_NR_MMU_PAGES. Raises ENOTTY if it was removed."""
        if not self.arch.policy.get_nr_mmu_pages:
            raise KernelError(ENOTTY, "this kernel has no KVM_GET_NR_MMU_PAGES")
        return self.roots.n_max

    def enable_cap(self, number: int, argument: int) -> None:
        """Do KVM_ENABLE_CAP. Raises EINVAL for a capability that does not concern memory."""
        if number == CAP_MANUAL_PROTECT:
            self.dirty.set_manual(argument)
        elif number == CAP_DIRTY_RING:
            self.rings.enable(argument, self.vcpus.values())
        elif number == CAP_DISABLE_QUIRKS2:
            self.disable_quirks(argument)
        elif number == CAP_DISABLE_NX_HUGE_PAGES:
            self.disable_nx_huge_pages(argument)
        else:
            raise KernelError(EINVAL, f"capability {number} cannot be enabled")

    def disable_quirks(self, mask: int) -> None:
        """Disable quirks: KVM_CAP_DISABLE_QUIRKS2. Raises EINVAL for one that the kernel lacks."""
        unknown = mask & ~self.arch.policy.quirks
        if unknown or not self.arch.policy.quirks:
            raise KernelError(EINVAL, f"no such quirks: {unknown:#x}")
        self.disabled_quirks |= mask

    def disable_nx_huge_pages(self, argument: int) -> None:
        """Exempt this VM from nx_huge_pages: KVM_CAP_VM_DISABLE_NX_HUGE_PAGES.

        Raises EINVAL once the VM has a vCPU, for an argument, and where the kernel lacks the
        capability.
        """
        rules = self.arch.policy.nx
        if argument or self.vcpus or rules is None or not rules.may_be_off:
            raise KernelError(EINVAL, "only before the first vCPU, with 0, in kernels that have it")
        self.arch.nx_disabled = True

    def destroy(self) -> None:
        """Zap all pages and free the roots of all vCPUs.

        Like mmu.c:kvm_mmu_zap_all, kvm_mmu_unload.
        """
        with self.arch.mmu_lock:
            self.begin_zap(ZapFlow.ZAP_ALL).step()
            for vcpu in self.vcpus.values():
                self.roots.free(vcpu)

    def _create(self, region: Region) -> None:
        slot = self.spaces.new_slot(region)
        self.dirty.prepare(slot)
        self.spaces.memslots[slot.as_id].insert(slot)
        self._install(slot.as_id)
        self._set_budget(Change.CREATE)

    def _change_flags(self, slot: Memslot, flags: int) -> None:
        slot.flags = flags
        self.dirty.prepare(slot)
        self._install(slot.as_id)
        self._set_budget(Change.FLAGS_ONLY)
        self.dirty.commit(slot)

    def _install(self, as_id: int) -> None:
        """Publish slots under a new generation. Like kvm_main.c:kvm_swap_active_memslots."""
        space = self.spaces.memslots[as_id]
        generation = space.generation
        space.generation = generation | UPDATE_IN_PROGRESS
        space.generation = generation + self.spaces.as_num
        self.mmio.invalidate(space.generation, self.spaces.as_num, self._zap_for_wrap)

    def _zap_for_wrap(self) -> None:
        if self.arch.wraps_mmio_only:
            ZapMmio(self.arch, self.zapper).step()
        else:
            self.begin_zap(self.arch.wrap_flow).step()

    def _set_budget(self, change: Change) -> None:
        if self.roots.n_requested:
            return
        if change in (Change.CREATE, Change.DELETE) or self.arch.policy.budget_on_every_change:
            wanted = self.spaces.npages // PAGES_PER_SHADOW_PAGE
            self.roots.change_budget(max(MIN_MMU_PAGES, wanted))
