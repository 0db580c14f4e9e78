"""The debug features of a machine and their messages. Knows no text of files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

from msgspec import Struct

from fakesys.core.events import Changed
from fakesys.core.kernel import Kernel

PAGE = 4096
# debug.h:DEBUG_MAX_LEVEL, DEBUG_OFF_LEVEL; bytes of struct __debug_entry (v6.1).
MOST_LEVEL, OFF = 6, -1
_ENTRY = 18
# More pages than any driver asks for; each message is a line of a snapshot.
MOST_PAGES = 1024


class Level(IntEnum):
    """Levels of messages, as drivers/s390/crypto/ap_debug.h has them (v6.1)."""

    ERR = 3
    WARN = 4
    INFO = 5
    DEBUG = 6


class DebugPolicy(Struct, frozen=True):
    """The choices of one kernel.

    `debug_messages`: do drivers write those of the level DEBUG? `pkey_level`: of the feature `pkey`
    as the driver sets it.
    """

    debug_messages: bool = True
    pkey_level: Level = Level.ERR


FIRST = DebugPolicy()


class Entry(NamedTuple):
    """One message with its time in simulated nanoseconds."""

    time_ns: int
    level: int
    text: str


class DebugFeature:
    """One feature. `module`: which makes it; `pages`, `level`: as the driver sets them.

    `arguments`: how many an entry has room for, which decides about the entries of a page.
    """

    def __init__(self, name: str, module: str, pages: int, arguments: int, level: Level) -> None:
        self.name = name
        self.module = module
        self.pages = pages
        self.level: int = level
        self._first = (pages, level)
        self._per_page = PAGE // (_ENTRY + 8 * arguments)
        self.entries: deque[Entry] = deque(maxlen=self.capacity)

    @property
    def capacity(self) -> int:
        """How many messages its pages hold."""
        return self.pages * self._per_page

    def set_pages(self, pages: int) -> None:
        """Have another size, with the newest messages that fit into it."""
        self.pages = pages
        self.entries = deque(self.entries, maxlen=self.capacity)

    def reset(self) -> None:
        """Be as the driver has made it: its module was loaded."""
        self.pages, self.level = self._first
        self.entries = deque(maxlen=self.capacity)

    def begin_with(self, level: Level) -> None:
        """Have another level from the load on, and now if nobody has changed it."""
        pages, first = self._first
        self._first = (pages, level)
        if self.level == first:
            self.level = level

    def state(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"entries": len(self.entries), "level": self.level, "pages": self.pages}


class DebugFeatures:
    """The features of the drivers for crypto cards, by name."""

    def __init__(
        self,
        kernel: Kernel,
        is_loaded: Callable[[str], bool] = lambda _name: False,
        policy: DebugPolicy = FIRST,
    ) -> None:
        self.kernel = kernel
        self.policy = policy
        self._is_loaded = is_loaded
        made = (
            DebugFeature("ap", "ap", 2, 6, Level.ERR),
            DebugFeature("zcrypt", "zcrypt", 2, 6, Level.ERR),
            DebugFeature("pkey", "pkey", 1, 5, policy.pkey_level),
            DebugFeature("vfio_ap", "vfio_ap", 1, 10, Level.WARN),
        )
        self.all = {feature.name: feature for feature in made}

    def present(self) -> list[str]:
        """Return the names of the features whose modules are loaded."""
        return [name for name, each in self.all.items() if self._is_loaded(each.module)]

    def find(self, name: str) -> DebugFeature | None:
        """Return a feature by its name, None while its module is not loaded."""
        feature = self.all.get(name)
        return feature if feature is not None and self._is_loaded(feature.module) else None

    def module_changed(self, name: str) -> None:
        """Follow a module that was loaded, or removed with all its messages."""
        if name in self.all:
            self.all[name].reset()
            self.kernel.bus.emit(Changed((self,)))

    def use(self, policy: DebugPolicy) -> None:
        """Behave like another kernel; messages stay."""
        self.policy = policy
        self.all["pkey"].begin_with(policy.pkey_level)

    def wants(self, name: str, level: Level) -> bool:
        """Return whether a feature keeps messages of a level that the drivers write."""
        if level is Level.DEBUG and not self.policy.debug_messages:
            return False
        feature = self.find(name)
        return feature is not None and level <= feature.level

    def write(self, name: str, level: Level, text: str) -> None:
        """Write a message of a driver, if its feature keeps those of the level."""
        if self.wants(name, level):
            self.all[name].entries.append(Entry(self.kernel.clock.now_ns, level, text))

    def set_level(self, feature: DebugFeature, level: int) -> None:
        """Keep messages up to a level, none for OFF; do nothing for one above 6.

        Like debug.c:debug_set_level (v6.1).
        """
        if level > MOST_LEVEL:
            why = f"level {level} is out of range (0 - {MOST_LEVEL})"
            self.kernel.log(f"s390dbf: {feature.name}: {why}")
            return
        if level == OFF:
            self.kernel.log(f"s390dbf: {feature.name}: switched off")
        feature.level = level

    def set_pages(self, feature: DebugFeature, pages: int) -> None:
        """Have another number of pages. Like debug.c:debug_set_size (v6.1)."""
        feature.set_pages(pages)
        self.kernel.log(f"s390dbf: {feature.name}: set new size ({pages} pages)")

    def state(self) -> dict[str, Any]:
        """Return the features as plain data."""
        return {name: self.all[name].state() for name in self.present()}
