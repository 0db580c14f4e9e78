"""Settings, faults and the last refusal of a machine in a snapshot."""

from __future__ import annotations

import errno as errno_numbers
from typing import Annotated

from msgspec import Meta

from fakesys.core.errors import KernelError
from fakesys.core.saved import U63, ByteText, Natural, Saved, byte_text, check, check_range, text_of
from fakesys.subsystems.control.faults import Delay, Faults, Refuse
from fakesys.subsystems.control.model import Control, Refusal

_U64_END = 1 << 64
# A line of a fault is written by one write.
Glob = Annotated[str, Meta(max_length=1 << 16, pattern=r"\A\S*\Z")]
Errno = Annotated[int, Meta(ge=1, lt=512)]


class SavedRefuse(Saved, frozen=True):
    """A fault that refuses requests; the fields are those of `Refuse`."""

    glob: Glob
    errno: Errno
    after: Natural
    times: Natural | None
    seen: U63


class SavedDelay(Saved, frozen=True):
    """A fault that delays requests, without those that wait."""

    glob: Glob
    seconds: Annotated[float, Meta(ge=0, lt=1e15)]


class SavedRefusal(Saved, frozen=True):
    """The last refused write."""

    time_ns: U63
    path: ByteText
    errno: Errno
    why: ByteText


class SavedControl(Saved, frozen=True):
    """What belongs to the machine as a whole."""

    seed: Natural
    lockdown: bool
    store: tuple[SavedRefuse, ...]
    show: tuple[SavedRefuse, ...]
    delay: tuple[SavedDelay, ...]
    last_error: SavedRefusal | None


def save(control: Control) -> SavedControl:
    """Return what a snapshot holds of the settings of a machine."""
    faults, refusal = control.faults, control.last_error
    return SavedControl(
        seed=control.seed,
        lockdown=control.lockdown,
        store=tuple(map(_save_refuse, faults.store)),
        show=tuple(map(_save_refuse, faults.show)),
        delay=tuple(SavedDelay(glob=each.glob, seconds=each.seconds) for each in faults.delay),
        last_error=None if refusal is None else _save_refusal(refusal),
    )


def _save_refuse(fault: Refuse) -> SavedRefuse:
    return SavedRefuse(
        glob=fault.glob, errno=fault.errno, after=fault.after, times=fault.times, seen=fault.seen
    )


def _save_refusal(refusal: Refusal) -> SavedRefusal:
    error = refusal.error
    return SavedRefusal(
        time_ns=refusal.time_ns,
        path=byte_text(refusal.path),
        errno=error.errno or 0,
        why=byte_text(error.why),
    )


def check_control(saved: SavedControl) -> None:
    """Raise BadSnapshotError for settings that no machine has."""
    check_range(saved.seed, _U64_END, "the seed")
    for fault in (*saved.store, *saved.show):
        check(fault.errno in errno_numbers.errorcode, f"{fault.errno} is no errno")
        check_range(fault.after, _U64_END, "the beginning of a fault")
        check_range(fault.times or 0, _U64_END, "the end of a fault")


def restore(saved: SavedControl, control: Control) -> None:
    """Have the settings of a snapshot. Precondition: `check_control` took them."""
    control.seed = saved.seed
    control.set_lockdown(saved.lockdown)
    control.set_faults(
        Faults(
            store=[_restored_refuse(fault) for fault in saved.store],
            show=[_restored_refuse(fault) for fault in saved.show],
            delay=[Delay(fault.glob, fault.seconds) for fault in saved.delay],
        )
    )
    control.last_error = None if saved.last_error is None else _restored_refusal(saved.last_error)


def _restored_refuse(saved: SavedRefuse) -> Refuse:
    return Refuse(saved.glob, saved.errno, saved.after, saved.times, saved.seen)


def _restored_refusal(saved: SavedRefusal) -> Refusal:
    return Refusal(saved.time_ns, text_of(saved.path), KernelError(saved.errno, text_of(saved.why)))
