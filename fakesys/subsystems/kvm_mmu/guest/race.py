"""vCPUs fault while a memslot is deleted: who gets the lock when, in virtual nanoseconds.

The lock is a FIFO, as a queued spinlock is. A vCPU runs, faults, waits, holds the lock for its
fault and runs on. The zapper drops the lock where its flow lets it (mmu.c:kvm_mmu_zap_all and
kvm_zap_obsolete_pages call cond_resched_lock) and a vCPU waits; all that wait then go first.
Nothing depends on real time: the same seed gives the same numbers.

A race may be paused at a drop of the lock. Everything is then in the middle, the slot is invalid,
and what needs the memslots has to wait; see `VmMemory.require_slots`.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from errno import EINVAL, ENOENT
from random import Random

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.scheduling.resched import cond_resched, cond_resched_killable, might_resched
from fakesys.subsystems.kvm_mmu.guest.racers import (
    Area,
    Racer,
    ShadowRacer,
    TdpRacer,
    area_above,
)
from fakesys.subsystems.kvm_mmu.guest.repetition import Repetition
from fakesys.subsystems.kvm_mmu.mmu.zap import Flow, Step
from fakesys.subsystems.kvm_mmu.shadow.policy import ZapFlow
from fakesys.subsystems.kvm_mmu.shadow.role import LEVEL_MASK
from fakesys.subsystems.kvm_mmu.slots.host import BLOCK_PAGES, PAGE
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

ACCESS_NS = 2_000
FAULT_NS = 3_000
NEW_PAGE_NS = 500
ZAP_NS = 400
ZAP_SPTE_NS = 4
SLICE_NS = 3_000_000
# Of all working sets together: 1 TiB; with shadow paging, where guests have tables, 4 GiB.
MAX_PAGES = 1 << 28
MAX_SHADOW_PAGES = 1 << 20


class RaceSetup(Struct, frozen=True):
    """What races: the slot that is deleted, and vCPUs with a working set of that many bytes each.

    `flow`: instead of the kernel's. After `max_rounds` drops of the lock, or `max_time_ns`, the
    race is given up.
    """

    slot: int
    vcpus: int = 4
    working_set: int = 64 << 20
    flow: ZapFlow | None = None
    seed: int = 1
    max_rounds: int = 100_000
    max_time_ns: int = 60_000_000_000


class Ending(Enum):
    """How a race ended, or that it has not."""

    # Nothing was left to zap.
    DONE = "done"
    # It never ends, as a state has come back.
    LIVELOCK = "livelock"
    # Given up; it might have ended later, or never.
    UNDECIDED = "undecided"
    PAUSED = "paused"
    # Its vCPUs were stopped while it was paused, so that the zap could complete.
    STOPPED = "stopped"


class RaceResult(Struct, frozen=True):
    """How a race ended. `added_during`: shadow pages made while the zap went on.

    `cycle`: after how many drops of the lock the same state comes back, in a livelock.
    """

    ending: Ending
    rounds: int
    zapped: int
    added_during: int
    vtime_ns: int
    cycle: int = 0

    @property
    def result(self) -> str:
        """The word for how it ended."""
        return self.ending.value

    @property
    def done(self) -> bool:
        """Whether the zap came to its end while the vCPUs ran."""
        return self.ending is Ending.DONE

    def words(self) -> str:
        """Return the result as the command answers it."""
        cycle = f" cycle={self.cycle}" if self.cycle else ""
        return (
            f"result={self.result}{cycle} rounds={self.rounds} zapped={self.zapped}"
            f" added_during={self.added_during} vtime_ns={self.vtime_ns}"
        )


class Race:
    """One race. The VM has the scratch slot of the working sets only while it goes on.

    Call `start`, then `go_on` until its result is not PAUSED, or `stop`:

        race = Race(memory, RaceSetup(slot=1), slot)
        race.start()
        while race.go_on(pause=1).ending is Ending.PAUSED:
            look_at(memory)

    `waiting`: vCPUs that wait for the lock. `made_before`: shadow pages made before the zap began.
    `accounted`: pages and sptes whose zap has taken its time.
    """

    def __init__(self, memory: VmMemory, setup: RaceSetup, slot: Memslot) -> None:
        self._memory = memory
        self.setup = setup
        self.slot = slot
        self.now_ns = 0
        self.accounted = (0, 0)
        self.slice_end_ns = SLICE_NS
        self.made_before = 0
        self.waiting: deque[Racer] = deque()
        self.area = self.new_area()
        racer = TdpRacer if memory.arch.knobs.tdp else ShadowRacer
        numbers = range(max(1, setup.vcpus))
        self.racers = [racer(memory, number, self.area) for number in numbers]
        self.flow: Flow

    def new_area(self) -> Area:
        """Return memory for the working sets as it is at first. Raises EINVAL without room."""
        return area_above(self._memory, max(1, self.setup.vcpus), self.setup.working_set)

    def start(self) -> None:
        """Let the vCPUs map their working sets, and begin to delete the slot.

        Raises EINTR after a signal; all is as it was then.
        """
        with self._memory.arch.mmu_lock:
            self.insert_racers()
            self._memory.roots.n_max += self.budget
            try:
                self._fill()
            except KernelError:
                self._remove_racers()
                raise
            self.made_before = self._memory.arch.stats.mmu_cache_miss
            kind = self._flow_kind
            self._use(self._memory.begin_removal(self.slot, kind, self._break_wanted))

    def insert_racers(self) -> None:
        """Add the vCPUs and the slot of their working sets to the VM."""
        self._memory.slots.insert(self.area.slot)
        self._memory.arch.vcpus.extend(racer.mmu for racer in self.racers)

    def restore_flow(self) -> Flow:
        """Make the flow of a race that was paused, as it begins, and return it."""
        self.slot.invalid = True
        self._use(self._memory.flow(self._flow_kind, self._break_wanted, self.slot))
        return self.flow

    @property
    def _flow_kind(self) -> ZapFlow:
        return self.setup.flow or self._memory.arch.delete_flow

    def _use(self, flow: Flow) -> None:
        self.flow = flow
        flow.about_to_zap = self._about_to_zap

    def go_on(self, pause: int = 0) -> RaceResult:
        """Delete the slot while the vCPUs run; return how that ended.

        `pause`: after how many drops of the lock it pauses, 0: never. After a livelock, or if it is
        given up, the vCPUs are stopped, so that the zap can complete. Raises EINTR after a signal;
        the slot is deleted all the same.
        """
        with self._memory.arch.mmu_lock:
            ending = None
            try:
                ending, cycle = self._contend(pause)
                if ending is Ending.PAUSED:
                    return self._result(ending)
                return self._result(ending, cycle)
            finally:
                if ending is not Ending.PAUSED:
                    self._end()

    def stop(self) -> RaceResult:
        """Stop the vCPUs of a paused race, and let the zap complete."""
        with self._memory.arch.mmu_lock:
            self._end()
        return self._result(Ending.STOPPED)

    def _result(self, ending: Ending, cycle: int = 0) -> RaceResult:
        made = self._memory.arch.stats.mmu_cache_miss - self.made_before
        flow = self.flow
        return RaceResult(ending, flow.rounds, flow.zapped, made, self.now_ns, cycle)

    def _end(self) -> None:
        self._complete_zap()
        self._remove_racers()
        self._memory.end_removal(self.slot, None)

    def _complete_zap(self) -> None:
        """Stop the vCPUs and let the zap go on to its end."""
        for racer in self.racers:
            racer.runs = False
        self.waiting.clear()
        while not self.flow.finished:
            # With its old slice used up, a zap that asks before each page would never go on.
            self.slice_end_ns = self.now_ns + SLICE_NS
            cond_resched()
            self.flow.step()

    def _fill(self) -> None:
        random = Random(self.setup.seed)
        for racer in self.racers:
            racer.fill()
            racer.start_at(random.randrange(self.area.pages), random.randrange(ACCESS_NS))
            racer.runs = self.setup.vcpus > 0

    def _contend(self, pause: int) -> tuple[Ending, int]:
        """Step the flow until it is done or something ends the race; return that, and a cycle."""
        flow, stop_at = self.flow, self.flow.rounds + pause if pause else 0
        # What others do in a pause may change anything.
        repetition = Repetition(self._memory, self)
        if flow.rounds:
            for racer in self.racers:
                racer.look()
            self._serve_waiting()
        while flow.step() is Step.LOCK_DROPPED:
            if flow.rounds == stop_at:
                return Ending.PAUSED, 0
            cycle = repetition.cycle(flow.rounds)
            if cycle:
                return Ending.LIVELOCK, cycle
            if flow.rounds >= self.setup.max_rounds or self.now_ns >= self.setup.max_time_ns:
                return Ending.UNDECIDED, 0
            cond_resched_killable()
            self._serve_waiting()
        self._advance_time()
        return Ending.DONE, 0

    def _break_wanted(self) -> bool:
        """Return need_resched() or, in a preemptible kernel, whether a vCPU waits for the lock."""
        cond_resched()
        self._advance_time()
        if self.now_ns >= self.slice_end_ns:
            return True
        return self._memory.arch.knobs.preempt and bool(self.waiting)

    def _advance_time(self) -> None:
        """Advance the time by what was zapped since the last call; let faulting vCPUs queue up."""
        flow = self.flow
        zapped, cleared = self.accounted
        self.accounted = (flow.zapped, flow.sptes_cleared)
        self.now_ns += (flow.zapped - zapped) * ZAP_NS
        self.now_ns += (flow.sptes_cleared - cleared) * ZAP_SPTE_NS
        self._queue_contenders()

    def _about_to_zap(self, row: int) -> None:
        """Note which vCPUs have this page in their working set and will miss it."""
        pages = self._memory.arch.pages
        if self._memory.arch.knobs.tdp and pages.role[row] & LEVEL_MASK > 1:
            for racer in self.racers:
                racer.misses = True
            return
        owner = self.area.owner(pages.gfn[row])
        if 0 <= owner < len(self.racers):
            self.racers[owner].misses = True

    def _queue_contenders(self) -> None:
        ready = [racer for racer in self.racers if racer.runs and racer.wants_lock(self.now_ns)]
        if not ready:
            return
        ready.sort(key=lambda racer: (racer.ready_ns, racer.mmu.id))
        for racer in ready:
            racer.runs = False
        self.waiting.extend(ready)

    def _serve_waiting(self) -> None:
        """Let those that wait now have the lock before the zapper gets it again."""
        queue, self.waiting = self.waiting, deque()
        for racer in queue:
            made = racer.run_under_lock()
            if made >= 0:
                self.now_ns += FAULT_NS + NEW_PAGE_NS * made
            racer.ready_ns = self.now_ns + ACCESS_NS
            racer.runs = True
        self.slice_end_ns = self.now_ns + SLICE_NS
        self._queue_contenders()

    def _remove_racers(self) -> None:
        """Remove the working sets and what they mapped."""
        arch = self._memory.arch
        for racer in self.racers:
            self._memory.roots.free(racer.mmu)
        own = {id(racer.mmu) for racer in self.racers}
        arch.vcpus = [vcpu for vcpu in arch.vcpus if id(vcpu) not in own]
        self._zap_leftovers()
        self._memory.slots.remove(self.area.slot)
        self._memory.roots.n_max -= self.budget

    @property
    def budget(self) -> int:
        """The shadow pages of all working sets, twice: the old ones count for a while."""
        return 4 * (self.area.slot.npages // BLOCK_PAGES + 64)

    def _zap_leftovers(self) -> None:
        pages = self._memory.arch.pages
        first, zapped = self.area.slot.base_gfn, list[int]()
        for row in list(pages.oldest_first()):
            cond_resched()
            within = first <= pages.gfn[row] < self.area.slot.end_gfn
            if within and not pages.root_count[row]:
                self._memory.zapper.prepare(row, zapped)
        self._memory.zapper.commit(zapped)


def check_race(memory: VmMemory, setup: RaceSetup) -> Memslot:
    """Return the slot that a race would delete.

    Raises ENOENT without such a slot, EINVAL for a number that no slot can have, for a VM with the
    TDP MMU, and for working sets that are too large or have no room above the slots.
    """
    if memory.tdp is not None:
        # Its zap holds the lock for reading, as its faults do: no vCPU waits for it.
        raise KernelError(EINVAL, "with the TDP MMU nothing keeps a zap from ending")
    slot = memory.spaces.slot(setup.slot)
    if slot is None:
        raise KernelError(ENOENT, f"there is no slot {setup.slot}")
    most = MAX_PAGES if memory.arch.knobs.tdp else MAX_SHADOW_PAGES
    if max(1, setup.vcpus) * setup.working_set > most * PAGE:
        size = "1 TiB" if memory.arch.knobs.tdp else "4 GiB"
        raise KernelError(EINVAL, f"the working sets have more than {size} together")
    return slot


def race(memory: VmMemory, setup: RaceSetup) -> RaceResult:
    """Delete a slot while vCPUs fault; after a signal the slot is deleted all the same.

    Raises what `check_race` raises, EINTR after a signal.
    """
    slot = check_race(memory, setup)
    might_resched()
    found = Race(memory, setup, slot)
    found.start()
    return found.go_on()
