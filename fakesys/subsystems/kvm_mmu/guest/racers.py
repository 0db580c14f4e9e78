"""The vCPUs of a race: each accesses its working set, which is mapped as those of the VM are.

The working sets lie in a slot of their own above all others. With nested paging a racer faults at
guest physical addresses. With shadow paging it has page tables of its own behind its working set;
before the race it has written to them, as a guest that has just mapped its memory, so that KVM has
let them go out of sync.
"""

from __future__ import annotations

import struct
from errno import EINVAL
from typing import NamedTuple

from fakesys.core.errors import KernelError
from fakesys.core.scheduling.resched import cond_resched, cond_resched_killable
from fakesys.subsystems.kvm.stats import VcpuStats
from fakesys.subsystems.kvm_mmu.guest.bulk_access import BlockAccess
from fakesys.subsystems.kvm_mmu.shadow.arch import Request
from fakesys.subsystems.kvm_mmu.shadow.vcpu import Paging, VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.walk import PF_USER, PF_WRITE
from fakesys.subsystems.kvm_mmu.slots.host import BLOCK_PAGES, PAGE, HostMemory
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

# A number that no slot of a user can have.
SCRATCH_SLOT = 1 << 20
_GIB_GFNS = 1 << 18
# P, RW, US, A, D: a walk changes nothing in the tables.
_ENTRY = 0x67


class Area(NamedTuple):
    """Where the racers have their memory. `pages`: of a working set; `stride`: with its tables."""

    slot: Memslot
    pages: int
    stride: int

    def first(self, number: int) -> int:
        """Return the first gfn of a racer."""
        return self.slot.base_gfn + number * self.stride

    def owner(self, gfn: int) -> int:
        """Return whose gfn it is; not the number of a racer where it is nobody's."""
        return (gfn - self.slot.base_gfn) // self.stride


def area_above(memory: VmMemory, racers: int, working_set: int) -> Area:
    """Return memory for so many racers above all slots; its slot is not inserted.

    Raises EINVAL where there is no room.
    """
    pages = max(BLOCK_PAGES, working_set // PAGE & -BLOCK_PAGES)
    stride = pages if memory.arch.knobs.tdp else pages + _table_blocks(pages) * BLOCK_PAGES
    others = (slot for slot in memory.slots.in_order if slot.id != SCRATCH_SLOT)
    above = max((slot.end_gfn for slot in others), default=0)
    base = -(-above // _GIB_GFNS) * _GIB_GFNS
    npages = stride * racers
    if base + npages > memory.spaces.end_gfn:
        raise KernelError(EINVAL, "there is no room for the working sets above the slots")
    backing = HostMemory("race", npages * PAGE, thp=False, hva=0, pfn=0)
    area = Area(Memslot(SCRATCH_SLOT, 0, base, npages, 0, 0, backing), pages, stride)
    if not memory.arch.knobs.tdp:
        for number in range(racers):
            _write_tables(area, number)
    return area


def _counts(blocks: int) -> tuple[int, int, int, int]:
    """Return how many tables of level 1 to 4 map so many blocks of 2 MiB."""
    directories = -(-blocks // 512)
    return blocks, directories, -(-directories // 512), 1


def _table_blocks(pages: int) -> int:
    """Return how many blocks the tables of a working set take, which map themselves too."""
    blocks = 1
    while sum(_counts(pages // BLOCK_PAGES + blocks)) > blocks * BLOCK_PAGES:
        blocks += 1
    return blocks


def _write_tables(area: Area, number: int) -> None:
    """Map a racer's memory from address 0 on: its working set, then its tables.

    The tables begin with those of level 1, as many as there are blocks.
    """
    backing, first = area.slot.memory, area.first(number)
    assert backing is not None
    at = first + area.pages
    below, counts = first, _counts(area.stride // BLOCK_PAGES)
    left = area.stride
    for count in counts:
        for table in range(count):
            cond_resched()
            entries = min(512, left - table * 512)
            start = below + table * 512
            words = [(start + entry) << 12 | _ENTRY for entry in range(entries)]
            data = struct.pack(f"<{entries}Q", *words)
            backing.write(at + table - area.slot.base_gfn << 12, data)
        below, at, left = at, at + count, count


class Racer:
    """A vCPU that accesses its working set page after page, again and again."""

    paging = Paging.TDP

    def __init__(self, memory: VmMemory, number: int, area: Area) -> None:
        self._memory = memory
        self.mmu = VcpuMmu(number, VcpuStats(), self.paging, in_guest=self._is_in_guest)
        self._first = area.first(number)
        self._npages = area.pages
        # The page that it accesses next.
        self.next = 0
        self.ready_ns = 0
        # May something of the working set not be mapped? False: it does not fault.
        self.misses = False
        # Is it in the guest, not in a fault, and not just there for its pages?
        self.runs = False

    def _is_in_guest(self) -> bool:
        return self.runs

    def fill(self) -> None:
        """Map the whole working set."""
        raise NotImplementedError

    def _address(self, page: int) -> int:
        """Return the address of a page of the working set."""
        raise NotImplementedError

    def _access(self, page: int) -> None:
        """Handle the fault at a page."""
        raise NotImplementedError

    def start_at(self, page: int, ready_ns: int) -> None:
        """Set where in the working set it begins, and when."""
        self.next = page
        self.ready_ns = ready_ns

    def wants_lock(self, now: int) -> bool:
        """Return whether an access that faults, or a request that needs the lock, is due."""
        if self.ready_ns > now:
            return False
        return self.misses or bool(self.mmu.requests & Request.RELOAD)

    def run_under_lock(self) -> int:
        """Do what it needs the lock for: load roots, or handle a fault.

        Return the number of shadow pages made, -1 if nothing faulted after all.
        """
        made = self._memory.arch.stats.mmu_cache_miss
        if self.mmu.requests & Request.RELOAD or not self.mmu.roots:
            self._memory.roots.enter(self.mmu)
        else:
            self.mmu.requests = Request.NONE
            page = self._next_missing()
            if page is None:
                self.misses = False
                return -1
            self._access(page)
            self.next = (page + 1) % self._npages
        return self._memory.arch.stats.mmu_cache_miss - made

    def look(self) -> None:
        """Find out whether something of the working set is missing: others may have zapped it."""
        if not self.misses and self.mmu.roots:
            self.misses = self._next_missing() is not None

    def _next_missing(self) -> int | None:
        """Return the next page that is not mapped, or None."""
        page = self.next
        for _ in range(self._npages // BLOCK_PAGES + 2):
            row, index, level = self._memory.shadow_walker.last(self.mmu, self._address(page))
            if level > 1:
                return page
            absent = ~self._memory.arch.sptes.present(row) >> index
            ahead = (absent & -absent).bit_length() - 1
            if index + ahead < BLOCK_PAGES:
                return (page + ahead) % self._npages
            page = (page + BLOCK_PAGES - index) % self._npages
        return None


class TdpRacer(Racer):
    """A racer with nested paging."""

    def __init__(self, memory: VmMemory, number: int, area: Area) -> None:
        super().__init__(memory, number, area)
        self._blocks = BlockAccess(memory, self.mmu)

    def fill(self) -> None:
        """Map the whole working set."""
        self._memory.roots.enter(self.mmu)
        gfn, end = self._first, self._first + self._npages
        while gfn < end:
            cond_resched_killable()
            gfn += self._blocks.access(gfn, end - gfn, write=True)

    def _address(self, page: int) -> int:
        return self._first + page << 12

    def _access(self, page: int) -> None:
        self._blocks.access(self._first + page, 1, write=True)


class ShadowRacer(Racer):
    """A racer with shadow paging, which has tables of its own."""

    paging = Paging.LONG

    def __init__(self, memory: VmMemory, number: int, area: Area) -> None:
        super().__init__(memory, number, area)
        self._tables = _counts(area.stride // BLOCK_PAGES)
        self.mmu.cr3 = self._first + self._npages + sum(self._tables) - 1 << 12

    def fill(self) -> None:
        """Map the whole working set, then write to each table of level 1."""
        self._memory.roots.enter(self.mmu)
        while (page := self._next_missing()) is not None:
            cond_resched_killable()
            self._access(page)
            self.next = page
        for table in range(self._tables[0]):
            cond_resched_killable()
            self._access(self._npages + table)

    def _address(self, page: int) -> int:
        return page << 12

    def _access(self, page: int) -> None:
        address, kind = page << 12, PF_WRITE | PF_USER
        walker = self._memory.shadow_walker
        if not walker.allows(self.mmu, address, kind):
            self._memory.faults.page_fault(
                self.mmu, address, walker.error_code(self.mmu, address, kind)
            )
