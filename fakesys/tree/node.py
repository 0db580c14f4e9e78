"""The nodes of the tree: directory, file, link, device. Made when first looked up, then kept.

A directory asks its model at every look-up, so an answer is always true; `Directory.refresh`
finds the nodes of what no longer exists.
"""

from __future__ import annotations

import itertools
import stat
import time
from collections.abc import Callable, Iterator
from errno import EFBIG
from typing import Any, NamedTuple, Protocol

from fakesys.core.errors import KernelError, Waiters
from fakesys.tree.attr import (
    Attr,
    Children,
    DeviceNodes,
    Dir,
    Files,
    Layout,
    Link,
    Links,
    Row,
)
from fakesys.tree.kinds import Kind
from fakesys.tree.link_text import relative
from fakesys.tree.plan import Plan

# None of these file systems asks for more than what a super block begins with: MAX_NON_LFS.
LARGEST_SIZE = (1 << 31) - 1
DAY_NS = 24 * 3600 * 1_000_000_000
_numbers = itertools.count(1)


class DirectoryRegister(Protocol):
    """What directories need of the binder that keeps them."""

    def plan(self, layout: Layout[Any]) -> Plan:
        """Return the rows of a layout that the present profile has."""

    def register(self, directory: Directory) -> None:
        """Record a directory that was made or got another layout."""

    def forget(self, directory: Directory) -> None:
        """Drop the record of a directory that is gone."""

    def displace(self, directory: Directory, name: str, node: Node) -> None:
        """Mark a node as gone because a look-up found something else under its name."""


class Recipe(NamedTuple):
    """The row and the model that a node is made of; nodes of equal recipes are the same."""

    row: Row
    model: Any


class Node:
    """What every node has. `gone` is set once, when its model or row no longer exists."""

    __slots__ = ("_nanoseconds", "gid", "gone", "ino", "mode", "name", "parent", "recipe", "uid")

    def __init__(
        self, name: str, parent: Directory | None, recipe: Recipe | None, mode: int
    ) -> None:
        self.name = name
        self.parent = parent
        self.recipe = recipe
        self.mode = mode
        self.ino = next(_numbers)
        self.gone = False
        self.uid = 0
        self.gid = 0
        now = time.time_ns()
        self._nanoseconds = (now, now, now)

    @property
    def kind(self) -> Kind:
        """The file system semantics of this node."""
        raise NotImplementedError

    @property
    def path(self) -> str:
        """Path from the root of the mount, without a leading slash."""
        names = []
        node: Node = self
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        return "/".join(reversed(names))

    @property
    def size(self) -> int:
        """st_size."""
        return 0

    @property
    def nlink(self) -> int:
        """st_nlink."""
        return 1

    @property
    def rdev(self) -> int:
        """st_rdev."""
        return 0

    @property
    def times_ns(self) -> tuple[int, int, int]:
        """atime, mtime, ctime in nanoseconds; reading and writing never move them."""
        return self._nanoseconds

    def touch(self) -> None:
        """Move ctime, after a change of mode or owner."""
        self.set_times(None, None)

    def set_times(self, atime_ns: int | None, mtime_ns: int | None) -> None:
        """Set times as utimensat(2) does; None keeps a value."""
        atime, mtime, _ = self._nanoseconds
        self._nanoseconds = (
            atime if atime_ns is None else atime_ns,
            mtime if mtime_ns is None else mtime_ns,
            time.time_ns(),
        )

    def stands_for(self, recipe: Recipe) -> bool:
        """Return whether the recipe would make this node."""
        return self.recipe == recipe

    def mark_gone(self) -> Iterator[Node]:
        """Mark this node and all below it as gone; yield each."""
        self.gone = True
        yield self


class File(Node):
    """A file: one attribute row on one model.

    `event` counts notifications, as `struct kernfs_open_node` of fs/kernfs/file.c does (v6.1).
    """

    __slots__ = ("_size", "event", "kind_", "model", "pollers", "row")

    def __init__(self, name: str, parent: Directory, recipe: Recipe, row: Attr[Any]) -> None:
        super().__init__(name, parent, recipe, stat.S_IFREG | row.mode)
        self.row = row
        self.model = recipe.model
        self.kind_ = row.kind or parent.kind
        self._size = self.kind_.size
        # Like fs/kernfs/file.c: the node's counter starts at 1, that of an open file at 0.
        self.event = 1
        self.pollers = Waiters()

    @property
    def kind(self) -> Kind:
        """The kind of the row, else that of the directory."""
        return self.kind_

    @property
    def size(self) -> int:
        """st_size: what the kind says, or what truncate(2) set."""
        return self._size

    @property
    def nlink(self) -> int:
        """st_nlink: 0 after removal, except where a descriptor may read the rest."""
        return 0 if self.gone and not self.kind.rest_after_gone else 1

    def truncate(self, size: int) -> None:
        """Do truncate(2): keep the size where the file system does, never change the text."""
        if size > LARGEST_SIZE:
            raise KernelError(EFBIG, f"{size} bytes are too many for {self.path}")
        if self.kind.keeps_size:
            self._size = size

    def truncate_open(self, size: int) -> None:
        """Do ftruncate(2), or O_TRUNC of open(2): these move mtime, truncate(2) does not."""
        self.truncate(size)
        self.set_times(None, time.time_ns())

    def show(self) -> bytes:
        """Return the text now. Raises the kind's errno when the attribute has no show()."""
        show = self.row.show
        if show is None:
            raise KernelError(self.kind_.no_show, "this file cannot be read")
        data = show(self.model).encode("latin-1")
        limit = self.kind_.page_limit
        return data if limit is None else data[:limit]

    def store(self, text: str) -> int | None:
        """Pass one write to the model; return the bytes taken, None for all."""
        store = self.row.store
        if store is None:
            raise KernelError(self.kind_.no_store, "this file cannot be written")
        return store(self.model, text)

    def notify(self) -> None:
        """Do sysfs_notify(): pollers see POLLPRI and POLLERR until they read again."""
        self.event += 1
        self.pollers.wake()

    def mark_gone(self) -> Iterator[Node]:
        """Mark the file as gone and wake its pollers."""
        yield from super().mark_gone()
        self.pollers.wake()


class Symlink(Node):
    """A link; its text is relative, as sysfs makes it."""

    __slots__ = ("target",)

    def __init__(self, name: str, parent: Directory, recipe: Recipe) -> None:
        super().__init__(name, parent, recipe, stat.S_IFLNK | 0o777)
        self.target = relative(parent.path, recipe.model)

    @property
    def kind(self) -> Kind:
        """The kind of its directory."""
        assert self.parent is not None
        return self.parent.kind


class DeviceNode(Node):
    """The node of a character device; the recipe's model is its number."""

    def __init__(self, name: str, parent: Directory, recipe: Recipe) -> None:
        super().__init__(name, parent, recipe, stat.S_IFCHR | recipe.model.mode)

    @property
    def kind(self) -> Kind:
        """The kind of its directory."""
        assert self.parent is not None
        return self.parent.kind

    @property
    def rdev(self) -> int:
        """st_rdev as include/linux/kdev_t.h:new_encode_dev packs it (v6.1)."""
        _, major, minor = self.recipe.model if self.recipe else (0, 0, 0)
        return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


class Directory(Node):
    """A directory: a layout on one model, filtered by the binder for the present profile.

    `cached`: the nodes made so far. `missed`: names that were looked up in vain, which a client may
    have cached. `version` grows whenever the names or nodes may differ; `listing` is what a
    transport keeps of them.
    """

    __slots__ = ("_kind", "binder", "cached", "layout", "listing", "missed", "model", "version")

    def __init__(
        self,
        name: str,
        parent: Directory | None,
        recipe: Recipe | None,
        layout: Layout[Any],
        model: object,
        binder: DirectoryRegister,
        kind: Kind,
    ) -> None:
        super().__init__(name, parent, recipe, stat.S_IFDIR | layout.mode)
        self.layout = layout
        self.model = model
        self.binder = binder
        self._kind = layout.kind or kind
        self.cached: dict[str, Node] = {}
        self.missed: set[str] = set()
        self.listing: Any = None
        self.version = 0
        binder.register(self)

    @property
    def kind(self) -> Kind:
        """The kind of the layout, else that of the directory above."""
        return self._kind

    @property
    def nlink(self) -> int:
        """st_nlink: 2 and the number of subdirectories, where the kind counts them."""
        if self.gone:
            return 2 if self.kind.rest_after_gone else 0
        if not self.kind.counts_directories:
            return 1
        return 2 + self.binder.plan(self.layout).count_directories(self.model)

    def stands_for(self, recipe: Recipe) -> bool:
        """Return whether the model is the same; if so, adopt the recipe's layout."""
        if self.recipe == recipe:
            return True
        row, model = recipe
        if self.recipe is None or self.model != model or not isinstance(row, (Dir, Children)):
            return False
        self.recipe, self.layout = recipe, row.layout
        self.binder.register(self)
        return True

    def find(self, name: str) -> Recipe | None:
        """Return the recipe of this name now, None when there is none; make no node."""
        plan = self.binder.plan(self.layout)
        for row in plan.named.get(name, ()):
            recipe = _fixed_recipe(row, self.model)
            if recipe is not None:
                return recipe
        for collection in plan.collections:
            member = collection.get(self.model, name)
            if member is not None:
                return Recipe(collection, member)
        return None

    def lookup(self, name: str) -> Node | None:
        """Return the node of this name, made if needed; None when there is none."""
        recipe = None if self.gone else self.find(name)
        if recipe is None:
            self.missed.add(name)
            return None
        node = self.cached.get(name)
        if node is not None:
            if node.stands_for(recipe):
                return node
            self.binder.displace(self, name, node)
        node = self._make(name, recipe)
        self.cached[name] = node
        return node

    def names(self) -> Iterator[str]:
        """Yield every name of the directory, in the order of the tables."""
        if self.gone:
            return
        plan = self.binder.plan(self.layout)
        for name, rows in plan.named.items():
            if any(_fixed_recipe(row, self.model) is not None for row in rows):
                yield name
        for collection in plan.collections:
            yield from collection.names(self.model)

    def entries(self) -> Iterator[tuple[str, Node]]:
        """Yield names with their nodes."""
        for name in self.names():
            node = self.lookup(name)
            if node is not None:
                yield name, node

    def refresh(
        self, gone: Callable[[Directory, str, Node], None], new: Callable[[Directory, str], None]
    ) -> None:
        """Drop the nodes of what is gone; report them, and the missed names that now exist."""
        for name, node in list(self.cached.items()):
            recipe = self.find(name)
            if recipe is None or not node.stands_for(recipe):
                del self.cached[name]
                gone(self, name, node)
        for name in [name for name in self.missed if self.find(name) is not None]:
            self.missed.discard(name)
            new(self, name)

    def listed(self) -> None:
        """Move atime after a listing, as mounts with relatime do (fs/inode.c, v6.1)."""
        if not self._kind.listing_moves_atime:
            return
        atime, mtime, ctime = self._nanoseconds
        now = time.time_ns()
        if atime <= mtime or atime <= ctime or now - atime >= DAY_NS:
            self._nanoseconds = (now, mtime, ctime)

    def mark_gone(self) -> Iterator[Node]:
        """Mark the directory and all its nodes as gone; yield each."""
        yield from super().mark_gone()
        self.version += 1
        self.binder.forget(self)
        for node in self.cached.values():
            yield from node.mark_gone()

    def _make(self, name: str, recipe: Recipe) -> Node:
        row, model = recipe
        if isinstance(row, Attr):
            return File(name, self, recipe, row)
        if isinstance(row, Files):
            return File(name, self, recipe, row.attr)
        if isinstance(row, (Link, Links)):
            return Symlink(name, self, recipe)
        if isinstance(row, DeviceNodes):
            return DeviceNode(name, self, recipe)
        return Directory(name, self, recipe, row.layout, model, self.binder, self.kind)


def _fixed_recipe(row: Attr[Any] | Link[Any] | Dir[Any], model: Any) -> Recipe | None:
    if isinstance(row, Attr):
        there = row.present is None or row.present(model)
        return Recipe(row, model) if there else None
    if isinstance(row, Link):
        target = row.to(model)
        return None if target is None else Recipe(row, target)
    if row.of is None:
        return Recipe(row, model)
    below = row.of(model)
    return None if below is None else Recipe(row, below)
