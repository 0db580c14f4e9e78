"""Full garbage collections while no request comes: they look at every object of the models.

Python begins one when the number of objects has grown by a quarter, whatever waits. With many VMs
or listed devices that takes up to some tenths of a second.
"""

from __future__ import annotations

import gc

# Objects live through so many collections of the new ones before the idle time is used, and
# before Python may begin a full collection, which it does then at its usual growth.
DUE, OVERDUE = 10, 100
# Without a request for so long, the next one is not expected at once.
IDLE_SECONDS = 0.05


def leave_to_idle_time() -> None:
    """Let Python begin full collections rarely, for a process that calls `collect`."""
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, OVERDUE)


def is_due() -> bool:
    """Return whether there may be something to collect."""
    return gc.get_count()[2] > DUE


def collect() -> None:
    """Collect everything."""
    gc.collect()
