"""The rows that declare a directory: attributes, directories, links, children, device nodes.

A table of rows is data; `tree/plan.py` filters it by the features of the profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from msgspec import Struct, field

from fakesys.core.errors import Waiters
from fakesys.core.features import Features
from fakesys.tree.kinds import Kind

M = TypeVar("M")
C = TypeVar("C")


class Handle(Protocol):
    """An open file with behaviour of its own: streams, `trace`, raw pages.

    `read` and `write` raise KernelError, or Blocked when they would have to wait.
    """

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Return up to `size` bytes, none at the end. The handle itself raises EAGAIN."""

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Return the number of bytes taken."""

    def poll(self) -> int:
        """Return the events of poll(2) that hold now."""

    def waiters(self) -> Waiters | None:
        """Return what wakes a poller; None when the result of `poll` never changes."""

    def release(self) -> None:
        """Clean up after the last descriptor was closed."""


@runtime_checkable
class PagedHandle(Protocol):
    """An open file that splice(2) takes whole pages from."""

    def page(self, offset: int, *, nonblock: bool) -> bytes:
        """Return the page at an offset of the file. Raises KernelError or Blocked."""


class Attr(Struct, Generic[M], frozen=True):
    """One file. `show` gives its text, `store` takes one write; both run on the model.

    `store` returns the bytes taken, None for all. `errors`: errno -> cause, for the reference;
    each is provoked by a test. `needs`, `unless`: the profile has all, or none, of these features.
    `present`: whether the file exists at this moment. `open`: makes a handle of its own instead.
    `truncate`: called at an open with O_TRUNC. `hold`: called at open, for what an open file keeps
    alive; it may refuse, and returns the function to call at the close. `waits`: a write may wait
    or take long, and others may write meanwhile. `copied`: the text takes long, and is made in a
    copy of the process.
    """

    name: str
    mode: int
    doc: str
    show: Callable[[M], str] | None = None
    store: Callable[[M, str], int | None] | None = None
    errors: Mapping[int, str] = field(default_factory=dict)
    needs: Features = ()
    unless: Features = ()
    present: Callable[[M], bool] | None = None
    kind: Kind | None = None
    open: Callable[[M, int], Handle] | None = None
    truncate: Callable[[M], None] | None = None
    hold: Callable[[M], Callable[[], None]] | None = None
    waits: bool = False
    copied: bool = False


class Link(Struct, Generic[M], frozen=True):
    """A symbolic link. `to` gives the target as a path from the mount's root, None for none."""

    name: str
    to: Callable[[M], str | None]
    needs: Features = ()
    unless: Features = ()


class Dir(Struct, Generic[M], frozen=True):
    """A directory of a fixed name. `of` gives its model (None: absent), else the parent's."""

    name: str
    layout: Layout[Any]
    of: Callable[[M], object | None] | None = None
    needs: Features = ()
    unless: Features = ()


class Children(Struct, Generic[M, C], frozen=True):
    """A directory per member of a collection, made at the first look-up.

    `get` returns None for a name that does not exist. The members that it returns must compare
    equal as long as they are the same object, and differ after removal and new creation.
    `label`: how the reference writes such a name, as in `cardXX`.
    """

    names: Callable[[M], Iterable[str]]
    get: Callable[[M, str], C | None]
    layout: Layout[C]
    needs: Features = ()
    unless: Features = ()
    label: str = "*"


class Links(Struct, Generic[M], frozen=True):
    """A link per member of a collection; `get` gives the target from the mount's root."""

    names: Callable[[M], Iterable[str]]
    get: Callable[[M, str], str | None]
    needs: Features = ()
    unless: Features = ()
    label: str = "*"


class Files(Struct, Generic[M, C], frozen=True):
    """A file per member of a collection. `attr` works on the member; its name is not used.

    `get` as in `Children`.
    """

    names: Callable[[M], Iterable[str]]
    get: Callable[[M, str], C | None]
    attr: Attr[C]
    needs: Features = ()
    unless: Features = ()
    label: str = "*"


class DeviceNumber(NamedTuple):
    """A character device: mode of its node, major and minor number."""

    mode: int
    major: int
    minor: int


class DeviceNodes(Struct, Generic[M], frozen=True):
    """A node of a character device per member of a collection; opening one reaches no model."""

    names: Callable[[M], Iterable[str]]
    get: Callable[[M, str], DeviceNumber | None]
    needs: Features = ()
    unless: Features = ()
    label: str = "*"


Collection = Children[Any, Any] | Links[Any] | Files[Any, Any] | DeviceNodes[Any]
Row = Attr[Any] | Link[Any] | Dir[Any] | Collection


class Layout(Struct, Generic[M], frozen=True, eq=False):
    """The rows of a directory for one kind of model. `kind` is inherited when None.

    `late`: returns further rows, when the directory is first looked at.
    `mkdir`, `rmdir`: for directories in which users may make and remove others (None: EPERM).
    """

    rows: tuple[Row, ...] = ()
    mode: int = 0o755
    kind: Kind | None = None
    mkdir: Callable[[M, str], None] | None = None
    rmdir: Callable[[M, str], None] | None = None
    late: Callable[[], tuple[Row, ...]] = tuple


class Mount(Struct, frozen=True):
    """The place of a subsystem's layout: a path from the mount's root, and the model behind it.

    `of` is called at each look-up; None means that the directory does not exist.
    """

    path: str
    layout: Layout[Any]
    of: Callable[[], object | None]
