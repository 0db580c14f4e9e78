"""vCPUs fault while a memslot is deleted: who gets the lock when, in virtual nanoseconds.

The lock is a FIFO, as a queued spinlock is. A vCPU runs, faults, waits, holds the lock for its
fault and runs on. The zapper drops the lock where its flow lets it (mmu.c:kvm_mmu_zap_all and
kvm_zap_obsolete_pages call cond_resched_lock) and a vCPU waits; all that wait then go first.
Nothing depends on real time: the same seed gives the same numbers.
"""

from __future__ import annotations

from collections import deque
from errno import EINVAL, ENOENT
from random import Random

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.scheduling.resched import cond_resched, cond_resched_killable, might_resched
from fakesys.subsystems.kvm.stats import VcpuStats
from fakesys.subsystems.kvm_mmu.guest.bulk_access import BlockAccess
from fakesys.subsystems.kvm_mmu.mmu.zap import Flow, Step
from fakesys.subsystems.kvm_mmu.shadow.arch import Request
from fakesys.subsystems.kvm_mmu.shadow.policy import ZapFlow
from fakesys.subsystems.kvm_mmu.shadow.role import LEVEL_MASK
from fakesys.subsystems.kvm_mmu.shadow.vcpu import Paging, VcpuMmu
from fakesys.subsystems.kvm_mmu.slots.host import BLOCK_PAGES, PAGE, HostMemory
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

ACCESS_NS = 2_000
FAULT_NS = 3_000
NEW_PAGE_NS = 500
ZAP_NS = 400
ZAP_SPTE_NS = 4
SLICE_NS = 3_000_000
# 1 TiB in all working sets together.
MAX_PAGES = 1 << 28

# A number that no slot of a user can have.
_SCRATCH_SLOT = 1 << 20
_GIB_GFNS = 1 << 18


class RaceSetup(Struct, frozen=True):
    """What races: the slot that is deleted, and vCPUs with a working set of that many bytes each.

    `flow`: instead of the kernel's. Livelock is `max_rounds` drops of the lock, or `max_time_ns`.
    """

    slot: int
    vcpus: int = 4
    working_set: int = 64 << 20
    flow: ZapFlow | None = None
    seed: int = 1
    max_rounds: int = 100_000
    max_time_ns: int = 60_000_000_000


class RaceResult(Struct, frozen=True):
    """How a race ended. `added_during`: shadow pages made while the zap went on."""

    done: bool
    rounds: int
    zapped: int
    added_during: int
    vtime_ns: int

    @property
    def result(self) -> str:
        """The word `done` or `livelock`."""
        return "done" if self.done else "livelock"

    def words(self) -> str:
        """Return the result as the command answers it."""
        return (
            f"result={self.result} rounds={self.rounds} zapped={self.zapped}"
            f" added_during={self.added_during} vtime_ns={self.vtime_ns}"
        )


class Racer:
    """A vCPU that accesses its working set page after page, again and again."""

    def __init__(self, memory: VmMemory, number: int, first_gfn: int, npages: int) -> None:
        self._memory = memory
        self.mmu = VcpuMmu(number, VcpuStats(), Paging.TDP, in_guest=self._is_in_guest)
        self._blocks = BlockAccess(memory, self.mmu)
        self._first = first_gfn
        self._npages = npages
        self._next = 0
        self.ready_ns = 0
        # May something of the working set not be mapped? False: it does not fault.
        self.misses = False
        # Is it in the guest, not in a fault, and not just there for its pages?
        self.runs = False

    def _is_in_guest(self) -> bool:
        return self.runs

    def fill(self) -> None:
        """Map the whole working set."""
        self._memory.roots.enter(self.mmu)
        gfn, end = self._first, self._first + self._npages
        while gfn < end:
            cond_resched_killable()
            gfn += self._blocks.access(gfn, end - gfn, write=True)

    def start_at(self, page: int, ready_ns: int) -> None:
        """Set where in the working set it begins, and when."""
        self._next = page
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
            self._blocks.access(self._first + page, 1, write=True)
            self._next = (page + 1) % self._npages
        return self._memory.arch.stats.mmu_cache_miss - made

    def _next_missing(self) -> int | None:
        """Return the next page that is not mapped, or None."""
        page = self._next
        for _ in range(self._npages // BLOCK_PAGES + 2):
            gfn = self._first + page
            row, index, level = self._memory.shadow_walker.last(self.mmu, gfn << 12)
            if level > 1:
                return page
            absent = ~self._memory.arch.sptes.present(row) >> index
            ahead = (absent & -absent).bit_length() - 1
            if index + ahead < BLOCK_PAGES:
                return (page + ahead) % self._npages
            page = (page + BLOCK_PAGES - index) % self._npages
        return None


class Race:
    """One race. The VM has the scratch slot of the working sets only while it goes on."""

    def __init__(self, memory: VmMemory, setup: RaceSetup) -> None:
        self._memory = memory
        self._setup = setup
        self._now = 0
        self._accounted = (0, 0)
        self._slice_end = SLICE_NS
        self._waiting: deque[Racer] = deque()
        self._running: list[Racer] = []
        self._flow: Flow
        pages = max(BLOCK_PAGES, setup.working_set // PAGE & -BLOCK_PAGES)
        self._scratch = _scratch_slot(memory, pages * max(1, setup.vcpus))
        self._racers = [
            Racer(memory, number, self._scratch.base_gfn + number * pages, pages)
            for number in range(max(1, setup.vcpus))
        ]
        self._pages_each = pages

    def run(self, slot: Memslot) -> RaceResult:
        """Delete the slot while the vCPUs run.

        After a livelock the vCPUs are paused, so that the zap can complete.
        """
        with self._memory.arch.mmu_lock:
            return self._run(slot)

    def _run(self, slot: Memslot) -> RaceResult:
        memory, arch = self._memory, self._memory.arch
        memory.slots.insert(self._scratch)
        memory.roots.n_max += self._budget()
        arch.vcpus.extend(racer.mmu for racer in self._racers)
        try:
            self._fill()
        except KernelError:
            self._remove_racers()
            raise
        made = arch.stats.mmu_cache_miss
        flow = memory.begin_removal(slot, self._setup.flow or arch.delete_flow, self._break_wanted)
        assert flow is not None
        self._flow = flow
        flow.about_to_zap = self._about_to_zap
        try:
            done = self._contend()
            new_pages = arch.stats.mmu_cache_miss - made
            return RaceResult(done, flow.rounds, flow.zapped, new_pages, self._now)
        finally:
            self._complete_zap()
            self._remove_racers()
            memory.end_removal(slot, None)

    def _complete_zap(self) -> None:
        """Pause the vCPUs and let the zap go on to its end."""
        for racer in self._racers:
            racer.runs = False
        self._running.clear()
        self._waiting.clear()
        while not self._flow.finished:
            # With its old slice used up, a zap that asks before each page would never go on.
            self._slice_end = self._now + SLICE_NS
            cond_resched()
            self._flow.step()

    def _fill(self) -> None:
        random = Random(self._setup.seed)
        for racer in self._racers:
            racer.fill()
            racer.start_at(random.randrange(self._pages_each), random.randrange(ACCESS_NS))
            racer.runs = self._setup.vcpus > 0
        self._running = [racer for racer in self._racers if racer.runs]

    def _contend(self) -> bool:
        """Step the flow until it is done; return False for a livelock."""
        setup, flow = self._setup, self._flow
        while flow.step() is Step.LOCK_DROPPED:
            if flow.rounds >= setup.max_rounds or self._now >= setup.max_time_ns:
                return False
            cond_resched_killable()
            self._serve_waiting()
        self._advance_time()
        return True

    def _break_wanted(self) -> bool:
        """Return need_resched() or, in a preemptible kernel, whether a vCPU waits for the lock."""
        cond_resched()
        self._advance_time()
        if self._now >= self._slice_end:
            return True
        return self._memory.arch.knobs.preempt and bool(self._waiting)

    def _advance_time(self) -> None:
        """Advance the time by what was zapped since the last call; let faulting vCPUs queue up."""
        flow = self._flow
        zapped, cleared = self._accounted
        self._accounted = (flow.zapped, flow.sptes_cleared)
        self._now += (flow.zapped - zapped) * ZAP_NS
        self._now += (flow.sptes_cleared - cleared) * ZAP_SPTE_NS
        self._queue_contenders()

    def _about_to_zap(self, row: int) -> None:
        """Note which vCPUs have this page in their working set and will miss it."""
        pages = self._memory.arch.pages
        if pages.role[row] & LEVEL_MASK > 1:
            for racer in self._racers:
                racer.misses = True
            return
        owner = (pages.gfn[row] - self._scratch.base_gfn) // self._pages_each
        if 0 <= owner < len(self._racers):
            self._racers[owner].misses = True

    def _queue_contenders(self) -> None:
        ready = [racer for racer in self._running if racer.wants_lock(self._now)]
        if not ready:
            return
        ready.sort(key=lambda racer: (racer.ready_ns, racer.mmu.id))
        for racer in ready:
            racer.runs = False
        self._waiting.extend(ready)
        self._running = [racer for racer in self._running if racer not in ready]

    def _serve_waiting(self) -> None:
        """Let those that wait now have the lock before the zapper gets it again."""
        queue, self._waiting = self._waiting, deque()
        for racer in queue:
            made = racer.run_under_lock()
            if made >= 0:
                self._now += FAULT_NS + NEW_PAGE_NS * made
            racer.ready_ns = self._now + ACCESS_NS
            racer.runs = True
            self._running.append(racer)
        self._slice_end = self._now + SLICE_NS
        self._queue_contenders()

    def _remove_racers(self) -> None:
        """Remove the working sets and what they mapped."""
        arch = self._memory.arch
        for racer in self._racers:
            self._memory.roots.free(racer.mmu)
        arch.vcpus = [vcpu for vcpu in arch.vcpus if vcpu not in self._mmus()]
        self._zap_leftovers()
        self._memory.slots.remove(self._scratch)
        self._memory.roots.n_max -= self._budget()

    def _budget(self) -> int:
        """Return the shadow pages of all working sets, twice: the old ones count for a while."""
        return 4 * (self._scratch.npages // BLOCK_PAGES + 64)

    def _zap_leftovers(self) -> None:
        pages = self._memory.arch.pages
        first, zapped = self._scratch.base_gfn, list[int]()
        for row in list(pages.oldest_first()):
            cond_resched()
            if first <= pages.gfn[row] < self._scratch.end_gfn and not pages.root_count[row]:
                self._memory.zapper.prepare(row, zapped)
        self._memory.zapper.commit(zapped)

    def _mmus(self) -> list[VcpuMmu]:
        return [racer.mmu for racer in self._racers]


def race(memory: VmMemory, setup: RaceSetup) -> RaceResult:
    """Delete a slot while vCPUs fault; after a signal the slot is deleted all the same.

    Raises ENOENT without such a slot, EINVAL for a number that no slot can have, for a VM with the
    TDP MMU, and for working sets of more than 1 TiB together, EINTR after a signal.
    """
    if memory.tdp is not None:
        raise KernelError(EINVAL, "with the TDP MMU nothing keeps a zap from ending")
    slot = memory.spaces.slot(setup.slot)
    if slot is None:
        raise KernelError(ENOENT, f"there is no slot {setup.slot}")
    if max(1, setup.vcpus) * setup.working_set > MAX_PAGES * PAGE:
        raise KernelError(EINVAL, "the working sets have more than 1 TiB together")
    might_resched()
    return Race(memory, setup).run(slot)


def _scratch_slot(memory: VmMemory, npages: int) -> Memslot:
    """Return guest memory above all slots that belongs to the race alone."""
    above = max((slot.end_gfn for slot in memory.slots.in_order), default=0)
    base = -(-above // _GIB_GFNS) * _GIB_GFNS
    backing = HostMemory("race", npages * PAGE, thp=False, hva=0, pfn=0)
    return Memslot(_SCRATCH_SLOT, 0, base, npages, 0, 0, backing)
