"""Callbacks of requests that wait for a condition; knows no event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar


class Waiters:
    """Callbacks to run once when a condition may hold.

    A callback must not call into a model: it only marks its request as ready.
    """

    __slots__ = ("_callbacks",)
    # Not saved: the requests that wait belong to this process.
    UNSAVED: ClassVar = {"_callbacks": dict}

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[], None]] = {}

    def __len__(self) -> int:
        return len(self._callbacks)

    def add(self, token: object, callback: Callable[[], None]) -> None:
        """Call `callback` at the next wake; `token` names it for `discard`."""
        self._callbacks[token] = callback

    def discard(self, token: object) -> None:
        """Drop a callback; an unknown token is ignored."""
        self._callbacks.pop(token, None)

    def wake(self) -> None:
        """Drop every callback and run it, in the order in which they were added."""
        if not self._callbacks:
            return
        callbacks = list(self._callbacks.values())
        self._callbacks.clear()
        for callback in callbacks:
            callback()
