"""`fakesys exec`: what it adds to a command."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator

from tests.bench.measure import ROUNDS, Bench, Figure
from tests.mounts import COMMAND

TOGETHER = 20


def exec_start(bench: Bench) -> Iterator[Figure]:
    """From the command line to the command, and from its end to the return, of `true`."""
    bare = _median(["true"])
    for name, options, most in (
        ("of the default machine", [], 600),
        ("with device events", ["--net"], None),
        ("on an existing mount", ["--mount", str(bench.mount("default").root)], None),
    ):
        taken = _median([*COMMAND, "exec", *options, "--", "true"])
        yield Figure(f"exec {name}, overhead", (taken - bare) * 1000, "ms", most)


def exec_together(bench: Bench) -> Iterator[Figure]:
    """Many at once; per run, on all processors."""
    command = [*COMMAND, "exec", "--", "true"]
    begin = time.perf_counter()
    running = [subprocess.Popen(command, cwd="/") for _ in range(TOGETHER)]
    failed = sum(process.wait(120) != 0 for process in running)
    yield Figure(
        f"{TOGETHER} exec at once, each", (time.perf_counter() - begin) * 1000 / TOGETHER, "ms"
    )
    yield Figure(f"{TOGETHER} exec at once, failed", failed, "", 0)


def _median(command: list[str]) -> float:
    taken = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        subprocess.run(command, check=True, cwd="/", timeout=60)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


BENCHMARKS: tuple[Callable[[Bench], Iterable[Figure]], ...] = (exec_start, exec_together)
