"""Which cells there are: operations and what disturbs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from fakesys.machine.machine import Machine
from fakesys.sweep.disturbances import Disturbance, Write, is_lasting
from fakesys.sweep.operations import Operation

# What every call may end with, whatever file it is of.
ALWAYS = ("EINTR", "EIO", "ENOMEM")
KINDS = ("errno", "gone", "rival", "late", "kill")


class Program(Struct, frozen=True):
    """What is run, and where. `machine`: `zygote.MachineSpec` as plain data."""

    command: tuple[str, ...]
    machine: dict[str, Any]
    environment: dict[str, str]
    directory: str
    net: bool = False
    seconds: float = 10.0
    check: tuple[str, ...] = ()

    def task(self, **values: Any) -> dict[str, Any]:
        """Return the task of a cell."""
        return {
            "command": list(self.command),
            "machine": self.machine,
            "environment": self.environment,
            "directory": self.directory,
            "net": self.net,
            "seconds": self.seconds,
            "check": list(self.check),
            "known": " ".join((*self.command, *self.check)),
            **values,
        }


class Choice(Struct, frozen=True):
    """Which cells are run. Empty values choose all.

    `only`: numbers and kinds of operations. `faults`: kinds and labels of disturbances. `paths`: a
    pattern. `limit`: so many cells. `late`: simulated seconds. `rivals`: writes by name.
    """

    only: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    paths: str = ""
    limit: int = 0
    late: float = 0.5
    rivals: Mapping[str, tuple[Write, ...]] = {}


class Cell(Struct, frozen=True):
    """An operation and what disturbs it."""

    operation: Operation
    disturbance: Disturbance

    @property
    def name(self) -> str:
        """As `--replay` takes it: `7:EBUSY`."""
        return f"{self.operation.number}:{self.disturbance.label}"

    def task(self, program: Program) -> dict[str, Any]:
        """Return the task of this cell."""
        aim = {"key": self.operation.key, "disturbance": msgspec.to_builtins(self.disturbance)}
        kill = self.disturbance.kind == "kill"
        return program.task(aim=aim, again=kill, wait=self.disturbance.seconds)


def cells_of(operations: Sequence[Operation], choice: Choice) -> list[Cell]:
    """Return the chosen cells, operation by operation."""
    cells = [
        Cell(operation, disturbance)
        for operation in operations
        if _is_chosen(operation, choice)
        for disturbance in disturbances_of(operation, choice)
        if not choice.faults or {disturbance.kind, disturbance.label} & set(choice.faults)
    ]
    return cells[: choice.limit] if choice.limit else cells


def _is_chosen(operation: Operation, choice: Choice) -> bool:
    if choice.only and not {operation.kind, str(operation.number)} & set(choice.only):
        return False
    path = operation.path
    return not choice.paths or fnmatch(path, choice.paths) or fnmatch(f"/{path}", choice.paths)


def disturbances_of(operation: Operation, choice: Choice) -> Iterator[Disturbance]:
    """Yield what can go wrong around an operation."""
    for name in dict.fromkeys((*operation.errnos, *ALWAYS)):
        yield Disturbance("errno", name)
    device = operation.device
    if device:
        yield Disturbance("gone", device=device)
    for name, writes in choice.rivals.items():
        yield Disturbance("rival", name if len(choice.rivals) > 1 else "", writes=writes)
    for name in ("before", "after"):
        yield Disturbance("kill", name)
    if is_lasting(device):
        yield Disturbance("late", device=device, seconds=choice.late)


def program_of(
    command: Sequence[str],
    machine: Machine,
    environment: dict[str, str],
    directory: Path,
    **values: Any,
) -> Program:
    """Return what is to be swept, on machines like this one."""
    spec = {
        "origin": msgspec.to_builtins(machine.origin),
        "clock_rate": machine.clock.rate,
        "lockdown": machine.fs.locked_down,
    }
    return Program(tuple(command), spec, environment, str(directory), **values)
