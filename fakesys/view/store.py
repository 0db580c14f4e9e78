"""What is known of a mount, by key, and what of it is new to a reader."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

LINES_KEPT = 500
REMOVALS_KEPT = 2000


class Present(NamedTuple):
    """What a store holds at one moment; `read`: when each prefix was read, by `time.monotonic`."""

    values: dict[str, Any]
    lines: dict[str, list[list[str]]]
    read: dict[str, float]


class Store:
    """Values by key and lines by stream, each with the version at which it changed.

    Written by one thread and read by another one.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.version = 0
        self.values: dict[str, tuple[int, Any]] = {}
        self.removed: dict[str, int] = {}
        # Of an earlier version it is no longer known what was removed since.
        self.oldest = 0
        self.lines: dict[str, deque[list[str]]] = {}
        self.counts: dict[str, int] = {}
        self.read: dict[str, float] = {}

    def replace(self, prefix: str, values: Mapping[str, Any]) -> None:
        """Let `values` be all that there is below `prefix`."""
        with self.lock:
            self.version += 1
            self.read[prefix] = time.monotonic()
            for key in [k for k in self.values if k.startswith(prefix) and k not in values]:
                del self.values[key]
                self.removed[key] = self.version
            for key, value in values.items():
                if key not in self.values or self.values[key][1] != value:
                    self.values[key] = (self.version, value)
                    self.removed.pop(key, None)
            while len(self.removed) > REMOVALS_KEPT:
                self.oldest = self.removed.pop(next(iter(self.removed)))

    def append(self, stream: str, lines: Iterable[list[str]]) -> None:
        """Add lines to a stream, each a list of cells."""
        with self.lock:
            kept = self.lines.setdefault(stream, deque(maxlen=LINES_KEPT))
            before = self.counts.get(stream, 0)
            for number, line in enumerate(lines, before + 1):
                kept.append(line)
                self.counts[stream] = number

    def present(self) -> Present:
        """Return all that there is now."""
        with self.lock:
            values = {key: value for key, (_, value) in self.values.items()}
            lines = {stream: list(kept) for stream, kept in self.lines.items()}
            return Present(values, lines, dict(self.read))

    def forget_lines(self) -> None:
        """Begin all streams again, as of another machine."""
        with self.lock:
            self.lines.clear()
            self.counts.clear()
            # Every reader begins again.
            self.version += 1
            self.oldest = self.version


class Reader:
    """One page: what it has been sent."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._version = -1
        self._counts: dict[str, int] = {}

    def news(self) -> dict[str, Any]:
        """Return what the page does not know yet; an empty dict when it knows everything.

        `whole`: the page is to forget what it knows. `set`, `gone`: values by key, and keys
        without a value. `lines`: of each stream. `missed`: how many lines came and went meanwhile.
        """
        store = self._store
        with store.lock:
            found: dict[str, Any] = {}
            if self._version < store.oldest:
                self._version, self._counts = -1, {}
                found["whole"] = True
            known = self._version
            changed = {key: value for key, (at, value) in store.values.items() if at > known}
            gone = [key for key, at in store.removed.items() if at > known >= 0]
            self._version = store.version
            if changed:
                found["set"] = changed
            if gone:
                found["gone"] = gone
            self._add_lines(found)
            return found

    def _add_lines(self, found: dict[str, Any]) -> None:
        for stream, count in self._store.counts.items():
            new = count - self._counts.get(stream, 0)
            if new <= 0:
                continue
            kept = self._store.lines[stream]
            found.setdefault("lines", {})[stream] = list(kept)[-new:]
            if new > len(kept):
                found.setdefault("missed", {})[stream] = new - len(kept)
            self._counts[stream] = count
