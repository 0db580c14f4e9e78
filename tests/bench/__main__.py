"""Measure everything, or only what is named: `python -m tests.bench [NAME...]`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from tests.bench import ap_scale, avic, calls, execution, life, mmu, snapshot, tracing, view
from tests.bench.measure import Bench, Figure, bench

# Another area adds its benchmarks by adding its tuple here.
BENCHMARKS: tuple[Callable[[Bench], Iterable[Figure]], ...] = (
    *calls.BENCHMARKS,
    *life.BENCHMARKS,
    *ap_scale.BENCHMARKS,
    *tracing.BENCHMARKS,
    *mmu.BENCHMARKS,
    *avic.BENCHMARKS,
    *snapshot.BENCHMARKS,
    *execution.BENCHMARKS,
    *view.BENCHMARKS,
)


def main() -> int:
    """Print one table; status 1 when something is not as asked for."""
    missing = [tool for tool in ("cc", "taskset") if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        sys.stderr.write(f"benchmarks need root, /dev/fuse, cc, taskset; missing: {missing}\n")
        return 1
    wanted = [
        measure for measure in BENCHMARKS if not sys.argv[1:] or measure.__name__ in sys.argv[1:]
    ]
    table = Table("what", "measured", "ask", "further", "")
    good = True
    with TemporaryDirectory(prefix="fakesys-bench-") as folder, bench(Path(folder)) as shared:
        for measure in wanted:
            for figure in measure(shared):
                good = good and figure.good
                table.add_row(*_cells(figure))
    Console().print(table)
    return 0 if good else 1


def _cells(figure: Figure) -> tuple[str, str, str, str, str]:
    return (
        figure.what,
        f"{figure.value:.4g} {figure.unit}",
        "" if figure.most is None else f"<= {figure.most:g}",
        "" if figure.aim is None else f"{figure.aim:g}",
        "" if figure.most is None else "ok" if figure.good else "MISSED",
    )


sys.exit(main())
