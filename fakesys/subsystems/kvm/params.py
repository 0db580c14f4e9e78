"""The knobs of the simulated KVM: module parameters, and choices that no real kernel offers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from errno import EINVAL, ENOENT
from typing import Any, Generic, TypeVar

from msgspec import Struct

from fakesys.core.commands import Parse
from fakesys.core.errors import KernelError
from fakesys.core.features import Features

T = TypeVar("T")


def plainly(value: object) -> str:
    """A number or word; a truth value as 0 or 1."""
    return str(int(value)) if isinstance(value, bool) else str(value)


class Param(Struct, Generic[T], frozen=True, eq=False):
    """One knob. `default` holds where the kernel does not say otherwise.

    `modprobe`: it is a module parameter, so `modprobe NAME=VALUE` sets it too.
    """

    name: str
    parse: Parse[T]
    default: T
    doc: str
    modprobe: bool = False
    show: Callable[[T], str] = plainly
    needs: Features = ()
    unless: Features = ()


class Params:
    """What every knob stands at: as chosen, else as the kernel has it, else its default."""

    def __init__(self, rows: Iterable[Param[Any]]) -> None:
        self.rows: dict[str, Param[Any]] = {row.name: row for row in rows}
        self._chosen: dict[str, Any] = {}
        self._kernel: dict[str, Any] = {}

    def __getitem__(self, param: Param[T]) -> T:
        chosen: T = self._chosen.get(param.name, self._kernel.get(param.name, param.default))
        return chosen

    def row(self, name: str) -> Param[Any]:
        """The knob of this name. Raises ENOENT."""
        if name not in self.rows:
            raise KernelError(ENOENT, f"there is no parameter {name!r}")
        return self.rows[name]

    def choose(self, param: Param[T], value: T) -> None:
        """Set a knob; it stays so when the kernel changes."""
        self._chosen[param.name] = value

    def use_kernel(self, defaults: Mapping[str, str]) -> None:
        """What the kernel of a profile sets, by name, as text. Raises EINVAL for no such knob."""
        unknown = defaults.keys() - self.rows.keys()
        if unknown:
            raise KernelError(EINVAL, f"no such parameters: {', '.join(sorted(unknown))}")
        self._kernel = {name: self.rows[name].parse(text) for name, text in defaults.items()}

    def reset(self) -> None:
        """Forget what was chosen."""
        self._chosen.clear()

    def state(self) -> dict[str, str]:
        """What each stands at, as its file says it."""
        return {name: row.show(self[row]) for name, row in self.rows.items()}
