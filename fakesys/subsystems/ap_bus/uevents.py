"""Uevents of many queues at once: recorded as masks, written out only when somebody reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fakesys.core.events import Uevent
from fakesys.core.text import ids
from fakesys.subsystems.ap_bus.apqn import Apqn


class Action(NamedTuple):
    """One uevent of a queue; `driver` is the one that it then has."""

    name: str
    driver: str | None = None
    extra: tuple[tuple[str, str], ...] = ()


class Step(NamedTuple):
    """What happens to each of these queues. `unbound`: change in the number without a driver."""

    mask: int
    actions: tuple[Action, ...]
    unbound: int = 0
    probed: bool = False


class Row(NamedTuple):
    """What happens to queues of one card, by ascending domain.

    `complete`: queues before whose `bind` a `BINDINGS=complete` is sent; `first` numbers these.
    """

    apid: int
    mode: str
    steps: tuple[Step, ...]
    complete: int = 0
    first: int = 0

    @property
    def mask(self) -> int:
        """The queues to which something happens; no queue is in two steps."""
        mask = 0
        for step in self.steps:
            mask |= step.mask
        return mask

    @property
    def length(self) -> int:
        """How many uevents `events` gives."""
        actions = sum(step.mask.bit_count() * len(step.actions) for step in self.steps)
        return actions + self.complete.bit_count()

    def events(self) -> Iterator[Uevent]:
        """The uevents, in order."""
        number = self.first
        for apqi in ids(self.mask):
            completes = self.complete >> apqi & 1
            for action in self._actions(apqi):
                # The probe tells that all are bound, the driver core then that this one is.
                if completes and action.name == "bind":
                    yield bindings_complete(number)
                    number += 1
                yield self._queue_event(apqi, action)

    def _actions(self, apqi: int) -> tuple[Action, ...]:
        return next(step.actions for step in self.steps if step.mask >> apqi & 1)

    def _queue_event(self, apqi: int, action: Action) -> Uevent:
        devpath = f"/devices/ap/card{self.apid:02x}/{Apqn(self.apid, apqi)}"
        env = {**dict(action.extra), **queue_env(action.driver, self.mode)}
        return Uevent(action.name, devpath, "ap", env)

    def numbered(self, unbound: int, first: int) -> tuple[Row, int]:
        """This row with `complete` and `first` set, and the number without a driver after it.

        `unbound`: how many queues of the whole bus have no driver before. Like
        ap_bus.c:ap_check_bindings_complete (v6.1): each successful probe looks whether any is left.
        """
        if not any(step.unbound for step in self.steps):
            probed = sum(step.mask for step in self.steps if step.probed)
            return self._replace(complete=0 if unbound else probed, first=first), unbound
        complete = 0
        for apqi in ids(self.mask):
            step = next(step for step in self.steps if step.mask >> apqi & 1)
            unbound += step.unbound
            if step.probed and not unbound:
                complete |= 1 << apqi
        return self._replace(complete=complete, first=first), unbound


def queue_env(driver: str | None, mode: str) -> dict[str, str]:
    """The fields of a queue's uevents. Like ap_bus.c:ap_uevent (v6.1)."""
    bound = {"DRIVER": driver} if driver else {}
    return {"DEVTYPE": "ap_queue", **bound, "MODE": mode}


def bindings_complete(number: int) -> Uevent:
    """All queues have a driver, for the `number`-th time."""
    env = {"BINDINGS": "complete", "COMPLETECOUNT": str(number)}
    return Uevent("change", "/devices/ap", "ap", env)
