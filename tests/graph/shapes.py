"""What the graphs of these tests consist of."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum, Flag
from typing import Any, ClassVar, NamedTuple

from msgspec import Struct

HERE = os.sep


class Colour(Enum):
    """One of two."""

    RED = 1
    BLUE = 2


class Rights(Flag):
    """Any of two."""

    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    """A record."""

    left: Any
    right: Any


class Frozen(Struct, frozen=True):
    """Equal by value."""

    number: int
    more: tuple[Any, ...]


class Ring(Struct, eq=False):
    """A struct that can change, and be a part of itself."""

    name: str
    parts: list[Any]
    next: Ring | None = None


class Keyed:
    """Hashed by what could change."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keyed) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


class Node:
    """Refers to others."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.next: Node | None = None
        self.rest: list[Any] = []

    def hello(self, whom: str) -> str:
        """A text."""
        return f"{self.name} greets {whom}"


class Base:
    """Has a slot that nobody else sees."""

    __slots__ = ("__hidden", "value")

    def __init__(self, value: int) -> None:
        self.value = value
        self.__hidden = 2 * value

    def secret(self) -> int:
        """What is hidden."""
        return self.__hidden


class Slotted(Base):
    """Slots, one of them never set, one not saved."""

    __slots__ = ("told", "unset", "waiting")
    UNSAVED: ClassVar = {"waiting": list}

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.told: list[str] = []
        self.waiting: list[str] = []

    def after_load(self) -> None:
        """Everything is there."""
        self.told.append("loaded")


class Texts(dict[str, int]):
    """Derived from a builtin."""


def double(value: int) -> int:
    """Twice as much."""
    return 2 * value


def counter(box: list[int]) -> tuple[Callable[[], int], Callable[..., int]]:
    """Two functions that share a variable."""
    total = len(box)

    def count() -> int:
        nonlocal total
        total += 1
        box.append(1)
        return total

    def twice(value: int, *, factor: int = 2) -> int:
        return value * factor * bool(total)

    return count, twice


def tripler() -> Callable[[int], int]:
    """A function that closes over nothing."""

    def triple(value: int) -> int:
        return 3 * value

    return triple


def factorial() -> Callable[[int], int]:
    """A function that closes over itself."""

    def product(number: int) -> int:
        return 1 if number < 2 else number * product(number - 1)

    return product


class Rule(Struct, frozen=True):
    """A row of a table with a function in it."""

    name: str
    test: Callable[[int], bool]


RULES = (Rule("even", lambda value: value % 2 == 0), Rule("odd", lambda value: value % 2 == 1))
TABLE = {"pair": Pair(1, 2), "more": [Frozen(1, ())]}
_CACHE: dict[str, Frozen] = {"x": Frozen(8, ())}
LIMITS = (Frozen(7, ()),)
