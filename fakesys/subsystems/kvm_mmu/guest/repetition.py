"""The proof of a livelock: at a drop of the lock a race is in the state of an earlier drop.

What follows is then what followed before, for ever: a race depends on nothing but its state. The
states are compared as they matter for what follows:

* times from now on;
* a page by its place on the list, not by its row, and generations by whether they are obsolete;
* the blocks of a working set from that on which its vCPU accesses next, as all blocks of 2 MiB are
  alike. That holds while a working set lies below one table of level 2; larger ones are compared as
  they are.

Not compared is what no step looks at: pages that were zapped and not yet freed, A and D bits, hash
collisions, and what counts up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from fakesys.core.scheduling.resched import cond_resched
from fakesys.subsystems.kvm_mmu.guest.racers import Area, Racer
from fakesys.subsystems.kvm_mmu.shadow.pages import ON_LIST, UNSYNC
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, LEVEL_MASK
from fakesys.subsystems.kvm_mmu.shadow.sptes import MIXED
from fakesys.subsystems.kvm_mmu.slots.host import BLOCK_PAGES
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

_GIB_GFNS = 512 * BLOCK_PAGES
State = tuple[Any, ...]


class Observed(Protocol):
    """A race, as far as its state is compared."""

    area: Area
    now_ns: int
    slice_end_ns: int

    @property
    def racers(self) -> Sequence[Racer]:
        """All vCPUs of the race, by number."""

    @property
    def waiting(self) -> Sequence[Racer]:
        """Those that wait for the lock, the first one first."""


class Repetition:
    """Remembers the states at the drops of the lock.

    What is cheap to compare, who does what when, is remembered of each drop, by a hash. Where one
    comes back, it becomes the landmark: at each drop that has it the whole state is compared with
    those before. The landmark is given up if it stays away.
    """

    def __init__(self, memory: VmMemory, race: Observed) -> None:
        self._memory = memory
        self._race = race
        self._blocks = race.area.pages // BLOCK_PAGES
        self._rotates = [_is_below_one_table(memory, race.area, racer) for racer in race.racers]
        # Hash -> the last drop that had it.
        self._seen: dict[int, int] = {}
        self._landmark = 0
        # Until which drop it may stay away.
        self._patience = 0
        # State -> the drop that had it.
        self._states: dict[State, int] = {}

    def cycle(self, drops: int) -> int:
        """Return after how many drops of the lock the state has come back; 0 if it has not.

        `drops`: how many there were until now. Call it once at each drop.
        """
        times = self._times()
        key = hash(times)
        before = self._seen.get(key)
        self._seen[key] = drops
        if before is None or (key != self._landmark and drops < self._patience):
            return 0
        if key != self._landmark:
            self._landmark = key
            self._states.clear()
        self._patience = drops + 2 * (drops - before)
        state = (times, *self._pages())
        return drops - self._states.setdefault(state, drops)

    def _times(self) -> State:
        """Return who does what when."""
        race, now = self._race, self._race.now_ns
        own = tuple(
            (
                racer.next % BLOCK_PAGES if rotates else racer.next,
                max(0, racer.ready_ns - now),
                racer.misses,
                racer.runs,
                racer.mmu.requests,
            )
            for racer, rotates in zip(race.racers, self._rotates, strict=True)
        )
        waiting = tuple(racer.mmu.id for racer in race.waiting)
        # Of those that may want the lock, the one that could have asked first is the first.
        idle = sorted(
            (racer.ready_ns, racer.mmu.id)
            for racer in race.racers
            if racer.runs and racer.ready_ns <= now
        )
        order = tuple(number for _, number in idle)
        return (own, waiting, order, race.slice_end_ns - now, self._memory.arch.pages.used)

    def _pages(self) -> State:
        arch, pages = self._memory.arch, self._memory.arch.pages
        listed = list(pages.oldest_first())
        roots = {row for vcpu in arch.vcpus for row in vcpu.roots}
        beside = sorted(row for row in roots if not pages.flags[row] & ON_LIST)
        places = {row: place for place, row in enumerate([*listed, *beside])}
        states = []
        for row in places:
            cond_resched()
            states.append(self._page(row, places))
        vcpus = tuple(
            (vcpu.requests, tuple(places[row] for row in vcpu.roots)) for vcpu in arch.vcpus
        )
        return (len(listed), tuple(states), vcpus)

    def _page(self, row: int, places: dict[int, int]) -> State:
        pages, links = self._memory.arch.pages, self._memory.links
        state = pages.leaf_state[row]
        leaf: State = ()
        if state == MIXED:
            sptes = self._memory.arch.sptes.leaf(row)
            leaf = (sptes.present, sptes.writable)
        where = self._where(row)
        # Within the memory of a racer the index follows from where the page is.
        parents = tuple(
            (places[parent], 0 if where[0] >= 0 else index) for parent, index in links.parents(row)
        )
        unsync, obsolete = pages.flags[row] & UNSYNC, pages.gen[row] != pages.valid_gen
        own = (pages.role[row], pages.root_count[row], unsync, obsolete, state)
        return (where, own, leaf, parents)

    def _where(self, row: int) -> tuple[int, int]:
        """Return whose page it is, -1 for nobody's, and where in their memory."""
        pages, area = self._memory.arch.pages, self._race.area
        gfn, role = pages.gfn[row], pages.role[row]
        owner = area.owner(gfn)
        # Direct tables above the first level belong to several.
        if not 0 <= owner < len(self._race.racers) or (role & DIRECT and role & LEVEL_MASK > 1):
            return -1, gfn
        inside = gfn - area.first(owner)
        # A table of the guest that maps a block has the number of the block.
        block = inside // BLOCK_PAGES if role & DIRECT else inside - area.pages
        if role & LEVEL_MASK > 1 or not self._rotates[owner] or not 0 <= block < self._blocks:
            return owner, inside
        return owner, (block - self._race.racers[owner].next // BLOCK_PAGES) % self._blocks


def _is_below_one_table(memory: VmMemory, area: Area, racer: Racer) -> bool:
    """Return whether the working set of a racer has one table of level 2."""
    first = area.first(racer.mmu.id) if memory.arch.knobs.tdp else 0
    return first // _GIB_GFNS == (first + area.pages - 1) // _GIB_GFNS
