"""Values that are made when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class Later(Generic[T]):
    """A value that `make` returns at the first call; every later call returns the same.

    What `make` raises passes on; the next call tries once more.
    """

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []

    def __call__(self) -> T:
        """Return the value."""
        if not self._made:
            made = self._make()
            # Another call may have made it meanwhile, if `make` lets others in.
            if not self._made:
                self._made.append(made)
        return self._made[0]

    @property
    def is_made(self) -> bool:
        """Whether the next call only returns what there is."""
        return bool(self._made)


class LaterMapping(Mapping[K, V]):
    """A mapping that is made when it is first looked at."""

    __slots__ = ("_mapping",)

    def __init__(self, make: Callable[[], Mapping[K, V]]) -> None:
        self._mapping = Later(make)

    def __getitem__(self, key: K) -> V:
        return self._mapping()[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._mapping())

    def __len__(self) -> int:
        return len(self._mapping())
