"""Delete a memslot while vCPUs fault: zap_all against the fast flow, and patch by patch.

Every case is one race in a VM of its own, so that its numbers do not depend on the order of the
cases. `fakesys doc mmu` says how a race is scheduled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct

from fakesys.core.events import Bus
from fakesys.lab.tables import Table
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.subsystems.kvm.stats import VmStats
from fakesys.subsystems.kvm_mmu.guest.race import Ending, RaceResult, RaceSetup, race
from fakesys.subsystems.kvm_mmu.shadow.arch import Knobs
from fakesys.subsystems.kvm_mmu.shadow.policy import K5_3, SERIES, MmuPolicy, ZapFlow
from fakesys.subsystems.kvm_mmu.slots.memslots import Region
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

SLOT = 1
SLOT_BYTES = 2 << 20
# The kernel before the series, then after each of its patches.
PATCH_LEVELS: tuple[MmuPolicy, ...] = (K5_3, *SERIES)
# The flows that are compared: both zap all pages.
FLOWS = (ZapFlow.ZAP_ALL, ZapFlow.FAST)
LIVELOCK = "inf"


class Setup(Struct, frozen=True):
    """What all races have in common. `kernel` is that of the comparison of both flows.

    `working_set` is in bytes per vCPU; a race is given up after `max_rounds` lock drops.
    """

    vcpus: tuple[int, ...] = tuple(range(17))
    working_set: int = 64 << 20
    kernel: str = "5.4-stable"
    seed: int = 1
    max_rounds: int = 5000
    preempt: bool = True

    @property
    def summary(self) -> str:
        """The setup in a few words, for titles."""
        return (
            f"{self.working_set >> 20} MiB per vCPU, preempt={int(self.preempt)}, seed {self.seed}"
        )


class Case(NamedTuple):
    """One race: a kernel, the flow by which it deletes the slot, the number of running vCPUs."""

    policy: MmuPolicy
    flow: ZapFlow
    vcpus: int


class Outcome(NamedTuple):
    """A race and how it ended."""

    case: Case
    result: RaceResult


def flow_cases(setup: Setup) -> list[Case]:
    """Return the cases of both flows on one kernel, by number of vCPUs."""
    policy = MMU_KERNELS[setup.kernel].policy
    return [Case(policy, flow, vcpus) for flow in FLOWS for vcpus in setup.vcpus]


def patch_cases(setup: Setup) -> list[Case]:
    """Return the cases of each patch level with its own flow, by number of vCPUs."""
    return [
        Case(policy, policy.delete_flow, vcpus) for policy in PATCH_LEVELS for vcpus in setup.vcpus
    ]


def measure(case: Case, setup: Setup) -> Outcome:
    """Run one race. Raises EINVAL when the working sets do not fit into its memory."""
    memory = VmMemory(Bus(), case.policy, Knobs(preempt=setup.preempt), VmStats())
    host = memory.host.add("slot", SLOT_BYTES)
    memory.set_region(Region(SLOT, 0, 0, SLOT_BYTES, host.hva))
    wanted = RaceSetup(
        SLOT,
        case.vcpus,
        setup.working_set,
        case.flow,
        seed=setup.seed,
        max_rounds=setup.max_rounds,
    )
    return Outcome(case, race(memory, wanted))


def flow_table(setup: Setup, outcomes: Iterable[Outcome]) -> Table:
    """Return a table with a row per number of vCPUs, both flows side by side."""
    by_case = {(case.flow, case.vcpus): result for case, result in outcomes}
    columns = ("drops", "zapped", "added", "ms")
    head = ("vCPUs", *(f"{flow.value}\n{name}" for flow in FLOWS for name in columns))
    rows = [
        (str(vcpus), *(cell for flow in FLOWS for cell in _numbers(by_case[flow, vcpus])))
        for vcpus in setup.vcpus
    ]
    return Table(
        f"Deleting a memslot while vCPUs fault: {setup.kernel}, {setup.summary}",
        head,
        tuple(rows),
        (
            "drops: of the lock; added: shadow pages made meanwhile; ms: virtual time.",
            legend(setup),
        ),
    )


def patch_table(setup: Setup, outcomes: Iterable[Outcome]) -> Table:
    """Return a table of lock drops with a row per patch level, a column per number of vCPUs."""
    cells = {(case.policy.name, case.vcpus): drops(result) for case, result in outcomes}
    rows = [
        (policy.name, *(cells[policy.name, vcpus] for vcpus in setup.vcpus))
        for policy in PATCH_LEVELS
    ]
    return Table(
        "Drops of the lock by patch level and number of vCPUs",
        ("kernel", *map(str, setup.vcpus)),
        tuple(rows),
        (legend(setup),),
    )


def legend(setup: Setup) -> str:
    """Return what stands for races that do not end, or have not."""
    return (
        f"{LIVELOCK}: livelock, proved by a state that came back;"
        f" >{setup.max_rounds}: given up, undecided."
    )


def _numbers(result: RaceResult) -> tuple[str, ...]:
    return (
        drops(result),
        str(result.zapped),
        str(result.added_during),
        f"{result.vtime_ns / 1e6:.2f}",
    )


def drops(result: RaceResult) -> str:
    """Return how often the lock was dropped, as a cell shows it."""
    if result.ending is Ending.LIVELOCK:
        return LIVELOCK
    return str(result.rounds) if result.done else f">{result.rounds}"
