"""The points at which a call that takes long lets others in, and where it may be ended early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class TakesLong(Exception):
    """The operation may take long; nothing has changed. It is to be repeated in slices."""


class SlicedCall(Protocol):
    """A call that runs in slices, as those see it that it concerns."""

    @property
    def refusal(self) -> OSError | None:
        """Why the call has to end before it is done; None while it may go on."""

    def give_way(self) -> None:
        """Let others in if the slice is over."""

    def take_repeated(self) -> bool:
        """Return True once: the call is the repetition of one that raised TakesLong."""

    def finish(self, refusal: OSError) -> None:
        """End the call now with this refusal, for one that is not the running one."""


class _State:
    """Of this process, as there is one thread for all models. `running`: the call in a slice."""

    __slots__ = ("running", "serving")

    def __init__(self) -> None:
        self.running: SlicedCall | None = None
        # Whether a transport that can repeat calls in slices waits for the result of this one.
        self.serving = False


state = _State()


def might_resched() -> None:
    """Announce that what follows may take long. Call it before anything has changed.

    Raises TakesLong where the transport can repeat the call in slices.
    """
    if state.serving and state.running is None:
        raise TakesLong


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


@contextmanager
def unsliced() -> Iterator[None]:
    """Run the block to its end: its state is not one that others may see."""
    before = state.running, state.serving
    state.running, state.serving = None, False
    try:
        yield
    finally:
        state.running, state.serving = before
