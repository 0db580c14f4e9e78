"""Which queues more than one can use at the same time: the file `fakesys/ap/shared_queues`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fakesys.core.text import ids
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.ap_bus.drivers import QueueDriver
from fakesys.subsystems.ap_bus.hardware import Lpar
from fakesys.subsystems.vfio_ap.guest import Guest


def shared_queues(lpar: Lpar, host: QueueDriver, guests: Iterable[Guest]) -> str:
    """Return a line `XX.YYYY USER USER...` for each queue that is shared, ascending.

    A guest uses the queues of its control block that the machine has, whether a driver has them or
    not; the host uses those that are bound to its driver, which comes last in the line.
    """
    named = sorted((guest.name, guest) for guest in guests if guest.masks.apm)
    users = [guest for _, guest in named]
    return "".join(_lines(lpar, host, users)) if users else ""


def _lines(lpar: Lpar, host: QueueDriver, guests: Sequence[Guest]) -> Iterator[str]:
    for apid in ids(lpar.adapters):
        users = [(guest.name, guest.masks.row(apid) & lpar.domains) for guest in guests]
        once = twice = 0
        for _, mask in users:
            once, twice = once | mask, twice | once & mask
        users.append((host.name, host.bound[apid]))
        for apqi in ids(twice | once & host.bound[apid]):
            names = " ".join(name for name, mask in users if mask >> apqi & 1)
            yield f"{Apqn(apid, apqi)} {names}\n"
