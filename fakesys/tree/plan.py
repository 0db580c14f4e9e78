"""The rows of a directory that a kernel with some features has, sorted for look-ups."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from fakesys.core.features import FeatureSet, has_features
from fakesys.tree.attr import (
    Attr,
    Children,
    Collection,
    DeviceNodes,
    Dir,
    Files,
    Layout,
    Link,
    Links,
)

NamedRow = Attr[Any] | Link[Any] | Dir[Any]


class Plan(Struct, frozen=True):
    """The rows of a layout that one kernel has.

    `named`: the rows of each fixed name; of several the first that is present at a look-up counts.
    `fixed_directories`: how many directories are always there; `optional_directories` and
    `children` are asked for every link count.
    """

    named: dict[str, tuple[NamedRow, ...]]
    collections: tuple[Collection, ...]
    fixed_directories: int
    optional_directories: tuple[Dir[Any], ...]
    children: tuple[Children[Any, Any], ...]

    def count_directories(self, model: Any) -> int:
        """Return how many subdirectories a directory of this plan has now."""
        count = self.fixed_directories
        for row in self.optional_directories:
            assert row.of is not None
            count += row.of(model) is not None
        for collection in self.children:
            count += sum(1 for _ in collection.names(model))
        return count


def compile_layout(layout: Layout[Any], features: FeatureSet) -> Plan:
    """Return the rows of a layout that a kernel with these features has."""
    named: dict[str, tuple[NamedRow, ...]] = {}
    collections: list[Collection] = []
    for row in (*layout.rows, *layout.late()):
        if not has_features(row.needs, row.unless, features):
            continue
        if isinstance(row, (Children, DeviceNodes, Files, Links)):
            collections.append(row)
        else:
            named[row.name] = (*named.get(row.name, ()), row)
    directories = [row for rows in named.values() for row in rows if isinstance(row, Dir)]
    optional = tuple(row for row in directories if row.of is not None)
    children = tuple(row for row in collections if isinstance(row, Children))
    return Plan(named, tuple(collections), len(directories) - len(optional), optional, children)
