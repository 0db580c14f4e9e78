"""Uevents of many queues at once, recorded as masks and written out only when they are read.

An operation collects one `Row` per card. A row holds steps, each a mask of queues and the actions
that happened to every one of them, and is expanded to one uevent per queue and action:

    Row(5, "cca", (Step(0b110, (Action("add"), Action("bind", "cex4queue"))),)).length    # 4
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from msgspec import Struct

from fakesys.core.events import Bus, Uevent, UeventBatch
from fakesys.core.text import ids
from fakesys.subsystems.ap_bus.apqn import Apqn


class Action(NamedTuple):
    """One uevent of a queue; `driver`: the driver that it has afterwards."""

    name: str
    driver: str | None = None
    extra: tuple[tuple[str, str], ...] = ()


class Step(NamedTuple):
    """What happens to each queue of a mask, in order.

    `unbound`: change of the number of queues without a driver, per queue. `probed`: did the queue
    pass a probe?
    """

    mask: int
    actions: tuple[Action, ...]
    unbound: int = 0
    probed: bool = False


class Row(NamedTuple):
    """What happens to queues of one card, by ascending domain, or descending with `reverse`.

    `complete`: queues before whose `bind` a `BINDINGS=complete` is sent; `first`: the number of
    the first of these.
    """

    apid: int
    mode: str
    steps: tuple[Step, ...]
    complete: int = 0
    first: int = 0
    reverse: bool = False

    @property
    def mask(self) -> int:
        """The queues to which something happens; each is in one step only."""
        mask = 0
        for step in self.steps:
            mask |= step.mask
        return mask

    @property
    def length(self) -> int:
        """How many uevents `events` yields."""
        actions = sum(step.mask.bit_count() * len(step.actions) for step in self.steps)
        return actions + self.complete.bit_count()

    def events(self) -> Iterator[Uevent]:
        """Yield the uevents in the order in which the kernel sends them."""
        number = self.first
        for apqi in self._domains():
            completes = self.complete >> apqi & 1
            for action in self._actions(apqi):
                # The probe sends its uevent first, the driver core that of `bind` afterwards.
                if completes and action.name == "bind":
                    yield bindings_complete(number)
                    number += 1
                yield self._queue_event(apqi, action)

    def _domains(self) -> list[int]:
        domains = ids(self.mask)
        return domains[::-1] if self.reverse else domains

    def _actions(self, apqi: int) -> tuple[Action, ...]:
        return next(step.actions for step in self.steps if step.mask >> apqi & 1)

    def _queue_event(self, apqi: int, action: Action) -> Uevent:
        devpath = f"/devices/ap/card{self.apid:02x}/{Apqn(self.apid, apqi)}"
        env = {**dict(action.extra), **queue_env(action.driver, self.mode)}
        return Uevent(action.name, devpath, "ap", env)

    def numbered(self, unbound: int, first: int) -> tuple[Row, int]:
        """Return this row with `complete` and `first` set, and the unbound queues after it.

        `unbound`: how many queues of the whole bus had no driver before this row. Like
        ap_bus.c:ap_check_bindings_complete (v6.1): each successful probe checks if any is left.
        """
        if not any(step.unbound for step in self.steps):
            probed = sum(step.mask for step in self.steps if step.probed)
            return self._replace(complete=0 if unbound else probed, first=first), unbound
        complete = 0
        for apqi in self._domains():
            step = next(step for step in self.steps if step.mask >> apqi & 1)
            unbound += step.unbound
            if step.probed and not unbound:
                complete |= 1 << apqi
        return self._replace(complete=complete, first=first), unbound


def queue_env(driver: str | None, mode: str) -> dict[str, str]:
    """Return the fields of a queue's uevents. Like ap_bus.c:ap_uevent (v6.1)."""
    bound = {"DRIVER": driver} if driver else {}
    return {"DEVTYPE": "ap_queue", **bound, "MODE": mode}


def bindings_complete(number: int) -> Uevent:
    """Return the uevent that all queues have a driver, for the `number`-th time."""
    env = {"BINDINGS": "complete", "COMPLETECOUNT": str(number)}
    return Uevent("change", "/devices/ap", "ap", env)


class RowEvents(Struct, frozen=True):
    """Makes the uevents of some rows, as the `make` of a batch."""

    rows: tuple[Row, ...]

    def __call__(self) -> Iterator[Uevent]:
        """Yield the uevents of all rows, in their order."""
        for row in self.rows:
            yield from row.events()


def batch(rows: Iterable[Row]) -> UeventBatch:
    """Return the uevents of these rows as one batch; rows without steps have none."""
    told = tuple(row for row in rows if row.steps)
    return UeventBatch(sum(row.length for row in told), RowEvents(told))


def send(bus: Bus, rows: Iterable[Row]) -> None:
    """Send the uevents of these rows as one batch; send nothing for rows without steps."""
    made = batch(rows)
    if made.count:
        bus.emit(made)
