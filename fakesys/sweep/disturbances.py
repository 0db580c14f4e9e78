"""What can go wrong around one operation, and how it is made to."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from fakesys.core.kernel import MACHINE
from fakesys.machine.machine import Machine
from fakesys.subsystems.mdev.device import Mdev

_CARD = re.compile(r"(?:^|/)(?:card)?([0-9a-f]{2})(?:\.[0-9a-f]{4})?(?=/|$)")
_NUMBER = re.compile(r"[+-]?(0x[0-9a-f]+|\d+)\s*", re.IGNORECASE)
_UUID = re.compile(r"/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?=/|$)")
# Writes to these name an adapter.
_ADAPTERS = ("apmask", "assign_adapter", "unassign_adapter")
_AP = ("sys/bus/ap/", "sys/devices/ap/")
_SELFTEST = "selftest0"


class Write(Struct, frozen=True, array_like=True):
    """One write of another process."""

    path: str
    text: str
    append: bool = False


class Disturbance(Struct, frozen=True, omit_defaults=True):
    """What happens at an operation. `kind`: errno, gone, rival, kill or late.

    `name`: the errno, `before` or `after`, the name of a rival. `device`: what is unplugged, and
    for `seconds` of simulated time where it is late. `writes`: those of a rival.
    """

    kind: str
    name: str = ""
    device: str = ""
    seconds: float = 0.0
    writes: tuple[Write, ...] = ()

    @property
    def label(self) -> str:
        """How a command line and a table name it."""
        if self.kind == "errno":
            return self.name
        return f"{self.kind}-{self.name}" if self.name else self.kind


def device_of(machine: Machine, path: str, text: str) -> str:
    """Return the device that a call concerns: `card05`, a UUID, `selftest0`; empty if none."""
    name = path.rpartition("/")[2]
    cards = machine.subsystems.ap.system.hardware.cards
    found = _NUMBER.fullmatch(text) if name in _ADAPTERS else None
    if found and (number := int(found[1], 0)) in cards:
        return f"card{number:02x}"
    if path.startswith(_AP):
        for digits in _CARD.findall(path):
            if int(digits, 16) in cards:
                return f"card{digits}"
    mdev = _UUID.search(path)
    if mdev and _mdev(machine, mdev[1]) is not None:
        return mdev[1]
    toy = machine.subsystems.selftest
    return _SELFTEST if toy and toy.device and f"/{_SELFTEST}/" in path else ""


def is_lasting(device: str) -> bool:
    """Whether a device comes back as it was: a mediated device does not."""
    return device.startswith("card") or device == _SELFTEST


def _mdev(machine: Machine, uuid: str) -> Mdev | None:
    return machine.subsystems.ap.system.mdev_bus.devices.get(uuid)


def act(machine: Machine, disturbance: Disturbance, device: str) -> None:
    """Do what another process or a hand at the machine does. Raises KernelError for refusals."""
    caller = machine.kernel.caller
    machine.kernel.caller = MACHINE
    try:
        if disturbance.kind in ("gone", "late"):
            plug = _unplug(machine, device)
            if disturbance.kind == "late" and plug is not None:
                machine.clock.after(disturbance.seconds, plug)
        for write in disturbance.writes:
            _write(machine, write)
    finally:
        machine.kernel.caller = caller


def _write(machine: Machine, write: Write) -> None:
    try:
        machine.write(write.path, write.text, truncate=not write.append)
    except OSError:
        # A rival is refused as others are, and goes on.
        return


def _unplug(machine: Machine, device: str) -> Callable[[], None] | None:
    """Remove a device; return what brings it back. Nothing happens where it is gone already."""
    models = machine.subsystems
    if device.startswith("card"):
        hardware, apid = models.ap.system.hardware, int(device[4:], 16)
        if apid not in hardware.cards:
            return None
        spec = hardware.cards[apid].spec
        hardware.pull(apid)
        return lambda: hardware.install(spec)
    if device == _SELFTEST and models.selftest is not None and models.selftest.device is not None:
        models.selftest.remove()
        return models.selftest.create
    if _mdev(machine, device) is not None:
        _write(machine, Write(f"sys/bus/mdev/devices/{device}/remove", "1\n"))
    return None


class RivalError(ValueError):
    """A file that cannot be used; the text is one line that says why."""


def rival_of(file: Path) -> tuple[str, tuple[Write, ...]]:
    """Return the name of a rival and its writes. Raises RivalError, OSError.

    Each line is `echo TEXT > FILE` or `echo TEXT >> FILE`; FILE is below `/sys`.
    """
    writes = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise RivalError(f"{file}:{number}: {error}") from None
        if words:
            writes.append(_write_of(words, f"{file}:{number}"))
    return file.stem, tuple(writes)


def _write_of(words: list[str], where: str) -> Write:
    match words:
        case ["echo", *texts, ">" | ">>" as sign, path] if path.startswith("/sys/"):
            return Write(path.removeprefix("/"), " ".join(texts) + "\n", sign == ">>")
    raise RivalError(f"{where}: not `echo TEXT > /sys/...`")
