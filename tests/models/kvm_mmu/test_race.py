"""The scheduling model: who ends, who does not, and always the same."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm_mmu.guest.race import Ending, Race, RaceResult, RaceSetup, race
from fakesys.subsystems.kvm_mmu.guest.repetition import Repetition
from fakesys.subsystems.kvm_mmu.shadow.policy import (
    K5_1,
    K5_3,
    K5_4,
    K5_4_STABLE,
    K6_1,
    K6_18,
    SERIES,
    MmuPolicy,
    ZapFlow,
)
from fakesys.subsystems.kvm_mmu.vm.shrinker import Shrinker
from tests.long import LONG
from tests.models.kvm_mmu.rig import MIB, Rig

PAUSES = [
    (K5_1, 1, True),
    (K5_3, 5, True),
    (SERIES[0], 5, True),
    (SERIES[6], 1, False),
    (SERIES[7], 1, False),
    (K5_4_STABLE, 2, True),
    (K6_18, 1, True),
]
if LONG:
    PAUSES += [(policy, 1, False) for policy in (SERIES[5], *SERIES[8:], K5_4, K6_18)]
SHADOWED = (
    (K5_1, *SERIES, K5_4, K5_4_STABLE, K6_18) if LONG else (SERIES[4], SERIES[10], K5_4_STABLE)
)
# A livelock is proved before that.
ROUNDS = 3000
# After so many drops of the lock the same state comes back, with working sets of 64 MiB and TDP.
CYCLE = 1024


def run(
    policy: MmuPolicy,
    vcpus: int,
    flow: ZapFlow | None = None,
    *,
    preempt: bool = True,
    seed: int = 1,
    rounds: int = ROUNDS,
    tdp: bool = True,
    mib: int = 64,
) -> RaceResult:
    rig = Rig(policy, quiet=True, preempt=preempt, tdp=tdp)
    rig.slot(1)
    setup = RaceSetup(1, vcpus, mib * MIB, flow, seed, max_rounds=rounds)
    result = race(rig.memory, setup)
    nothing_is_left(rig)
    return result


def nothing_is_left(rig: Rig) -> None:
    assert rig.memory.slots.by_id == {}
    assert list(rig.memory.arch.vcpus) == []
    assert rig.memory.arch.zapped_obsolete == []
    assert rig.memory.arch.unsync_pages == rig.stats.mmu_unsync == 0
    # Direct tables above those of the race may stay.
    assert rig.stats.pages_4k == 0
    assert not [row for row in rig.listed() if rig.pages.gfn[row] or rig.pages.root_count[row]]


def test_eight_vcpus_stop_zap_all_for_ever() -> None:
    result = run(K5_4_STABLE, 8, ZapFlow.ZAP_ALL)
    assert (result.result, result.cycle) == ("livelock", CYCLE)
    assert 2 * CYCLE < result.rounds < ROUNDS
    assert result.added_during >= result.rounds - 1


@pytest.mark.parametrize("tdp", [True, False])
def test_what_is_proved_to_repeat_itself_does(tdp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the proof the race goes on, and each cycle does the same in the same time."""
    proved = run(K5_3, 2, mib=2, tdp=tdp)
    assert proved.ending is Ending.LIVELOCK
    monkeypatch.setattr(Repetition, "cycle", lambda *_: 0)
    cycles = range(proved.rounds, proved.rounds + 3 * proved.cycle + 1, proved.cycle)
    later = [run(K5_3, 2, mib=2, tdp=tdp, rounds=rounds) for rounds in cycles]
    assert {result.ending for result in later} == {Ending.UNDECIDED}
    assert later[0].rounds == proved.rounds
    for name in ("zapped", "added_during", "vtime_ns"):
        values = [getattr(result, name) for result in later]
        assert len({after - before for before, after in pairwise(values)}) == 1, name


@pytest.mark.parametrize("rounds", [1, 50, 2000])
def test_what_is_given_up_before_the_proof_is_undecided(rounds: int) -> None:
    result = run(K5_3, 8, rounds=rounds)
    assert (result.result, result.rounds, result.cycle) == ("undecided", rounds, 0)


def test_a_race_that_repeats_itself_for_a_while_and_then_ends_is_not_taken_for_a_livelock() -> None:
    for policy in (SERIES[0], SERIES[4]):
        for vcpus, mib in ((2, 2), (3, 6), (5, 4)):
            assert run(policy, vcpus, mib=mib, rounds=100_000).result == "done"


def test_working_sets_below_several_tables_are_compared_as_they_are() -> None:
    """The second of three lies across the border of a GiB: so its blocks are not alike."""
    result = run(K5_3, 2, mib=520, rounds=ROUNDS)
    assert result.result in ("livelock", "undecided")
    setup = RaceSetup(1, 2, 520 * MIB)
    rig = Rig(K5_3, quiet=True)
    rig.slot(1)
    found = Race(rig.memory, setup, rig.memory.slots.by_id[1])
    assert Repetition(rig.memory, found)._rotates == [True, False]


@pytest.mark.parametrize("policy", SHADOWED, ids=lambda policy: policy.name)
def test_racers_may_have_shadow_paging(policy: MmuPolicy) -> None:
    result = run(policy, 2, mib=20, tdp=False)
    assert result.result == "done"
    # Their tables are out of sync: so the batch is filled, and the lock dropped.
    if policy in SERIES[5:]:
        assert result.rounds == 2


def test_racers_with_shadow_paging_livelock_too() -> None:
    result = run(K5_3, 3, mib=4, tdp=False, rounds=10_000)
    assert (result.result, result.cycle % CYCLE) == ("livelock", 0)


def test_racers_with_shadow_paging_have_four_gibibytes_at_most() -> None:
    rig = Rig(K5_4, quiet=True, tdp=False)
    rig.slot(1)
    with pytest.raises(KernelError) as refusal:
        race(rig.memory, RaceSetup(1, 4, 2 << 30))
    assert "4 GiB" in refusal.value.why


def test_there_must_be_room_above_the_slots() -> None:
    rig = Rig(K5_4, quiet=True)
    rig.slot(1, (1 << 48) - 2 * MIB)
    with pytest.raises(KernelError) as refusal:
        race(rig.memory, RaceSetup(1))
    assert refusal.value.name == "EINVAL"
    assert not rig.memory.slots.by_id[1].invalid


def paused(policy: MmuPolicy, drops: int, tdp: bool) -> tuple[Rig, Race]:
    """A race of which so many drops of the lock are past."""
    rig = Rig(policy, quiet=True, tdp=tdp)
    rig.slot(1)
    found = Race(
        rig.memory, RaceSetup(1, 2, 20 * MIB, max_rounds=ROUNDS), rig.memory.slots.by_id[1]
    )
    found.start()
    result = found.go_on(pause=drops)
    assert (result.ending, result.rounds) == (Ending.PAUSED, drops)
    return rig, found


@pytest.mark.parametrize(("policy", "drops", "tdp"), PAUSES)
def test_a_pause_changes_nothing(policy: MmuPolicy, drops: int, tdp: bool) -> None:
    straight = run(policy, 2, mib=20, tdp=tdp)
    rig, found = paused(policy, drops, tdp)
    assert rig.memory.slots.by_id[1].invalid
    result = found.go_on(pause=1)
    while result.ending is Ending.PAUSED and result.rounds < 300:
        result = found.go_on(pause=1)
    if result.ending is Ending.PAUSED:
        result = found.go_on()
    nothing_is_left(rig)
    if result.ending is Ending.LIVELOCK:
        # The proof begins behind the last pause.
        assert (straight.ending, result.cycle) == (Ending.LIVELOCK, straight.cycle)
    else:
        assert result == straight


@pytest.mark.parametrize(("policy", "drops", "tdp"), PAUSES)
def test_a_paused_race_can_be_stopped(policy: MmuPolicy, drops: int, tdp: bool) -> None:
    rig, found = paused(policy, drops, tdp)
    result = found.stop()
    assert (result.result, result.rounds) == ("stopped", drops)
    nothing_is_left(rig)


def test_what_others_zap_in_a_pause_is_missed() -> None:
    """A vCPU faults again where the shrinker has taken its working set."""
    rig, found = paused(K5_4_STABLE, 1, True)
    shrinker = Shrinker()
    shrinker.add(rig.memory.arch, rig.memory.zapper)
    while rig.memory.arch.pages.used > 4:
        shrinker.scan()
    assert found.go_on().result == "done"
    nothing_is_left(rig)


@pytest.mark.parametrize("policy", [K5_4, K5_4_STABLE, K6_1], ids=lambda p: p.name)
def test_eight_vcpus_do_not_stop_the_fast_flow(policy: MmuPolicy) -> None:
    result = run(policy, 8, ZapFlow.FAST)
    assert result.result == "done"
    assert result.rounds <= result.zapped // 10 + 1


def test_without_running_vcpus_both_end_with_the_same_count() -> None:
    slow, fast = run(K5_4, 0, ZapFlow.ZAP_ALL), run(K5_4, 0, ZapFlow.FAST)
    assert (slow.result, fast.result) == ("done", "done")
    assert slow.zapped == fast.zapped == 35
    assert slow.rounds == fast.rounds == slow.added_during == fast.added_during == 0


def test_rounds_of_zap_all_grow_with_the_vcpus() -> None:
    rounds = [run(K5_3, vcpus).rounds for vcpus in range(4)]
    assert rounds == sorted(rounds)
    assert rounds[0] == 0
    assert run(K5_3, 3).result == "livelock"


def test_without_preemption_and_with_little_to_zap_both_end() -> None:
    for flow in ZapFlow:
        result = run(K5_4_STABLE, 8, flow, preempt=False)
        assert (result.result, result.rounds) == ("done", 0)


def test_the_same_seed_gives_the_same_numbers() -> None:
    assert run(K5_4_STABLE, 6, seed=7) == run(K5_4_STABLE, 6, seed=7)


def test_before_patch_6_the_fast_flow_ends_but_drops_the_lock_far_more_often_than_it_zaps() -> None:
    before, after = (run(policy, 8, rounds=10_000) for policy in SERIES[4:6])
    assert (before.result, after.result) == ("done", "done")
    assert before.zapped == after.zapped == 259
    assert before.rounds > 10 * before.zapped
    assert after.rounds == 0
    assert before.vtime_ns > 50 * after.vtime_ns


def test_a_race_has_at_most_a_terabyte() -> None:
    rig = Rig(K5_4, quiet=True)
    rig.slot(1)
    for vcpus in (0, 1, 16):
        with pytest.raises(KernelError) as refusal:
            race(rig.memory, RaceSetup(1, vcpus, 2 << 40))
        assert refusal.value.name == "EINVAL"
    assert list(rig.memory.slots.by_id) == [1]


def test_a_race_is_given_up_after_a_virtual_time() -> None:
    rig = Rig(K5_3, quiet=True)
    rig.slot(1)
    result = race(rig.memory, RaceSetup(1, 8, max_time_ns=1_000_000))
    assert result.result == "undecided"
    assert result.vtime_ns >= 1_000_000


def test_an_unknown_slot_is_refused() -> None:
    with pytest.raises(KernelError) as refusal:
        race(Rig().memory, RaceSetup(5))
    assert refusal.value.name == "ENOENT"


@pytest.mark.parametrize("policy", [K5_3, *SERIES[:5], K5_4_STABLE], ids=lambda p: p.name)
def test_a_zap_that_is_given_up_at_the_end_of_its_slice_completes(policy: MmuPolicy) -> None:
    """Patches 1 to 5 ask for the lock before each page: without a new slice for ever."""
    rig = Rig(policy, quiet=True, preempt=False)
    rig.slot(1)
    setup = RaceSetup(1, 4, 1 << 30, ZapFlow.FAST, max_rounds=1)
    assert race(rig.memory, setup).result == "undecided"
    assert rig.memory.slots.by_id == {}
