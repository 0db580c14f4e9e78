"""Tables plus events become a tree: filters rows by feature, places mounts, drops what is gone.

The only writer of the tree. It knows rows and events, no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct, field

from fakesys.core.events import Bus, Changed, Notified, Touched
from fakesys.core.features import FeatureSet, has_features
from fakesys.tree.attr import Attr, Children, Dir, Files, Layout, Link, Links, Mount, Row
from fakesys.tree.kinds import SYSFS
from fakesys.tree.node import Directory, File, Node

_Named = Attr[Any] | Link[Any] | Dir[Any]
_Collection = Children[Any, Any] | Links[Any] | Files[Any, Any]


class Plan(Struct, frozen=True):
    """A layout as one profile has it."""

    named: dict[str, tuple[_Named, ...]]
    collections: tuple[_Collection, ...]
    # The rows that make directories: asked for every link count.
    always: int
    at_times: tuple[Dir[Any], ...]
    children: tuple[Children[Any, Any], ...]

    def count_directories(self, model: Any) -> int:
        """How many subdirectories a directory of this plan has now."""
        count = self.always
        for row in self.at_times:
            assert row.of is not None
            count += row.of(model) is not None
        for collection in self.children:
            count += sum(1 for _ in collection.names(model))
        return count


class Stale(Struct):
    """What clients may remember wrongly: to be told to the kernel before the write is answered."""

    gone: list[tuple[Directory, str, Node]] = field(default_factory=list)
    new: list[tuple[Directory, str]] = field(default_factory=list)
    touched: list[File] = field(default_factory=list)
    # Directories whose link count may differ, also where no remembered name does.
    changed: list[Directory] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.gone or self.new or self.touched or self.changed)


class Binder:
    """Makes the root directory and keeps track of the directories that somebody has seen."""

    def __init__(self, bus: Bus, features: FeatureSet, mounts: Iterable[Mount]) -> None:
        self._features = features
        self._plans: dict[Layout[Any], Plan] = {}
        # Models are kept by their own equality: two views of one queue are one owner.
        self._directories: dict[Any, dict[int, Directory]] = {}
        self._dirty: dict[int, Directory] = {}
        self._deep: dict[int, Directory] = {}
        self._touched: dict[int, File] = {}
        self._displaced: list[tuple[Directory, str, Node]] = []
        # Has anything happened since the last `settle`? Asked for every request.
        self.unsettled = False
        self._trunk = _Trunk()
        self._listen(bus)
        self.root = Directory("", None, None, self._trunk.layout(mounts), None, self, SYSFS)

    @property
    def features(self) -> FeatureSet:
        """The features by which rows are chosen."""
        return self._features

    def _listen(self, bus: Bus) -> None:
        bus.subscribe(Changed, self._on_changed)
        bus.subscribe(Touched, self._on_touched)
        bus.subscribe(Notified, self._on_notified)

    def replace(self, bus: Bus, features: FeatureSet, mounts: Iterable[Mount]) -> None:
        """Other models on another bus: everything that is not the same thing is dropped."""
        self._listen(bus)
        self.rebind(features, mounts)

    def rebind(self, features: FeatureSet, mounts: Iterable[Mount]) -> None:
        """Another profile: everything that is not the same thing is dropped."""
        self._features = features
        self._plans.clear()
        self.root.layout = self._trunk.layout(mounts)
        self._deep[self.root.ino] = self.root
        self.unsettled = True

    def plan(self, layout: Layout[Any]) -> Plan:
        """The rows of a layout that this profile has."""
        plan = self._plans.get(layout)
        if plan is None:
            plan = self._plans[layout] = compile_layout(layout, self._features)
        return plan

    def register(self, directory: Directory) -> None:
        """A directory was made, or has another layout."""
        self._directories.setdefault(directory.model, {})[directory.ino] = directory
        if directory.layout in self._trunk.mixed:
            self._directories.setdefault(None, {})[directory.ino] = directory

    def forget(self, directory: Directory) -> None:
        """A directory is gone."""
        for owner in (directory.model, None):
            group = self._directories.get(owner, {})
            group.pop(directory.ino, None)
            if not group:
                self._directories.pop(owner, None)

    def displace(self, directory: Directory, name: str, node: Node) -> None:
        """A look-up found something else under the name of this node: it is gone."""
        self._displaced.append((directory, name, node))
        directory.version += 1
        self.unsettled = True
        for _ in node.mark_gone():
            pass

    def settle(self) -> Stale:
        """Bring the nodes in line with the models; what clients must be told."""
        stale = Stale(gone=self._displaced)
        self._displaced = []
        while self._dirty or self._deep:
            dirty = list(self._dirty.values())
            deep = list(self._deep.values())
            self._dirty.clear()
            self._deep.clear()
            for directory in dirty:
                self._refresh(directory, stale)
            for directory in deep:
                self._refresh_deep(directory, stale)
        stale.touched.extend(file for file in self._touched.values() if not file.gone)
        self._touched.clear()
        self.unsettled = False
        return stale

    def _refresh(self, directory: Directory, stale: Stale) -> None:
        def gone(parent: Directory, name: str, node: Node) -> None:
            stale.gone.append((parent, name, node))
            for _ in node.mark_gone():
                pass

        directory.version += 1
        if not directory.gone:
            stale.changed.append(directory)
            directory.refresh(gone, lambda parent, name: stale.new.append((parent, name)))

    def _refresh_deep(self, directory: Directory, stale: Stale) -> None:
        self._refresh(directory, stale)
        for node in list(directory.cached.values()):
            if isinstance(node, Directory):
                self._refresh_deep(node, stale)

    def _on_changed(self, event: Changed) -> None:
        for owner in event.owners:
            for directory in self._directories.get(owner, {}).values():
                (self._deep if event.deep else self._dirty)[directory.ino] = directory
                self.unsettled = True

    def _files(self, owner: object, name: str) -> Iterable[File]:
        for directory in self._directories.get(owner, {}).values():
            node = directory.cached.get(name)
            if isinstance(node, File):
                yield node

    def _on_touched(self, event: Touched) -> None:
        for name in event.names:
            for file in self._files(event.owner, name):
                self._touched[file.ino] = file
                self.unsettled = True

    def _on_notified(self, event: Notified) -> None:
        for file in self._files(event.owner, event.name):
            file.notify()
            self._touched[file.ino] = file
            self.unsettled = True


def wanted(row: Row, features: FeatureSet) -> bool:
    """Does a profile with these features have this row?"""
    return has_features(row.needs, row.unless, features)


def compile_layout(layout: Layout[Any], features: FeatureSet) -> Plan:
    """Sort the rows of a layout that a profile has into names and collections."""
    named: dict[str, tuple[_Named, ...]] = {}
    collections: list[_Collection] = []
    for row in layout.rows:
        if not wanted(row, features):
            continue
        if isinstance(row, (Children, Links, Files)):
            collections.append(row)
        else:
            named[row.name] = (*named.get(row.name, ()), row)
    directories = [row for rows in named.values() for row in rows if isinstance(row, Dir)]
    at_times = tuple(row for row in directories if row.of is not None)
    children = tuple(row for row in collections if isinstance(row, Children))
    return Plan(named, tuple(collections), len(directories) - len(at_times), at_times, children)


class _Trunk(Struct):
    """Nested directories in which each mount stands at its path."""

    # Layouts of a mount below which others stand: they change when one of those comes or goes.
    mixed: set[Layout[Any]] = field(default_factory=set)

    def layout(self, mounts: Iterable[Mount]) -> Layout[None]:
        """The layout of the root."""
        tree: dict[str, Any] = {}
        for mount in mounts:
            branch = tree
            for part in mount.path.split("/") if mount.path else ():
                branch = branch.setdefault(part, {})
            branch.setdefault("", []).append(mount)
        self.mixed.clear()
        return self._branch(tree)

    def _branch(self, branch: dict[str, Any]) -> Layout[None]:
        rows: list[Row] = []
        for name, below in branch.items():
            if name:
                rows.extend(self._rows(name, below))
        return Layout(tuple(rows))

    def _rows(self, name: str, branch: dict[str, Any]) -> Iterable[Row]:
        mounts: list[Mount] = branch.get("", [])
        fixed = self._branch(branch)
        if not mounts:
            yield Dir(name, fixed)
        for mount in mounts:
            layout = mount.layout
            if fixed.rows:
                rows = (*layout.rows, *fixed.rows)
                layout = Layout(rows, layout.mode, layout.kind, layout.mkdir, layout.rmdir)
                self.mixed.add(layout)
            yield Dir(name, layout, of=_ignore_parent(mount))


def _ignore_parent(mount: Mount) -> Any:
    return lambda _model: mount.of()
