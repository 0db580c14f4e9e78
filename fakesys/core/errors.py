"""How a model refuses an operation, and how it makes one wait."""

from __future__ import annotations

import errno as errno_numbers
import os
from collections.abc import Callable

# Where a number has two names, Python's table has the one that the kernel does not use.
ERRNO_NAMES: dict[int, str] = {
    **errno_numbers.errorcode,
    errno_numbers.EOPNOTSUPP: "EOPNOTSUPP",
    errno_numbers.EDEADLK: "EDEADLK",
}


class KernelError(OSError):
    """A refusal: the errno that the kernel would return, and the reason in words.

    A system call returns the errno only; `why` goes to `fakesys/last_error`.
    """

    def __init__(self, errno: int, why: str) -> None:
        super().__init__(errno, os.strerror(errno))
        self.why = why

    @property
    def name(self) -> str:
        """The symbol of the errno, such as `EINVAL`."""
        number = self.errno or 0
        return ERRNO_NAMES.get(number, str(number))

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


class Waiters:
    """Callbacks to run once when a condition may hold.

    A callback must not call into a model: it only marks its request as ready.
    """

    __slots__ = ("_callbacks",)

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


class Blocked(Exception):
    """The operation must wait; nothing has changed. Repeat it as a whole after `waiters` wake.

    The transport answers EINTR when a signal ends a request that waits.
    """

    def __init__(self, waiters: Waiters) -> None:
        super().__init__("blocked")
        self.waiters = waiters


class Underway(Blocked):
    """The operation has begun and waits for its end, from which no signal keeps it.

    After `waiters` wake, `go_on` is called instead of the operation: it returns at its end, or
    raises Underway again. `interrupted` is called when the caller gets a signal; it never raises.
    """

    def __init__(
        self, waiters: Waiters, go_on: Callable[[], None], interrupted: Callable[[], None]
    ) -> None:
        super().__init__(waiters)
        self.go_on = go_on
        self.interrupted = interrupted
