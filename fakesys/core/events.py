"""The bus: events of the simulated kernel, passed synchronously and in order to subscribers.

A subscriber formats, stores or marks; it never calls back into a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

from msgspec import Struct, field

E = TypeVar("E")


class Task(NamedTuple):
    """The simulated task and CPU in whose context something happens.

    `group`: the pid of the process that a thread belongs to, 0 for the process itself.
    """

    pid: int
    comm: str
    cpu: int
    group: int = 0

    @property
    def tgid(self) -> int:
        """The pid of the thread group."""
        return self.group or self.pid


IDLE = Task(pid=0, comm="<idle>", cpu=0)


class Uevent(Struct, frozen=True):
    """One kobject event. `env` holds the fields after ACTION, DEVPATH and SUBSYSTEM."""

    action: str
    devpath: str
    subsystem: str
    env: Mapping[str, str] = field(default_factory=dict)


class UeventBatch(Struct, frozen=True):
    """Many uevents of one operation, made only when they are read.

    `make` yields exactly `count` events and depends on nothing that changes later.
    """

    count: int
    make: Callable[[], Iterable[Uevent]]


class LogLine(Struct, frozen=True):
    """One line of the kernel log, without time stamp and newline."""

    text: str


class Changed(Struct, frozen=True):
    """The names in the directories of these models may have changed; the tree drops what is gone.

    `deep`: also in every directory below theirs.
    """

    owners: tuple[object, ...]
    deep: bool = False


class Notified(Struct, frozen=True):
    """A sysfs_notify() on one attribute of `owner`, which wakes pollers with POLLPRI|POLLERR."""

    owner: object
    name: str


class Scheduler(Protocol):
    """What models say of their threads while events of the scheduler are recorded."""

    def begin(self) -> None:
        """Put the current task of the bus, which has waited for work, on its CPU."""

    def run(self) -> None:
        """Put the current task of the bus on its CPU, unless it is there."""

    def sleep(self, task: Task) -> None:
        """Take a task off its CPU: it waits."""

    def wake(self, task: Task) -> None:
        """Make a task that waits runnable, on behalf of the current task of the bus."""

    def preempt(self, task: Task) -> None:
        """Displace a task that could go on."""

    def migrate(self, task: Task, cpu: int) -> None:
        """Move a task that is not running to another CPU."""

    def fork(self, parent: Task, child: Task) -> None:
        """Make a thread."""

    def exit(self, task: Task) -> None:
        """End a thread."""


class Bus:
    """Synchronous publish and subscribe, by the exact type of the event.

    `wanted` holds the types that have a watcher, so that an event without listeners costs a single
    set lookup: `if KvmExit in bus.wanted: bus.emit(KvmExit(...))`.
    `task` is the task in whose context events are emitted. `scheduler`: None unless events of the
    scheduler are recorded.
    """

    def __init__(self) -> None:
        self._watchers: dict[type, tuple[Callable[[Any], None], ...]] = {}
        self.wanted: set[type] = set()
        self.task: Task = IDLE
        self.scheduler: Scheduler | None = None

    def subscribe(self, kind: type[E], watcher: Callable[[E], None]) -> Callable[[], None]:
        """Call `watcher` for each event of exactly this type; return the function that ends it."""
        self._watchers[kind] = (*self._watchers.get(kind, ()), watcher)
        self.wanted.add(kind)

        def unsubscribe() -> None:
            left = tuple(w for w in self._watchers.get(kind, ()) if w is not watcher)
            if left:
                self._watchers[kind] = left
                return
            self._watchers.pop(kind, None)
            self.wanted.discard(kind)

        return unsubscribe

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Call no watcher within the block."""
        before, self._watchers = self._watchers, {}
        try:
            yield
        finally:
            self._watchers = before

    def emit(self, event: object) -> None:
        """Call every watcher of the event's type, in the order of subscription."""
        for watcher in self._watchers.get(type(event), ()):
            watcher(event)
