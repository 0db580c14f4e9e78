"""Requests that wait for an event in the machine, and the list of what has been woken.

A handler that raises Blocked names the waiters that it must be woken with. Its request is parked:
kept whole, and performed again from the start once it was woken. So no model ever waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fakesys.core.errors import Blocked, Underway
from fakesys.core.kernel import Caller
from fakesys.transport.fuse.handlers import Handler
from fakesys.transport.fuse.protocol import Message


class Call(NamedTuple):
    """One request. Its message is cut to its length if it is kept, to be performed again."""

    unique: int
    handler: Handler
    nodeid: int
    message: Message


class Parked(NamedTuple):
    """A call that waits, why, and the process that made it."""

    call: Call
    blocked: Blocked
    caller: Caller


class Wakeups:
    """Requests by number, and polled files by the kernel's handle, that were woken."""

    __slots__ = ("pollers", "requests")

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.pollers: list[int] = []

    def take(self) -> tuple[list[int], list[int]]:
        """Return requests and pollers and forget them; both lists stay the same objects."""
        taken = self.requests[:], self.pollers[:]
        self.requests.clear()
        self.pollers.clear()
        return taken

    def add(self, requests: list[int], pollers: list[int]) -> None:
        """Put back what `take` returned."""
        self.requests += requests
        self.pollers += pollers


class ParkedCalls:
    """The calls that wait, by the number of their request."""

    def __init__(self, wakeups: Wakeups) -> None:
        self._wakeups = wakeups
        self._calls: dict[int, Parked] = {}

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._calls))

    def unanswered(self) -> Iterator[Call]:
        """Yield the calls that wait."""
        return (parked.call for parked in self._calls.values())

    def park(self, call: Call, blocked: Blocked, caller: Caller) -> None:
        """Keep a call until the waiters of `blocked` wake it."""
        unique, woken = call.unique, self._wakeups.requests
        self._calls[unique] = Parked(call, blocked, caller)
        blocked.waiters.add(("request", unique), lambda: woken.append(unique))

    def take(self, unique: int) -> Parked | None:
        """Return a woken call and forget it; None when it was ended before."""
        return self._calls.pop(unique, None)

    def interrupted(self, unique: int) -> bool:
        """Tell a call of the signal; return whether it waits on nevertheless."""
        parked = self._calls.get(unique)
        if parked is None or not isinstance(parked.blocked, Underway):
            return False
        parked.blocked.interrupted()
        return True

    def end(self, unique: int) -> bool:
        """Forget a call that waits; return whether it did, and so still needs an answer."""
        parked = self._calls.pop(unique, None)
        if parked is None:
            return False
        parked.blocked.waiters.discard(("request", unique))
        return True

    def wake_all(self) -> None:
        """Wake every call: what they wait for belongs to a machine that was replaced."""
        self._wakeups.requests.extend(self._calls)
