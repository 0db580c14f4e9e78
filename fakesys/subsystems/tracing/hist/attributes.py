"""The parts of the text of a hist trigger.

Like kernel/trace/trace_events_hist.c:parse_hist_trigger_attrs, parse_assignment, parse_action,
parse_map_size, parse_var_defs (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL

from msgspec import Struct, field

from fakesys.core.errors import KernelError
from fakesys.core.text import kstrtoull

DEFAULT_BITS, SMALLEST_BITS, LARGEST_BITS = 11, 7, 17
MOST_ASSIGNMENTS = 16
MOST_ACTIONS = 8
HANDLERS = ("onmatch(", "onmax(", "onchange(")

Log = Callable[[str, str | None], None]
"""Appends a message to `error_log`, with the part of the command that it is about, if any."""

_ASSIGNED = {
    "key": "keys",
    "keys": "keys",
    "val": "values",
    "vals": "values",
    "values": "values",
    "sort": "sort",
    "name": "name",
}


class Attributes(Struct):
    """The parts, not yet parsed. `text`: all of it. `actions`, `assignments`: in their order."""

    text: str
    parts: dict[str, str] = field(default_factory=dict)
    clock: str = "global"
    bits: int = DEFAULT_BITS
    assignments: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    commands: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The name that histograms with one table share."""
        return self.parts.get("name", "")

    @property
    def command(self) -> str:
        """What is to be done with a histogram that is there: pause, cont, clear or nothing."""
        return next((each for each in ("pause", "cont", "clear") if each in self.commands), "")


def refusal(log: Log, message: str, at: str | None, errno: int = EINVAL) -> KernelError:
    """Log a mistake; return the error to raise."""
    log(message, at)
    return KernelError(errno, message if at is None else f"{message}: {at!r}")


def parse_attributes(text: str, log: Log) -> Attributes:
    """Divide what follows `hist:`. Raises EINVAL; most mistakes are logged."""
    found = Attributes(text)
    for part in text.split(":"):
        _, assigned, value = part.partition("=")
        if assigned and not value:
            raise refusal(log, "Empty assignment", part)
        if assigned:
            _assign(found, part, log)
        elif part in ("pause", "cont", "continue", "clear"):
            found.commands.add(part.removesuffix("inue"))
        elif part.startswith(HANDLERS) and len(found.actions) < MOST_ACTIONS:
            found.actions.append(part)
        else:
            raise KernelError(EINVAL, f"{part!r} is no part of a histogram")
    if "keys" not in found.parts:
        raise KernelError(EINVAL, "a histogram needs keys")
    return found


def _assign(found: Attributes, part: str, log: Log) -> None:
    name, _, value = part.partition("=")
    if name in _ASSIGNED:
        found.parts[_ASSIGNED[name]] = value
    elif name == "clock":
        found.clock = value.strip()
    elif name == "size":
        found.bits = _bits(value)
    elif len(found.assignments) == MOST_ASSIGNMENTS:
        raise refusal(log, "Too many variables defined", part)
    else:
        found.assignments.append(part)


def _bits(text: str) -> int:
    bits = max(0, kstrtoull(text) - 1).bit_length()
    if not SMALLEST_BITS <= bits <= LARGEST_BITS:
        raise KernelError(EINVAL, f"{text} entries are too few or too many")
    return bits


def definitions(assignments: list[str], log: Log) -> list[tuple[str, str]]:
    """Return the names and expressions of variables. Raises EINVAL, which is logged."""
    found: list[tuple[str, str]] = []
    for assignment in assignments:
        for part in assignment.split(",")[:MOST_ASSIGNMENTS]:
            name, assigned, expression = part.partition("=")
            if not assigned:
                raise refusal(log, "Malformed assignment", name)
            if len(found) == MOST_ASSIGNMENTS:
                raise refusal(log, "Too many variables defined", name)
            found.append((name, expression))
    return found
