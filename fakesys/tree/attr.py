"""What the rows are from which a directory is made: attribute, directory, link, children.

A table of rows is data; `tree/binder.py` filters it by the features of the profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct, field

from fakesys.core.features import Features
from fakesys.core.waiters import Waiters
from fakesys.tree.kinds import Kind

M = TypeVar("M")
C = TypeVar("C")


class Handle(Protocol):
    """An open file with behaviour of its own: streams, `trace`, raw pages.

    `read` and `write` raise KernelError, or Blocked when they would have to wait.
    """

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Up to `size` bytes; empty at the end. EAGAIN is the handle's to raise."""

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Bytes taken."""

    def poll(self) -> int:
        """The events of poll(2) that are true now."""

    def waiters(self) -> Waiters | None:
        """What wakes a poller; None when the answer of `poll` never changes."""

    def release(self) -> None:
        """The last descriptor is closed."""


class Attr(Struct, Generic[M], frozen=True):
    """One file. `show` gives its text, `store` takes one write; both run on the model.

    `store` returns the bytes taken, None for all. `errors`: errno -> cause, for the reference;
    each is provoked by a test. `needs`, `unless`: features of the profile, all / none of them.
    `present`: is the file there at this moment? `announced`: every change of the text comes with
    a `Touched` event, so it may be cached. `open`: makes a handle of its own instead.
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
    announced: bool = False
    kind: Kind | None = None
    open: Callable[[M, int], Handle] | None = None
    # O_TRUNC on open; a plain attribute does nothing then.
    truncate: Callable[[M], None] | None = None
    # An open file keeps something alive: called at open (may refuse), its result at the close.
    hold: Callable[[M], Callable[[], None]] | None = None


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
    """A directory per member of a collection, made when somebody looks.

    `get` answers None for a name that is not there. What it answers must compare equal
    as long as it stands for the same thing, and differ after removal and new creation.
    """

    names: Callable[[M], Iterable[str]]
    get: Callable[[M, str], C | None]
    layout: Layout[C]
    needs: Features = ()
    unless: Features = ()
    # How the reference writes such a name: `cardXX`.
    label: str = "*"


class Links(Struct, Generic[M], frozen=True):
    """A link per member of a collection; `get` gives the target from the mount's root."""

    names: Callable[[M], Iterable[str]]
    get: Callable[[M, str], str | None]
    needs: Features = ()
    unless: Features = ()
    label: str = "*"


class Files(Struct, Generic[M, C], frozen=True):
    """A file per member of a collection; `attr` works on the member, its own name counts for
    nothing. `get` as in `Children`.
    """

    names: Callable[[M], Iterable[str]]
    get: Callable[[M, str], C | None]
    attr: Attr[C]
    needs: Features = ()
    unless: Features = ()
    label: str = "*"


Row = Attr[Any] | Link[Any] | Dir[Any] | Children[Any, Any] | Links[Any] | Files[Any, Any]


class Layout(Struct, Generic[M], frozen=True, eq=False):
    """What a directory of one kind of model holds. `kind` is inherited when None.

    `mkdir`, `rmdir`: for directories in which users may make and remove others (None: EPERM).
    """

    rows: tuple[Row, ...] = ()
    mode: int = 0o755
    kind: Kind | None = None
    mkdir: Callable[[M, str], None] | None = None
    rmdir: Callable[[M, str], None] | None = None


class Mount(Struct, frozen=True):
    """Where a subsystem's layout stands: a path from the mount's root, and the model behind it.

    `of` is asked at each look-up; None means that the directory is not there.
    """

    path: str
    layout: Layout[Any]
    of: Callable[[], object | None]
