"""A place where somebody waits for a condition, without knowing who drives the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar


class Waiters:
    """Callbacks to run once when something may have become possible.

    A woken callback must not call back into a model: it only marks its request as ready.
    """

    __slots__ = ("_callbacks",)
    # Who waits is a client of this process.
    UNSAVED: ClassVar = {"_callbacks": dict}

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[], None]] = {}

    def __len__(self) -> int:
        return len(self._callbacks)

    def add(self, token: object, callback: Callable[[], None]) -> None:
        """Call `callback` at the next wake; `token` names it for `discard`."""
        self._callbacks[token] = callback

    def discard(self, token: object) -> None:
        """Forget a callback; unknown tokens are fine."""
        self._callbacks.pop(token, None)

    def wake(self) -> None:
        """Run and forget every callback, in the order in which they were added."""
        if not self._callbacks:
            return
        callbacks = list(self._callbacks.values())
        self._callbacks.clear()
        for callback in callbacks:
            callback()
