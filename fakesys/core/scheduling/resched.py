"""The points at which a call that takes long lets others in, and where it may be ended early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class TakesLong(Exception):
    """The operation may take long; nothing has changed. It is to be repeated in slices."""


class SlicedCall(Protocol):
    """A call that runs in slices, as those see it that it concerns. `locks`: how many it holds."""

    locks: int

    @property
    def refusal(self) -> OSError | None:
        """Why the call has to end before it is done; None while it may go on."""

    def give_way(self) -> None:
        """Let others in if the slice is over; without a lock also if a copy waits to be made."""

    def rest(self) -> bool:
        """Let others in now; return False where the call has to go on without a rest."""

    def take_repeated(self) -> bool:
        """Return True once: the call is the repetition of one that raised TakesLong."""

    def finish(self, refusal: OSError) -> None:
        """End the call now with this refusal, for one that is not the running one."""

    def run_until(self, done: Callable[[], bool]) -> None:
        """Let the call, which is not the running one, run until `done` says so, or to its end."""


class WaitQueue(Protocol):
    """Those that wait for an event."""

    def __len__(self) -> int: ...

    def wake(self) -> None:
        """Tell all that it has happened; they wait no more."""


class _State:
    """Of this process, as there is one thread for all models. `running`: the call in a slice.

    `locks`: how many are held or waited for. While there are any, the machine may be in the middle
    of a change: those that wait for a copy of it are `unlocked`.
    """

    __slots__ = ("locks", "running", "serving", "unlocked")

    def __init__(self) -> None:
        self.running: SlicedCall | None = None
        # Whether a transport that can repeat calls in slices waits for the result of this one.
        self.serving = False
        self.locks = 0
        self.unlocked: WaitQueue | None = None

    def tell_if_unlocked(self) -> None:
        """Wake those that wait for a copy, if the machine is not in the middle of a change."""
        if self.unlocked and not self.locks:
            self.unlocked.wake()


state = _State()


def might_resched() -> None:
    """Announce that what follows may take long. Call it before anything has changed.

    Raises TakesLong where the transport can repeat the call in slices.
    """
    if can_repeat():
        raise TakesLong


def can_repeat() -> bool:
    """Return whether this call may raise Blocked or TakesLong, to be repeated by a transport."""
    return state.serving and state.running is None


def cond_resched() -> None:
    """Let others in if this call has worked long enough. Call it where the state is consistent."""
    running = state.running
    if running is not None:
        running.give_way()


def cond_resched_killable() -> None:
    """Do `cond_resched`, but raise the refusal of a call that has to end: EINTR after a signal."""
    running = state.running
    if running is not None:
        running.give_way()
        if running.refusal is not None:
            raise running.refusal


def is_repeated() -> bool:
    """Return True once in a call that is repeated in slices: what counts calls leaves it out."""
    running = state.running
    return running is not None and running.take_repeated()


def running_call() -> SlicedCall | None:
    """Return the call that runs in slices now; None for one that runs to its end at once."""
    return state.running


def ends_call(error: BaseException) -> bool:
    """Return whether this is what `cond_resched_killable` has raised in the running call."""
    running = state.running
    return running is not None and running.refusal is error


class SlicedLock:
    """Held by a call that keeps what it has found from one slice to the next.

    A call in slices that needs it rests until it is free. Any other lets its holder go on, without
    a rest, until it is free; `might_lock` avoids that.
    """

    __slots__ = ("_depth", "_holder")

    def __init__(self) -> None:
        self._holder: SlicedCall | None = None
        self._depth = 0

    def __enter__(self) -> None:
        self._count(1)
        try:
            self._wait()
        except BaseException:
            self._count(-1)
            raise
        self._holder = state.running
        self._depth += 1

    def __exit__(self, *_error: object) -> None:
        self._depth -= 1
        self._count(-1)

    def _count(self, change: int) -> None:
        state.locks += change
        if state.running is not None:
            state.running.locks += change
        else:
            state.tell_if_unlocked()

    @property
    def is_held_by_another(self) -> bool:
        """Whether a call in slices that is not the running one holds it."""
        return self._depth > 0 and self._holder not in (None, state.running)

    def _wait(self) -> None:
        while self.is_held_by_another:
            running, holder = state.running, self._holder
            if running is None or not running.rest():
                assert holder is not None
                holder.run_until(self._is_free)
                return

    def _is_free(self) -> bool:
        return not self._depth


def might_lock(lock: SlicedLock) -> None:
    """Announce that a lock will be taken. Call it before anything has changed.

    Raises TakesLong where the lock is held and the transport can repeat the call in slices.
    """
    if lock.is_held_by_another:
        might_resched()
