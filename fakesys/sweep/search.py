"""A whole sweep: runs that nothing disturbs, then one run for each cell, then the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from fakesys.pool.pool import Pool
from fakesys.sweep.cell import run_cell
from fakesys.sweep.disturbances import Disturbance
from fakesys.sweep.operations import Operation
from fakesys.sweep.plan import Cell, Choice, Program, cells_of
from fakesys.sweep.state import changed
from fakesys.sweep.verdicts import End, Expected, Judged, judge

# Disturbances that change the machine.
CHANGING = ("gone", "rival", "late")

WORK = "fakesys.sweep.cell:run_cell"
# For fewer tasks no processes are started.
_FEW = 4

Result = dict[str, Any]
Run = Callable[[Sequence[Mapping[str, Any]]], Iterable[tuple[int, Result]]]
"""Does tasks with `run_cell`; yields index and result of each as it ends."""


class SweepError(ValueError):
    """The program cannot be swept; the text is one line that says why."""


class Report(Struct):
    """What was found. `complete`: all cells were run. `unsteady`: files that were not compared."""

    program: Program
    operations: list[Operation]
    judged: list[Judged]
    unsteady: list[str]
    cells: int
    complete: bool = False

    @property
    def findings(self) -> list[Judged]:
        """The cells for which the program is to be mended."""
        return [one for one in self.judged if one.is_finding]


def one_after_another(tasks: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Result]]:
    """Do tasks in this process."""
    for index, task in enumerate(tasks):
        yield index, run_cell(task)


def runner(pool: Pool, command: Sequence[str]) -> Run:
    """Return what runs cells on a pool. To a cluster go also the files that the command names."""
    files = [Path(word) for word in command if Path(word).is_file()] if pool.cluster else []

    def run(tasks: Sequence[Mapping[str, Any]]) -> Iterable[tuple[int, Result]]:
        if pool.cluster is None and len(tasks) < _FEW:
            return one_after_another(tasks)
        return pool.run(WORK, tasks, files=files)

    return run


class References:
    """Runs of the program with the same disturbance, but before it and after it, and of it alone.

    Who changes the machine at some moment could as well have done so earlier or later: what the
    program does about it is right if it ends as one of these. Other disturbances need none.
    """

    def __init__(self, program: Program, disturbances: Iterable[Disturbance]) -> None:
        changing = [one for one in dict.fromkeys(disturbances) if one.kind in CHANGING]
        self._place = {one: 3 * number for number, one in enumerate(changing)}
        self.tasks = [task for one in changing for task in _orders(program, one)]
        self.results: dict[int, Result] = {}

    @property
    def are_known(self) -> bool:
        """Whether all have been run."""
        return len(self.results) == len(self.tasks)

    def of(self, disturbance: Disturbance) -> tuple[list[Result], list[Result]]:
        """Return runs that a disturbed one may end as, and those that give its beginning."""
        place = self._place.get(disturbance)
        if place is None:
            return [], []
        first, last, alone = (self.results[place + number] for number in range(3))
        return [first, last], [alone, first]


def _orders(program: Program, disturbance: Disturbance) -> list[dict[str, Any]]:
    plain, wait = msgspec.to_builtins(disturbance), disturbance.seconds
    return [
        program.task(first=plain, wait=wait, check=[]),
        program.task(last=plain, wait=wait, check=[]),
        program.task(first=plain, wait=wait, check=[], command=[]),
    ]


class Sweep:
    """A sweep of one program. `run` does its tasks. `tell`: called after each cell.

    `former`: cells that were judged before, by name.
    """

    def __init__(
        self,
        program: Program,
        choice: Choice,
        run: Run = one_after_another,
        tell: Callable[[int, int], None] = lambda _done, _all: None,
        former: Mapping[str, Judged] | None = None,
    ) -> None:
        self._program = program
        self._choice = choice
        self._run = run
        self._tell = tell
        self.former = former or {}
        self._undisturbed: Result = {}
        self._unused: Result = {}
        self.report = Report(program, [], [], [], 0)

    def begin(self) -> None:
        """Run the program undisturbed, twice, and find the cells. Raises SweepError."""
        program = self._program
        nothing = program.task(command=[], check=[])
        first, second, self._unused = self._all([program.task(), program.task(), nothing])
        self._undisturbed = first
        if first["hung"]:
            raise SweepError(f"does not end in {program.seconds:g} s, undisturbed")
        if first["bugs"]:
            raise SweepError(f"internal error of fakesys: {first['bugs'][0]}")
        if program.check and first["check"]["status"] != 0:
            raise SweepError("the check does not hold after an undisturbed run")
        self.report.unsteady = changed(first["state"], second["state"])
        self.report.operations = msgspec.convert(first["operations"], list[Operation])

    @property
    def undisturbed(self) -> Result:
        """The result of the program on its own. Precondition: `begin`."""
        return self._undisturbed

    def cells(self) -> list[Cell]:
        """Return the chosen cells. Precondition: `begin`."""
        return cells_of(self.report.operations, self._choice)

    def go_on(self, cells: Sequence[Cell]) -> None:
        """Run the cells and put their verdicts in the report, in the order of the cells."""
        report = self.report
        report.cells = len(cells)
        judged: dict[int, Judged] = {
            index: self.former[cell.name]
            for index, cell in enumerate(cells)
            if cell.name in self.former
        }
        todo = [index for index in range(len(cells)) if index not in judged]
        references = References(self._program, [cells[index].disturbance for index in todo])
        tasks = [*references.tasks, *(cells[index].task(self._program) for index in todo)]
        waiting: dict[int, Result] = {}
        self._tell(len(judged), len(cells))
        try:
            for position, result in self._run(tasks) if tasks else ():
                if position < len(references.tasks):
                    references.results[position] = result
                else:
                    waiting[todo[position - len(references.tasks)]] = result
                if not references.are_known:
                    continue
                for index, ended in waiting.items():
                    expected = self._expected(*references.of(cells[index].disturbance))
                    judged[index] = judge(cells[index], ended, expected)
                waiting.clear()
                self._tell(len(judged), len(cells))
            report.complete = True
        finally:
            report.judged = [judged[index] for index in sorted(judged)]

    def _all(self, tasks: Sequence[Mapping[str, Any]]) -> list[Result]:
        results = dict(self._run(tasks))
        return [results[index] for index in range(len(tasks))]

    def _expected(self, done: Sequence[Result], before: Sequence[Result]) -> Expected:
        own = self._undisturbed
        first_failed = [one for one in before if one.get("status", 1) != 0]
        return Expected(
            done=tuple(End.of(one) for one in (done or (own,))),
            before=tuple(one["state"] for one in (first_failed if before else (self._unused,))),
            unsteady=frozenset(self.report.unsteady),
            wrong=frozenset(
                line for one in (own, self._unused, *done, *before) for line in one["violated"]
            ),
        )
