"""The selftest subsystem in a snapshot."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from fakesys.core.saved import Natural, Saved, check_range
from fakesys.subsystems.selftest.model import Selftest


class SavedDevice(Saved, frozen=True):
    """The device; the fields are those of `SelftestDevice`."""

    number: Annotated[int, Meta(ge=0, lt=1 << 31)]
    active: Literal[1, 2]
    debug_number: Natural


class SavedSelftest(Saved, frozen=True):
    """The subsystem; `device` is None while the device is unplugged."""

    device: SavedDevice | None


def save(selftest: Selftest) -> SavedSelftest:
    """Return what a snapshot holds of the subsystem."""
    device = selftest.device
    if device is None:
        return SavedSelftest(device=None)
    return SavedSelftest(
        device=SavedDevice(
            number=device.number,
            active=1 if device.active == 1 else 2,
            debug_number=device.debug_number,
        )
    )


def restore(saved: SavedSelftest, selftest: Selftest) -> None:
    """Fill a subsystem whose device is plugged in. Raises BadSnapshotError."""
    device = selftest.device
    if saved.device is None or device is None:
        selftest.device = None
        return
    device.number, device.active = saved.device.number, saved.device.active
    device.debug_number = check_range(saved.device.debug_number, 1 << 64, "the debugfs number")
