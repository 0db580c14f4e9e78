"""What the simulated machine says of its modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Description(NamedTuple):
    """A module: its `FIELD: VALUE` lines, in their order."""

    fields: tuple[tuple[str, str], ...]

    def first(self, field: str) -> str:
        """Return the first value of a field, "" if there is none."""
        return next((value for name, value in self.fields if name == field), "")

    @property
    def name(self) -> str:
        """Its name, with underscores."""
        return self.first("name")

    @property
    def file(self) -> str:
        """Its file, below the directory of all modules."""
        return self.first("filename")

    @property
    def builtin(self) -> bool:
        """Whether it is a part of the kernel."""
        return bool(self.first("builtin"))

    @property
    def depends(self) -> list[str]:
        """The modules that it needs, in the order of their loading."""
        return [name for name in self.first("depends").split(",") if name]


def parse(text: str) -> Iterator[Description]:
    """Yield the modules in a text of `fakesys/modules/info`."""
    for block in text.split("\n\n"):
        lines = [line.partition(": ") for line in block.strip().split("\n") if line]
        if lines:
            yield Description(tuple((name, value) for name, _, value in lines))


def needed(module: Description, modules: Iterable[Description]) -> list[Description]:
    """Return all modules that one needs, those first that must be loaded first."""
    by_name = {each.name: each for each in modules}
    found: dict[str, Description] = {}
    for name in module.depends:
        if name in by_name:
            found.update((each.name, each) for each in needed(by_name[name], by_name.values()))
            found[name] = by_name[name]
    return list(found.values())
