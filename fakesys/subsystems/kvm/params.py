"""The parameters of the simulated KVM: of its modules, and choices that no real kernel offers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from errno import EINVAL, ENOENT
from typing import Any, Generic, TypeVar

from msgspec import Struct

from fakesys.core.commands import Parse
from fakesys.core.errors import KernelError
from fakesys.core.features import Features

T = TypeVar("T")


def number_or_word(value: object) -> str:
    """Return a number or word as text, a truth value as 0 or 1."""
    return str(int(value)) if isinstance(value, bool) else str(value)


class Param(Struct, Generic[T], frozen=True, eq=False):
    """One parameter. `default` is its value where a profile has no other.

    `modprobe`: it is a module parameter, so `modprobe NAME=VALUE` sets it too.
    """

    name: str
    parse: Parse[T]
    default: T
    doc: str
    modprobe: bool = False
    show: Callable[[T], str] = number_or_word
    needs: Features = ()
    unless: Features = ()


class Params:
    """The value of every parameter: as chosen, else as the profile has it, else its default."""

    def __init__(self, rows: Iterable[Param[Any]]) -> None:
        self.rows: dict[str, Param[Any]] = {row.name: row for row in rows}
        self._chosen: dict[str, Any] = {}
        self._kernel: dict[str, Any] = {}

    def __getitem__(self, param: Param[T]) -> T:
        chosen: T = self._chosen.get(param.name, self._kernel.get(param.name, param.default))
        return chosen

    def row(self, name: str) -> Param[Any]:
        """Return the parameter of this name. Raises ENOENT."""
        if name not in self.rows:
            raise KernelError(ENOENT, f"there is no parameter {name!r}")
        return self.rows[name]

    def choose(self, param: Param[T], value: T) -> None:
        """Choose a value, which is kept when the kernel changes."""
        self._chosen[param.name] = value

    def drop(self, param: Param[T]) -> None:
        """Forget what was chosen for a parameter."""
        self._chosen.pop(param.name, None)

    def chosen(self) -> dict[str, str]:
        """Return the chosen values by name, each as its file shows it."""
        return {name: self.rows[name].show(value) for name, value in self._chosen.items()}

    def use_kernel(self, defaults: Mapping[str, str]) -> None:
        """Set the values of a profile, given as text by name. Raises EINVAL for an unknown one."""
        unknown = defaults.keys() - self.rows.keys()
        if unknown:
            raise KernelError(EINVAL, f"no such parameters: {', '.join(sorted(unknown))}")
        self._kernel = {name: self.rows[name].parse(text) for name, text in defaults.items()}

    def reset(self) -> None:
        """Drop all chosen values."""
        self._chosen.clear()

    def state(self) -> dict[str, str]:
        """Return each value by name, as its file shows it."""
        return {name: row.show(self[row]) for name, row in self.rows.items()}
