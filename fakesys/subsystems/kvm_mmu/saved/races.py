"""Races in a snapshot: how the last one of a VM ended, and one that is paused in the middle."""

from __future__ import annotations

from array import array
from typing import Annotated

from msgspec import Meta

from fakesys.core.errors import KernelError
from fakesys.core.saved import U63, Natural, Saved, check, check_range, refuse
from fakesys.subsystems.kvm_mmu.guest.race import Ending, Race, RaceResult, RaceSetup, check_race
from fakesys.subsystems.kvm_mmu.guest.racers import Racer
from fakesys.subsystems.kvm_mmu.saved.host import PageBytes
from fakesys.subsystems.kvm_mmu.saved.packed import packed, rows_of
from fakesys.subsystems.kvm_mmu.saved.vcpus import REQUESTS, restore_roots
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.pages import ON_LIST
from fakesys.subsystems.kvm_mmu.shadow.policy import ZapFlow
from fakesys.subsystems.kvm_mmu.shadow.role import INVALID
from fakesys.subsystems.kvm_mmu.slots.host import PAGE
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

Count = Annotated[int, Meta(ge=0, le=64)]


class SavedRace(Saved, frozen=True):
    """How the last race of a VM ended; see `RaceResult`."""

    ending: Ending
    rounds: Natural
    zapped: Natural
    added_during: Natural
    vtime_ns: Natural
    cycle: Natural


class SavedSetup(Saved, frozen=True):
    """See `RaceSetup`."""

    slot: Natural
    vcpus: Count
    working_set: Natural
    flow: ZapFlow | None
    seed: Natural
    max_rounds: Natural
    max_time_ns: Natural


class SavedRacer(Saved, frozen=True):
    """See `Racer`. `roots`: rows of its root pages."""

    next: Natural
    ready_ns: U63
    misses: bool
    runs: bool
    requests: Natural
    roots: Annotated[list[Natural], Meta(max_length=4)]


class SavedPausedRace(Saved, frozen=True):
    """A race that is paused; see `Race`.

    `unfreed`: rows of pages that were zapped. `written`: what the racers' memory has other than the
    tables that they begin with.
    """

    setup: SavedSetup
    now_ns: U63
    accounted: tuple[Natural, Natural]
    slice_end_ns: U63
    made_before: Natural
    rounds: Natural
    zapped: Natural
    sptes_cleared: Natural
    unfreed: bytes
    racers: list[SavedRacer]
    waiting: list[Natural]
    written: dict[Natural, PageBytes]


def save_result(result: RaceResult) -> SavedRace:
    """Return what a snapshot holds of the end of a race."""
    return SavedRace(
        ending=result.ending,
        rounds=result.rounds,
        zapped=result.zapped,
        added_during=result.added_during,
        vtime_ns=result.vtime_ns,
        cycle=result.cycle,
    )


def restore_result(saved: SavedRace) -> RaceResult:
    """Return how a race ended."""
    return RaceResult(
        saved.ending,
        saved.rounds,
        saved.zapped,
        saved.added_during,
        saved.vtime_ns,
        saved.cycle,
    )


def save_race(race: Race) -> SavedPausedRace:
    """Return what a snapshot holds of a race that is paused."""
    setup, flow = race.setup, race.flow
    return SavedPausedRace(
        setup=SavedSetup(
            slot=setup.slot,
            vcpus=setup.vcpus,
            working_set=setup.working_set,
            flow=setup.flow,
            seed=setup.seed,
            max_rounds=setup.max_rounds,
            max_time_ns=setup.max_time_ns,
        ),
        now_ns=race.now_ns,
        accounted=race.accounted,
        slice_end_ns=race.slice_end_ns,
        made_before=race.made_before,
        rounds=flow.rounds,
        zapped=flow.zapped,
        sptes_cleared=flow.sptes_cleared,
        unfreed=packed(array("i", flow.unfreed)),
        racers=[_save_racer(racer) for racer in race.racers],
        waiting=[racer.mmu.id for racer in race.waiting],
        written=_written(race.area.slot, race.new_area().slot),
    )


def _save_racer(racer: Racer) -> SavedRacer:
    return SavedRacer(
        next=racer.next,
        ready_ns=racer.ready_ns,
        misses=racer.misses,
        runs=racer.runs,
        requests=racer.mmu.requests,
        roots=list(racer.mmu.roots),
    )


def _written(now: Memslot, at_first: Memslot) -> dict[int, bytes]:
    """Return the pages that differ from what they were at first."""
    assert now.memory is not None
    assert at_first.memory is not None
    old, new = at_first.memory.written(), now.memory.written()
    return {
        page: new.get(page, bytes(PAGE))
        for page in sorted(old.keys() | new.keys())
        if old.get(page) != new.get(page)
    }


def restore_race(saved: SavedPausedRace, memory: VmMemory, used: set[int]) -> Race:
    """Make a race that is paused, with its roots counted. Raises BadSnapshotError.

    Precondition: slots and pages of the VM were restored; `used`: the rows of its pages.
    """
    given = saved.setup
    setup = RaceSetup(
        given.slot,
        given.vcpus,
        given.working_set,
        given.flow,
        given.seed,
        given.max_rounds,
        given.max_time_ns,
    )
    try:
        race = Race(memory, setup, check_race(memory, setup))
    except KernelError as error:
        refuse(f"a race: {error.why}")
    check(memory.roots.n_max >= race.budget, "the budget of pages of a race")
    race.now_ns, race.slice_end_ns = saved.now_ns, saved.slice_end_ns
    race.accounted, race.made_before = saved.accounted, saved.made_before
    _restore_flow(saved, race, memory.arch, used)
    race.insert_racers()
    _restore_written(saved, race)
    _restore_racers(saved, race, memory.arch, used)
    return race


def _restore_flow(saved: SavedPausedRace, race: Race, arch: MmuArch, used: set[int]) -> None:
    flow, pages = race.restore_flow(), arch.pages
    flow.rounds, flow.zapped = saved.rounds, saved.zapped
    flow.sptes_cleared = saved.sptes_cleared
    check(flow.rounds, "a race that is paused has not dropped the lock")
    for row in rows_of(saved.unfreed, used, "pages that are not freed"):
        zapped = pages.role[row] & INVALID and not pages.flags[row] & ON_LIST
        check(zapped, f"shadow page {row} is not freed, but in use")
        flow.unfreed.append(row)
    pages.used -= len(flow.unfreed)


def _restore_written(saved: SavedPausedRace, race: Race) -> None:
    backing = race.area.slot.memory
    assert backing is not None
    for page, data in saved.written.items():
        check_range(page, backing.npages, "a page of the memory of a race")
        backing.write(page * PAGE, data)


def _restore_racers(saved: SavedPausedRace, race: Race, arch: MmuArch, used: set[int]) -> None:
    check(len(saved.racers) == len(race.racers), "the vCPUs of a race")
    for found, racer in zip(saved.racers, race.racers, strict=True):
        what = f"vCPU {racer.mmu.id} of a race"
        racer.next = check_range(found.next, race.area.pages, f"the next page of {what}")
        racer.ready_ns, racer.misses, racer.runs = found.ready_ns, found.misses, found.runs
        check(not found.requests & ~REQUESTS, f"{what}: requests {found.requests:#x}")
        racer.mmu.requests = found.requests
        restore_roots(found.roots, racer.mmu, arch, used, zapping=True)
    for number in saved.waiting:
        check_range(number, len(race.racers), "a vCPU that waits for the lock")
        check(not race.racers[number].runs, f"vCPU {number} of a race runs and waits")
        race.waiting.append(race.racers[number])
    check(len(set(saved.waiting)) == len(saved.waiting), "a vCPU waits twice for the lock")
