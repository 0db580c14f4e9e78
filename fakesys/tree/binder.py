"""The binder: keeps the nodes of the tree in line with the models, by events of the bus.

It filters rows by feature, places mounts at their paths, and drops the nodes of what no longer
exists. It is the only writer of the tree and knows rows and events, no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from fakesys.core.events import Bus, Changed, Notified
from fakesys.core.features import FeatureSet
from fakesys.tree.attr import Dir, Layout, Mount, Row
from fakesys.tree.kinds import SYSFS
from fakesys.tree.node import Directory, File, Node
from fakesys.tree.plan import Plan, compile_layout


class Stale(Struct):
    """What clients may have cached wrongly; a transport reports it before it answers the write.

    `gone`: nodes that no longer exist, with directory and name. `new`: names that were looked up in
    vain and now exist. `changed`: directories whose link count may differ, even if no cached name
    does.
    """

    gone: list[tuple[Directory, str, Node]] = field(default_factory=list)
    new: list[tuple[Directory, str]] = field(default_factory=list)
    changed: list[Directory] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.gone or self.new or self.changed)


class Binder:
    """Makes the root directory and keeps the directories that were looked up, by model.

    Events only mark directories and files; `settle` brings them in line with the models. Call it
    after every request, before the next one looks at the tree.
    """

    def __init__(self, bus: Bus, features: FeatureSet, mounts: Iterable[Mount]) -> None:
        self._features = features
        self._plans: dict[Layout[Any], Plan] = {}
        # Models are kept by their own equality: two views of one queue are one owner.
        self._directories: dict[Any, dict[int, Directory]] = {}
        self._dirty: dict[int, Directory] = {}
        self._deep: dict[int, Directory] = {}
        self._displaced: list[tuple[Directory, str, Node]] = []
        # Whether `settle` has anything to do: read after every request.
        self.unsettled = False
        self._mounts = _MountDirectories()
        self.listen(bus)
        self.root = Directory("", None, None, self._mounts.layout(mounts), None, self, SYSFS)

    @property
    def features(self) -> FeatureSet:
        """The features by which rows are chosen."""
        return self._features

    def listen(self, bus: Bus) -> None:
        """Follow the models on another bus, whose mounts are still to come by `rebind`."""
        bus.subscribe(Changed, self._on_changed)
        bus.subscribe(Notified, self._on_notified)

    def replace(self, bus: Bus, features: FeatureSet, mounts: Iterable[Mount]) -> None:
        """Bind to other models on another bus; drop the nodes whose model is not the same."""
        self.listen(bus)
        self.rebind(features, mounts)

    def rebind(self, features: FeatureSet, mounts: Iterable[Mount]) -> None:
        """Bind to other rows, of another profile; drop the nodes whose model is not the same."""
        self._features = features
        self._plans.clear()
        self.root.layout = self._mounts.layout(mounts)
        self._deep[self.root.ino] = self.root
        self.unsettled = True

    def drop_nodes(self) -> None:
        """Drop all nodes, of which no client has one; a look-up makes them again."""
        self._directories.clear()
        self._dirty.clear()
        self._deep.clear()
        self._displaced.clear()
        self.root.cached.clear()
        self.root.missed.clear()
        self.register(self.root)
        self.unsettled = False

    def plan(self, layout: Layout[Any]) -> Plan:
        """Return the rows of a layout that this profile has."""
        plan = self._plans.get(layout)
        if plan is None:
            plan = self._plans[layout] = compile_layout(layout, self._features)
        return plan

    def register(self, directory: Directory) -> None:
        """Record a directory that was made or got another layout."""
        self._directories.setdefault(directory.model, {})[directory.ino] = directory
        if directory.layout in self._mounts.mixed:
            self._directories.setdefault(None, {})[directory.ino] = directory

    def forget(self, directory: Directory) -> None:
        """Drop the record of a directory that is gone."""
        for owner in (directory.model, None):
            group = self._directories.get(owner, {})
            group.pop(directory.ino, None)
            if not group:
                self._directories.pop(owner, None)

    def displace(self, directory: Directory, name: str, node: Node) -> None:
        """Mark a node as gone because a look-up found something else under its name."""
        self._displaced.append((directory, name, node))
        directory.version += 1
        self.unsettled = True
        for _ in node.mark_gone():
            pass

    def settle(self) -> Stale:
        """Bring the nodes in line with the models; return what a transport must report."""
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

    def _on_notified(self, event: Notified) -> None:
        for file in self._files(event.owner, event.name):
            file.notify()


class _MountDirectories(Struct):
    """The directories above the mounts: nested layouts with each mount at its path."""

    # Layouts of mounts that contain other mounts: they change when one of those comes or goes.
    mixed: set[Layout[Any]] = field(default_factory=set)

    def layout(self, mounts: Iterable[Mount]) -> Layout[None]:
        """Return the layout of the root."""
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
                layout = replace(layout, rows=rows)
                self.mixed.add(layout)
            yield Dir(name, layout, of=_ignore_parent(mount))


def _ignore_parent(mount: Mount) -> Any:
    return lambda _model: mount.of()
