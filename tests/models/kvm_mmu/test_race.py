"""The scheduling model: who ends, who does not, and always the same."""

from __future__ import annotations

import pytest

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm_mmu.guest.race import RaceResult, RaceSetup, race
from fakesys.subsystems.kvm_mmu.shadow.policy import (
    K5_3,
    K5_4,
    K5_4_STABLE,
    K6_1,
    SERIES,
    MmuPolicy,
    ZapFlow,
)
from tests.models.kvm_mmu.rig import MIB, Rig

ROUNDS = 2000


def run(
    policy: MmuPolicy,
    vcpus: int,
    flow: ZapFlow | None = None,
    *,
    preempt: bool = True,
    seed: int = 1,
    rounds: int = ROUNDS,
) -> RaceResult:
    rig = Rig(policy, quiet=True, preempt=preempt)
    rig.slot(1)
    setup = RaceSetup(1, vcpus, 64 * MIB, flow, seed, max_rounds=rounds)
    result = race(rig.memory, setup)
    assert rig.memory.slots.by_id == {}
    assert list(rig.memory.arch.vcpus) == []
    return result


def test_eight_vcpus_stop_zap_all_for_ever() -> None:
    result = run(K5_4_STABLE, 8, ZapFlow.ZAP_ALL)
    assert result.result == "livelock"
    assert result.rounds == ROUNDS
    assert result.added_during >= result.rounds - 1


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
    assert rounds[-1] == ROUNDS


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


def test_a_short_virtual_time_is_a_livelock_too() -> None:
    rig = Rig(K5_3, quiet=True)
    rig.slot(1)
    result = race(rig.memory, RaceSetup(1, 8, max_time_ns=1_000_000))
    assert result.result == "livelock"
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
    assert race(rig.memory, setup).result == "livelock"
    assert rig.memory.slots.by_id == {}
