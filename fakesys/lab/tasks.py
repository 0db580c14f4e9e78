"""Cases of experiments as tasks of a pool: plain data in, plain data out.

Each function of a worker has a counterpart that makes its tasks, and returns the typed results in
the order of the cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from fakesys.lab import apicv, livelock, series
from fakesys.pool.pool import Pool
from fakesys.subsystems.kvm_mmu.guest.race import RaceResult

R = TypeVar("R")
Told = Callable[[int, Any], None]


def races(pool: Pool, setup: livelock.Setup, on_done: Told | None = None) -> list[livelock.Outcome]:
    """Run all races of a setup, of both flows and then of the patch levels.

    Raises EINVAL when the working sets do not fit into the memory of a race.
    """
    plain, cases = msgspec.to_builtins(setup), _race_cases(setup)
    tasks = [{"setup": plain, "case": index} for index in range(len(cases))]
    results = _typed(pool, race, tasks, RaceResult, on_done)
    return [livelock.Outcome(*pair) for pair in zip(cases, results, strict=True)]


def number_of_races(setup: livelock.Setup) -> int:
    """Return how many races a setup has."""
    return len(_race_cases(setup))


def race(task: Mapping[str, Any]) -> object:
    """Run one race."""
    setup = msgspec.convert(task["setup"], livelock.Setup)
    case = _race_cases(setup)[task["case"]]
    return msgspec.to_builtins(livelock.measure(case, setup).result)


def _race_cases(setup: livelock.Setup) -> list[livelock.Case]:
    return [*livelock.flow_cases(setup), *livelock.patch_cases(setup)]


def storms(pool: Pool, setup: apicv.Setup, on_done: Told | None = None) -> list[apicv.Storm]:
    """Measure all storms of a setup."""
    tasks = [
        {"kernel": kernel, "vcpus": vcpus, "halted": halted, "windows": setup.windows}
        for kernel, vcpus, halted in apicv.storm_cases(setup)
    ]
    return _typed(pool, storm, tasks, apicv.Storm, on_done)


def storm(task: Mapping[str, Any]) -> object:
    """Measure one storm."""
    return msgspec.to_builtins(
        apicv.storm(task["kernel"], task["vcpus"], halted=task["halted"], windows=task["windows"])
    )


def ap_levels(pool: Pool, on_done: Told | None = None) -> list[series.ApLevel]:
    """Measure all levels of the AP part."""
    tasks = [{"level": level} for level in series.AP_LEVELS]
    return _typed(pool, ap_level, tasks, series.ApLevel, on_done)


def ap_level(task: Mapping[str, Any]) -> object:
    """Measure one level of the AP part."""
    return msgspec.to_builtins(series.ap_level(task["level"]))


def apicv_levels(pool: Pool, vcpus: int, on_done: Told | None = None) -> list[series.ApicvLevel]:
    """Measure all levels of AVIC, with so many vCPUs in each guest."""
    tasks = [{"level": level, "vcpus": vcpus} for level in series.APICV_LEVELS]
    return _typed(pool, apicv_level, tasks, series.ApicvLevel, on_done)


def apicv_level(task: Mapping[str, Any]) -> object:
    """Measure one level of AVIC."""
    return msgspec.to_builtins(series.apicv_level(task["level"], task["vcpus"]))


def _typed(
    pool: Pool,
    work: Callable[[Mapping[str, Any]], object],
    tasks: Sequence[Mapping[str, Any]],
    kind: type[R],
    on_done: Told | None,
) -> list[R]:
    plain = pool.ordered(f"{__name__}:{work.__name__}", tasks, on_done)
    return msgspec.convert(plain, list[kind])  # type: ignore[valid-type]
