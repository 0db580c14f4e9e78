"""A series of patches as kernels: its levels, and levels without some of their patches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from errno import EINVAL
from typing import Generic, TypeVar

from msgspec import Struct

from fakesys.core.errors import KernelError

K = TypeVar("K")
Patches = frozenset[int]
_PATCH = re.compile(r"-(\d\d)")


class Series(Struct, Generic[K], frozen=True):
    """A series on top of the kernel `base`. `count`: of its patches; `prefix`: of their names.

    `needed_by`: patch -> later patches that cannot be there without it. `build`: makes the kernel
    of a name from the patches that it has.

        series = Series("5.3", "v6", 10, {1: (6,)}, build)
        series.patches("v6-10-01-06")       # frozenset({2, 3, 4, 5, 7, 8, 9, 10})
    """

    base: str
    prefix: str
    count: int
    needed_by: Mapping[int, tuple[int, ...]]
    build: Callable[[str, Patches], K]

    def levels(self) -> Iterator[str]:
        """Yield the names of the kernel before the series, and after each patch."""
        yield self.base
        for patch in range(1, self.count + 1):
            yield f"{self.prefix}-{patch:02d}"

    def patches(self, name: str) -> Patches | None:
        """Return the patches of a kernel; None for a name that is none of this series.

        Raises EINVAL for patches that cannot be taken away.
        """
        if name == self.base:
            return frozenset()
        numbers = name.removeprefix(self.prefix)
        if numbers == name or not re.fullmatch(rf"({_PATCH.pattern})+", numbers):
            return None
        level, *removed = map(int, _PATCH.findall(numbers))
        if not 1 <= level <= self.count:
            raise KernelError(EINVAL, f"{self.prefix} has patches 01 to {self.count:02d}")
        there = frozenset(range(1, level + 1))
        if len(set(removed)) < len(removed) or not there.issuperset(removed):
            raise KernelError(EINVAL, f"{name!r} takes away a patch that is not there")
        left = there - set(removed)
        for patch in removed:
            self._refuse_needed(name, patch, removed, left)
        return left

    def _refuse_needed(self, name: str, patch: int, removed: list[int], left: Patches) -> None:
        needing = [other for other in self.needed_by.get(patch, ()) if other in left]
        if needing:
            word = "patch" if len(needing) == 1 else "patches"
            gone = {other for one in removed for other in self._all_needing(one)}
            others = "".join(f"-{other:02d}" for other in sorted(gone & left))
            raise KernelError(
                EINVAL,
                f"patch {patch:02d} of {self.prefix} is needed by {word} "
                f"{', '.join(f'{other:02d}' for other in needing)}: {name}{others} is possible",
            )

    def _all_needing(self, patch: int) -> set[int]:
        """Return the patches that cannot be there without one, and those that need these."""
        found: set[int] = set()
        for other in self.needed_by.get(patch, ()):
            found |= {other} | self._all_needing(other)
        return found


class Kernels(dict[str, K]):
    """The kernels of one part by name: those with a name of their own, and those of a series.

    The second ones are made when they are asked for, and are no members of the table.
    """

    def __init__(self, named: Mapping[str, K], series: Series[K]) -> None:
        super().__init__(named)
        self.series = series
        self._built: dict[str, K] = {}

    def __missing__(self, name: str) -> K:
        """Return a kernel of the series. Raises EINVAL for any other name."""
        if name not in self._built:
            patches = self.series.patches(name)
            if patches is None:
                raise KernelError(EINVAL, f"{name!r} is none of {', '.join(self.names())}")
            self._built[name] = self.series.build(name, patches)
        return self._built[name]

    def names(self) -> tuple[str, ...]:
        """Return the names of all kernels but those without a patch in their middle."""
        return (*(name for name in self.series.levels() if name not in self), *self)
