"""Faults that hit any file: a refused write or read, a delay. There are none at the start.

One row of `FAULTS` per fault; the gate runs before a model hears of the request.
"""

from __future__ import annotations

import errno as errno_numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from errno import EINVAL, ERANGE
from fnmatch import fnmatchcase

from msgspec import Struct

from fakesys.core.clock import Clock
from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.core.text import kstrtoull

# Faults of every file must still be removable.
EXEMPT = ("sys/kernel/debug/fakesys/faults/", "sys/kernel/debug/fakesys/reset")


class Refuse(Struct):
    """Matching requests fail with `errno`: the first `after` pass, then `times` fail."""

    glob: str
    errno: int
    after: int = 0
    times: int | None = None
    seen: int = 0

    def __str__(self) -> str:
        words = [self.glob, errno_numbers.errorcode[self.errno]]
        words += [f"after={self.after}"] if self.after else []
        words += [] if self.times is None else [f"times={self.times}"]
        return " ".join(words)

    def strike(self, path: str) -> None:
        """Count a matching request; raises the errno when it is its turn."""
        if not fnmatchcase(path, self.glob):
            return
        self.seen += 1
        turn = self.seen - self.after
        if turn > 0 and (self.times is None or turn <= self.times):
            raise KernelError(self.errno, f"fault: {self}")


@dataclass(slots=True)
class Delay:
    """Matching requests are answered `seconds` of simulated time later."""

    glob: str
    seconds: float
    # (caller, file, operation) -> when it may pass, in simulated nanoseconds.
    pending: dict[tuple[int, int, str], int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.glob} {self.seconds:g}"

    def strike(self, path: str, key: tuple[int, int, str], clock: Clock) -> None:
        """Raise Blocked until the time has come."""
        if not fnmatchcase(path, self.glob):
            return
        due = self.pending.get(key)
        if due is not None and clock.now_ns >= due:
            del self.pending[key]
            return
        waiters = Waiters()
        timer = clock.after(self.seconds, waiters.wake)
        self.pending[key] = timer.due_ns
        raise Blocked(waiters)


@dataclass
class Faults:
    """What is to go wrong with requests, and the gate that makes it so."""

    store: list[Refuse] = field(default_factory=list)
    show: list[Refuse] = field(default_factory=list)
    delay: list[Delay] = field(default_factory=list)

    @property
    def armed(self) -> bool:
        """Whether there is any fault."""
        return bool(self.store or self.show or self.delay)

    def state(self) -> dict[str, list[str]]:
        """Return the lines of each file, and how many requests each line has seen."""
        return {
            "delay": [str(fault) for fault in self.delay],
            "show": [f"{fault} seen={fault.seen}" for fault in self.show],
            "store": [f"{fault} seen={fault.seen}" for fault in self.store],
        }

    def strike(self, operation: str, path: str, who: tuple[int, int], clock: Clock) -> None:
        """Raise KernelError or Blocked for a request that a fault hits.

        `operation`: "read" or "write"; `who`: pid of the caller and inode of the file.
        """
        if path.startswith(EXEMPT):
            return
        for delay in self.delay:
            delay.strike(path, (*who, operation), clock)
        for refuse in self.store if operation == "write" else self.show:
            refuse.strike(path)


class Fault(Struct, frozen=True):
    """One file below `faults/`: how its lines read and where they go."""

    name: str
    doc: str
    lines: Callable[[Faults], list[str]]
    replace: Callable[[Faults, list[list[str]]], None]
    errors: Mapping[int, str]


def _set_store(faults: Faults, lines: list[list[str]]) -> None:
    faults.store = [_refuse(words) for words in lines]


def _set_show(faults: Faults, lines: list[list[str]]) -> None:
    faults.show = [_refuse(words) for words in lines]


def _set_delay(faults: Faults, lines: list[list[str]]) -> None:
    faults.delay = [_delay(words) for words in lines]


NO_LINE = {EINVAL: "not such a line"}
COUNTED = NO_LINE | {ERANGE: "a count of more than 64 bits"}

FAULTS: tuple[Fault, ...] = (
    Fault(
        name="store",
        doc="Lines `PATH-GLOB ERRNO [after=N] [times=N]`: matching writes fail.",
        lines=lambda faults: [str(fault) for fault in faults.store],
        replace=_set_store,
        errors=COUNTED,
    ),
    Fault(
        name="show",
        doc="Lines `PATH-GLOB ERRNO [after=N] [times=N]`: matching reads fail.",
        lines=lambda faults: [str(fault) for fault in faults.show],
        replace=_set_show,
        errors=COUNTED,
    ),
    Fault(
        name="delay",
        doc="Lines `PATH-GLOB SECONDS`: matching requests are answered later; others are not.",
        lines=lambda faults: [str(fault) for fault in faults.delay],
        replace=_set_delay,
        errors=NO_LINE,
    ),
)


def _refuse(words: list[str]) -> Refuse:
    if len(words) < 2:
        raise KernelError(EINVAL, "a line is PATH-GLOB ERRNO [after=N] [times=N]")
    glob, name, *options = words
    number = {name: number for number, name in errno_numbers.errorcode.items()}.get(name)
    if number is None or not 0 < number < 512:
        raise KernelError(EINVAL, f"{name!r} is no errno such as EIO")
    fault = Refuse(glob.lstrip("/"), number)
    for option in options:
        key, _, value = option.partition("=")
        if key == "after":
            fault.after = kstrtoull(value)
        elif key == "times":
            fault.times = kstrtoull(value)
        else:
            raise KernelError(EINVAL, f"{option!r} is neither after=N nor times=N")
    return fault


def _delay(words: list[str]) -> Delay:
    if len(words) != 2:
        raise KernelError(EINVAL, "a line is PATH-GLOB SECONDS")
    return Delay(words[0].lstrip("/"), parse_seconds(words[1]))


def parse_seconds(text: str) -> float:
    """Return a number of seconds, which may have a fraction. Raises EINVAL if it is negative."""
    body = text.removesuffix("\n")
    whole, _, fraction = body.partition(".")
    if not (whole + fraction).isdecimal() or not body.isascii() or len(body) > 15:
        raise KernelError(EINVAL, f"{text!r} is not a number of seconds")
    return float(body)
