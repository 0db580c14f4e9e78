"""Two series of patches, level by level: what the levels refuse, share and let hang.

Each level gets machines of its own, which are driven by writes as a shell drives them.
"""

from __future__ import annotations

from typing import NamedTuple

from fakesys.core.errors import KernelError
from fakesys.lab.tables import Table
from fakesys.machine.kernels.ap import AP_KERNELS
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.machine.machine import Machine

AP_LEVELS = (*AP_KERNELS.series.levels(), *AP_KERNELS)
APICV_LEVELS = (*APICV_KERNELS.series.levels(), "v3-16-11", "v3-16-15")

_BUS, _MATRIX = "sys/bus/ap", "sys/devices/vfio_ap/matrix"
_AP, _KVM = "sys/kernel/debug/fakesys/ap", "sys/kernel/debug/fakesys/kvm"
_UUIDS = tuple(f"{number}0000000-0000-4000-8000-000000000000" for number in (1, 2))
_STORES = ("adapter", "domain", "control_domain")


class ApLevel(NamedTuple):
    """What one level of the AP part does.

    `busy`: stores, of six, that refuse while a guest has the device. `absent`: assigning a card
    that is not there. `mask`: giving the host a domain of a guest. `lost`: adapters that the guest
    loses by that. The others: how many queues are shared after a mask write, after an attachment
    that follows one, and between two guests.
    """

    level: str
    busy: int
    absent: str
    mask: str
    lost: int
    by_mask: int
    by_attach: int
    by_guests: int


class Boot(NamedTuple):
    """How a boot ends, with the exits of all vCPUs, and the flips of AVIC."""

    result: str
    exits: int
    flips: int


class ApicvLevel(NamedTuple):
    """Boots of one level: as it is, with the last patch forced, that without reinjection, split."""

    level: str
    as_it_is: Boot
    forced: Boot
    without_reinjection: Boot
    split: Boot


def ap_level(level: str) -> ApLevel:
    """Measure a level of the AP part."""
    machine = _with_guest(level)
    busy = sum(
        _refusal(machine, f"{_MATRIX}/{_UUIDS[0]}/{verb}_{what}", "x") == "EBUSY"
        for verb in ("assign", "unassign")
        for what in _STORES
    )
    mask = _refusal(machine, f"{_BUS}/aqmask", "+4")
    by_mask, lost = _shared(machine), 2 - _cards(machine)
    machine = _with_guest(level, attached=False)
    absent = _refusal(machine, f"{_MATRIX}/{_UUIDS[0]}/assign_adapter", "7")
    _refusal(machine, f"{_BUS}/aqmask", "+4")
    _attach(machine, 1)
    by_attach = _shared(machine)
    return ApLevel(level, busy, absent, mask, lost, by_mask, by_attach, _two_guests(level))


def _two_guests(level: str) -> int:
    """Give a domain that one guest has to another one; return how many queues both have then."""
    machine = _with_guest(level)
    _refusal(machine, f"{_MATRIX}/{_UUIDS[0]}/unassign_domain", "0xab")
    machine.write(f"{_MATRIX}/mdev_supported_types/vfio_ap-passthrough/create", _UUIDS[1])
    _refusal(machine, f"{_MATRIX}/{_UUIDS[1]}/assign_domain", "0xab")
    _refusal(machine, f"{_MATRIX}/{_UUIDS[1]}/assign_adapter", "5")
    _attach(machine, 2)
    return _shared(machine)


def _with_guest(level: str, *, attached: bool = True) -> Machine:
    machine = Machine("seed")
    machine.write(f"{_AP}/profile", level)
    machine.write(f"{_BUS}/aqmask", "-4,-0x47,-0xab,-0xff")
    machine.write(f"{_MATRIX}/mdev_supported_types/vfio_ap-passthrough/create", _UUIDS[0])
    for what, number in (("adapter", 5), ("adapter", 6), ("domain", 4), ("domain", 0xAB)):
        machine.write(f"{_MATRIX}/{_UUIDS[0]}/assign_{what}", f"{number}")
    if attached:
        _attach(machine, 1)
    return machine


def _attach(machine: Machine, number: int) -> None:
    machine.write(f"{_AP}/new_guest", f"guest{number}")
    machine.write(f"{_AP}/guests/guest{number}/attach", _UUIDS[number - 1])


def _shared(machine: Machine) -> int:
    return len(machine.read(f"{_AP}/shared_queues").splitlines())


def _cards(machine: Machine) -> int:
    lines = machine.read(f"{_AP}/guests/guest1/devices").splitlines()
    return sum(line[2] == " " for line in lines)


def _refusal(machine: Machine, path: str, text: str) -> str:
    try:
        machine.write(path, text)
    except KernelError as refusal:
        return refusal.name
    return "ok"


def apicv_level(level: str, vcpus: int) -> ApicvLevel:
    """Boot Linux in the ways that tell levels apart."""
    return ApicvLevel(
        level,
        _boot(level, vcpus),
        _boot(level, vcpus, force=True),
        _boot(level, vcpus, "reinject=0", force=True),
        _boot(level, vcpus, "irqchip=split"),
    )


def _boot(level: str, vcpus: int, options: str = "", *, force: bool = False) -> Boot:
    machine = Machine("seed")
    machine.write(f"{_KVM}/apicv_profile", level)
    machine.write(f"{_KVM}/ctl", f"modprobe avic_any_irqchip={force:d}")
    machine.write(f"{_KVM}/preset", f"linux-boot vcpus={vcpus} {options}")
    words = machine.read(f"{_KVM}/last").split()
    hung = [word for word in words if word.startswith(("at=", "why="))]
    state = dict(line.split(" ", 1) for line in machine.read(f"{_KVM}/vms/g/state").splitlines())
    exits = int(machine.read("sys/kernel/debug/kvm/exits"))
    return Boot(" ".join(hung) or "done", exits, int(state["flips_off"]))


def ap_table(levels: list[ApLevel]) -> Table:
    """Return a table with a row per level."""
    rows = tuple((one.level, *map(str, one[1:])) for one in levels)
    return Table(
        "Crypto queues of guests, before the series and after each of its patches",
        (
            "level",
            "busy\nstores",
            "absent\ncard",
            "mask\nwrite",
            "cards\nlost",
            "shared by\nmask write",
            "shared by\nattachment",
            "shared by\ntwo guests",
        ),
        rows,
        (
            "busy: of six files, those that refuse while a guest has the device.",
            "A mask write gives the host a domain of a guest with two cards.",
        ),
    )


def apicv_table(levels: list[ApicvLevel], vcpus: int) -> Table:
    """Return a table with a row per level."""
    head = ["level"]
    for name in ("as it is", "forced", "forced, reinject=0", "split"):
        head += [f"{name}\nresult", "\nexits", "\nflips"]
    rows = tuple((one.level, *(str(cell) for boot in one[1:] for cell in boot)) for one in levels)
    return Table(
        f"A boot of Linux with {vcpus} vCPUs, before the series and after each of its patches",
        tuple(head),
        rows,
        ("forced: with avic_any_irqchip=1, which allows what patch 16 allows.",),
    )
