"""Control files of the guests: `ap/new_guest`, `ap/del_guest`, `ap/guests/NAME/`."""

from __future__ import annotations

from errno import EBUSY, EEXIST, EFAULT, EINVAL, EIO, ENODEV, EPERM, ERANGE
from typing import NamedTuple

from fakesys.core.devices import is_uuid
from fakesys.core.errors import KernelError
from fakesys.core.text import format_mask, ids, kstrtoull, one_word, require_one
from fakesys.subsystems.ap_bus.apqn import Apqn, apqn_of
from fakesys.subsystems.ap_bus.files.cards import type_name
from fakesys.subsystems.ap_bus.hardware_spec import CardMode
from fakesys.subsystems.ap_control.model import ApSystem
from fakesys.subsystems.vfio_ap.guest import Guest, is_guest_name
from fakesys.tree.attr import Attr, Children, Dir, Layout, Row

_MODES = {
    CardMode.CCA: "CCA-Coproc",
    CardMode.ACCEL: "Accelerator",
    CardMode.EP11: "EP11-Coproc",
}


class GuestFiles(NamedTuple):
    """A guest and the machine that it runs on."""

    system: ApSystem
    guest: Guest


def _new_guest(system: ApSystem, text: str) -> None:
    words = text.split()
    options = {"ap=0": False, "ap=1": True}
    if not 1 <= len(words) <= 2 or any(word not in options for word in words[1:]):
        raise KernelError(EINVAL, f"{text!r} is not NAME [ap=0]")
    name = words[0]
    if not is_guest_name(name):
        raise KernelError(EINVAL, f"{name!r} is not a name of letters, digits, _ . -")
    system.guests.create(name, ap=options[words[1]] if len(words) == 2 else True)


def _del_guest(system: ApSystem, text: str) -> None:
    words = text.split()
    system.guests.remove(words[0] if len(words) == 1 else text)


def _attach(files: GuestFiles, text: str) -> None:
    uuid = one_word(text)
    if not is_uuid(uuid):
        raise KernelError(EINVAL, f"{uuid!r} is not a UUID")
    mdev = files.system.vfio_ap.mdevs.get(uuid.lower())
    if mdev is None:
        raise KernelError(ENODEV, f"there is no mediated device {uuid}")
    files.guest.attach(mdev)


def _detach(files: GuestFiles, text: str) -> None:
    require_one(text)
    files.guest.detach()


def _reset(files: GuestFiles, text: str) -> None:
    require_one(text)
    files.guest.reset()


def _devices(files: GuestFiles) -> str:
    lines = []
    for card in files.guest.cards():
        kind = f"{type_name(card.spec)} {_MODES[card.spec.mode]}\n"
        lines.append(f"{card.spec.id:02x} {kind}")
        lines.extend(f"{Apqn(card.spec.id, apqi)} {kind}" for apqi in ids(card.domains))
    return "".join(lines)


def _interrupts(files: GuestFiles) -> str:
    mdev = files.guest.mdev
    enabled = mdev.interrupts if mdev else {}
    return "".join(f"{apqn} on {enabled[apqn]}\n" for apqn in sorted(enabled))


def _set_interrupts(files: GuestFiles, text: str) -> None:
    words = text.split()
    apqn = apqn_of(words[0]) if words else None
    if apqn is None or words[1:2] not in (["on"], ["off"]):
        raise KernelError(EINVAL, f"{text!r} is neither XX.YYYY on ISC nor XX.YYYY off")
    if words[1:] == ["off"]:
        files.guest.disable_interrupts(apqn)
    elif len(words) == 3 and words[1] == "on":
        files.guest.enable_interrupts(apqn, kstrtoull(words[2]))
    else:
        raise KernelError(EINVAL, f"{text!r} is neither XX.YYYY on ISC nor XX.YYYY off")


def _mask_row(name: str, what: str) -> Attr[GuestFiles]:
    return Attr(
        name=name,
        mode=0o444,
        doc=f"{what} in the guest's control block.",
        show=lambda files: f"{format_mask(files.guest.masks._asdict()[name])}\n",
    )


def _attached(files: GuestFiles) -> str:
    return f"{files.guest.mdev.uuid if files.guest.mdev else '-'}\n"


GUEST: Layout[GuestFiles] = Layout(
    (
        Attr(
            name="attach",
            mode=0o200,
            doc="Write the UUID of a mediated device to attach it.",
            store=_attach,
            errors={
                EINVAL: "not a UUID",
                ENODEV: "no such device",
                EBUSY: "another guest has it",
                EPERM: "this guest has one",
            },
        ),
        Attr(
            name="detach",
            mode=0o200,
            doc="Write 1 to let go of the mediated device.",
            store=_detach,
            errors={EINVAL: "not 1", ENODEV: "nothing is attached"},
        ),
        Attr(
            name="reset",
            mode=0o200,
            doc="Write 1 to reset all queues of the device (VFIO_DEVICE_RESET).",
            store=_reset,
            errors={
                EINVAL: "not 1",
                ENODEV: "nothing is attached, or the last bad answer was 03 (the series)",
                EBUSY: "the last bad answer was 02 or 05 (5.3 and the series on it)",
                EIO: "the last bad answer was another one (5.3 and the series on it)",
            },
        ),
        Attr(
            name="mdev",
            mode=0o444,
            doc="UUID of the attached device, or `-`.",
            show=_attached,
        ),
        _mask_row("apm", "Adapters"),
        _mask_row("aqm", "Domains"),
        _mask_row("adm", "Control domains"),
        Attr(
            name="devices",
            mode=0o444,
            doc="Cards and queues that the guest can use now, with type and mode.",
            show=_devices,
        ),
        Attr(
            name="aqic",
            mode=0o644,
            doc="Queues with interrupts; write `XX.YYYY on ISC` or `XX.YYYY off`.",
            show=_interrupts,
            store=_set_interrupts,
            errors={
                EINVAL: "not such a command",
                ERANGE: "a subclass of more than 64 bits",
                ENODEV: "answer 01: not a bound queue of the guest",
                EFAULT: "answer 06 or 08: the interrupt cannot be set up",
                EIO: "the queue does not work: its own answer",
            },
        ),
    )
)


def _guest(system: ApSystem, name: str) -> GuestFiles | None:
    guest = system.guests.by_name.get(name)
    return GuestFiles(system, guest) if guest else None


GUEST_ROWS: tuple[Row, ...] = (
    Attr(
        name="new_guest",
        mode=0o200,
        doc="Write `NAME [ap=0]` to power on a guest; ap=0: without AP instructions.",
        store=_new_guest,
        errors={EINVAL: "not NAME [ap=0]", EEXIST: "the guest exists"},
    ),
    Attr(
        name="del_guest",
        mode=0o200,
        doc="Write a guest's name to power it off; its device is detached first.",
        store=_del_guest,
        errors={ENODEV: "no such guest"},
    ),
    Dir(
        name="guests",
        layout=Layout(
            (
                Children(
                    names=lambda system: sorted(system.guests.by_name),
                    get=_guest,
                    layout=GUEST,
                    label="NAME",
                ),
            )
        ),
    ),
)
