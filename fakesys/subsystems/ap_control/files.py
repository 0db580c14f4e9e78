"""Control files of the AP part: settings, cards put in and taken out, profile, logs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from errno import EAGAIN, EBUSY, EEXIST, EINVAL, ENODEV, ERANGE

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.events import Uevent
from fakesys.core.journal import LineLog, UeventLog
from fakesys.core.text import kstrtoull, one_word, require_one, zero_or_one
from fakesys.subsystems.ap_bus.hardware_spec import (
    DEFAULT_FIRMWARE,
    MORE_FUNCTIONS,
    CardMode,
    CardSpec,
)
from fakesys.subsystems.ap_bus.policy import CEX4
from fakesys.subsystems.ap_control.guest_files import GUEST_ROWS
from fakesys.subsystems.ap_control.hardware_files import FLAG_ERRORS, HARDWARE_ROWS
from fakesys.subsystems.ap_control.key_files import KEY_ROWS
from fakesys.subsystems.ap_control.model import ApSystem
from fakesys.subsystems.ap_control.sharing import shared_queues
from fakesys.subsystems.control.files import bracketed, journal_rows, with_current
from fakesys.subsystems.control.streams import lines_from, uevents_from
from fakesys.subsystems.modules.known import AP, AP_MODULES
from fakesys.subsystems.vfio_ap.policy import FilterName
from fakesys.subsystems.vfio_ap.state import RemovePolicy
from fakesys.tree.attr import Attr, Layout, Mount, Row
from fakesys.tree.kinds import CONTROL

SUBSYSTEMS = frozenset({"ap", "matrix", "mdev", "misc", "vfio", "vfio-dev", "zcrypt"})
CLASSES = ("/class/mdev_bus", "/class/vfio", "/class/zcrypt")
BUSES = ("/bus/ap", "/bus/matrix", "/bus/mdev")
_MODULES = tuple(f"/module/{info.name}" for info in (AP, *AP_MODULES))
_SYNTHETIC = ("/devices/ap", "/devices/vfio_ap", *BUSES)
LOG_PREFIXES = ("vfio_", "ap", "cex4", *(f"synth uevent: {path}" for path in _SYNTHETIC))
# Types by name; CEX3 has one for accelerators and one for coprocessors.
TYPES = {f"CEX{generation}": CEX4 + generation - 4 for generation in range(4, 9)}
CEX3 = {CardMode.ACCEL: 8, CardMode.CCA: 9}
HIGHEST_TYPE = 255


class ApKernelChoice(Struct, frozen=True):
    """The kernels that the AP part can behave as.

    `names`: their names. `get`, `choose`: the present one. `reset`: the AP part as at mount time.
    """

    names: tuple[str, ...]
    get: Callable[[], str]
    choose: Callable[[str], None]
    reset: Callable[[], None]


def _type(text: str, mode: CardMode) -> int:
    if text == "CEX3" and mode in CEX3:
        return CEX3[mode]
    kind = TYPES[text] if text in TYPES else kstrtoull(text)
    if not 1 <= kind <= HIGHEST_TYPE:
        raise KernelError(EINVAL, f"{kind} is no type of a card")
    return kind


def _option(word: str) -> tuple[str, str]:
    key, separator, value = word.partition("=")
    if not separator or not value or not value.isascii():
        raise KernelError(EINVAL, f"{word!r} is not key=value")
    return key, value


def _firmware(text: str) -> str:
    major, separator, minor = text.partition(".")
    if not (separator and major.isdigit() and minor.isdigit()):
        raise KernelError(EINVAL, f"{text!r} is not a version such as 7.31")
    return f"{int(major)}.{int(minor)}"


def _depth(text: str) -> int:
    depth = kstrtoull(text)
    if depth > 255:
        raise KernelError(EINVAL, f"{depth} does not fit into the depth field")
    return depth


def _functions(letters: str) -> int:
    unknown = set(letters) - MORE_FUNCTIONS.keys()
    if unknown:
        raise KernelError(EINVAL, f"{min(unknown)!r} is none of {', '.join(MORE_FUNCTIONS)}")
    return sum(MORE_FUNCTIONS[letter] for letter in set(letters))


def parse_card(text: str) -> CardSpec:
    """Return the card of a text `ID TYPE MODE [serialnr= fw_version= depth= functions=]`.

    Raises EINVAL, and ERANGE for a number of more than 64 bits.

        parse_card("5 CEX6C cca depth=7").type      # 12
    """
    words = text.split()
    if len(words) < 3 or words[2] not in tuple(CardMode):
        raise KernelError(EINVAL, f"{text!r} is not ID TYPE MODE [key=value ...]")
    apid, mode = kstrtoull(words[0]), CardMode(words[2])
    options = dict(_option(word) for word in words[3:])
    unknown = options.keys() - {"serialnr", "fw_version", "depth", "functions"}
    if unknown:
        raise KernelError(EINVAL, f"unknown option {min(unknown)}")
    return CardSpec(
        id=apid,
        type=_type(words[1], mode),
        mode=mode,
        serialnr=options.get("serialnr", ""),
        fw_version=_firmware(options.get("fw_version", DEFAULT_FIRMWARE)),
        depth=_depth(options.get("depth", "7")),
        extra_functions=_functions(options.get("functions", "")),
    )


def _del_card(system: ApSystem, text: str) -> None:
    system.hardware.pull(kstrtoull(one_word(text)))


def _set_filter(system: ApSystem, text: str) -> None:
    word = one_word(text)
    if word not in tuple(FilterName):
        raise KernelError(EINVAL, f"{word!r} is no filter ({', '.join(FilterName)})")
    system.vfio_ap.state.filter = FilterName(word)


def _set_remove_policy(system: ApSystem, text: str) -> None:
    word = one_word(text)
    if word not in tuple(RemovePolicy):
        raise KernelError(EINVAL, f"{word!r} is no policy ({', '.join(RemovePolicy)})")
    system.vfio_ap.state.chosen_policy = RemovePolicy(word)


def _set_autoscan(system: ApSystem, text: str) -> None:
    system.bus.state.autoscan = zero_or_one(text)


def _set_loaded(system: ApSystem, text: str) -> None:
    if zero_or_one(text):
        system.modules.load("vfio_ap")
    elif system.modules.is_loaded("vfio_ap"):
        system.modules.remove("vfio_ap")


def _of_ap(event: Uevent) -> bool:
    return event.subsystem in SUBSYSTEMS or event.devpath.startswith((*BUSES, *CLASSES, *_MODULES))


def _line_of_ap(line: str) -> bool:
    return line.startswith(LOG_PREFIXES)


SETTINGS: tuple[Row, ...] = (
    Attr(
        name="filter",
        mode=0o644,
        doc="How the guest's share is found; `v6-literal` acts in the kernel v6 only.",
        show=lambda system: bracketed(FilterName, system.vfio_ap.state.filter),
        store=_set_filter,
        errors={EINVAL: "no such filter"},
    ),
    Attr(
        name="remove_policy",
        mode=0o644,
        doc="`remove` of a device that a guest has: refuse, wait as real kernels do, or detach it.",
        show=lambda system: bracketed(RemovePolicy, system.vfio_ap.state.remove_policy),
        store=_set_remove_policy,
        errors={EINVAL: "no such policy"},
    ),
    Attr(
        name="autoscan",
        mode=0o644,
        doc="1: every change of the machine causes a scan of the bus at once.",
        show=lambda system: f"{system.bus.state.autoscan:d}\n",
        store=_set_autoscan,
        errors=FLAG_ERRORS,
    ),
    Attr(
        name="vfio_ap_loaded",
        mode=0o644,
        doc="1: the module is loaded; 0 removes it with its devices, 1 brings it back.",
        show=lambda system: f"{system.vfio_ap.matrix is not None:d}\n",
        store=_set_loaded,
        errors={**FLAG_ERRORS, EAGAIN: "a guest has a device"},
    ),
    Attr(
        name="new_card",
        mode=0o200,
        doc="Write `ID TYPE MODE [serialnr= fw_version= depth= functions=]` to put a card in.",
        store=lambda system, text: system.hardware.install(parse_card(text)),
        errors={
            EINVAL: "not such a command",
            ERANGE: "a number of more than 64 bits",
            EEXIST: "the card is installed",
            ENODEV: "above the maximum ID",
        },
    ),
    Attr(
        name="del_card",
        mode=0o200,
        doc="Write an ID to take the card out.",
        store=_del_card,
        errors={
            EINVAL: "not a number",
            ERANGE: "more than 64 bits",
            ENODEV: "no such card is installed",
        },
    ),
    Attr(
        name="preset",
        mode=0o200,
        doc="Write `default`, `empty` or `full` to build another machine.",
        store=lambda system, text: system.load_preset(one_word(text)),
        errors={EINVAL: "no such preset", EBUSY: "a mediated device or a guest exists"},
    ),
    Attr(
        name="shared_queues",
        mode=0o444,
        doc="Queues that a guest and another guest or a driver of the host can use; then these.",
        show=lambda system: shared_queues(
            system.hardware.lpar, system.bus.state.host_driver, system.guests.by_name.values()
        ),
    ),
    Attr(
        name="state",
        mode=0o444,
        doc="The whole AP part as one JSON object, keys sorted.",
        show=lambda system: json.dumps(system.state(), indent=1, sort_keys=True) + "\n",
    ),
)


ZCRYPT_PARAMETERS: Layout[ApSystem] = Layout(
    (
        Attr(
            name="hwrng_seed",
            mode=0o440,
            doc="Whether random numbers of the cards feed the kernel's, as given at the load.",
            show=lambda system: f"{system.hwrng_seed}\n",
        ),
    )
)


def _machine_rows(choice: ApKernelChoice, uevents: UeventLog, log: LineLog) -> tuple[Row, ...]:
    def reset(_system: ApSystem, text: str) -> None:
        require_one(text)
        choice.reset()

    return (
        Attr(
            name="profile",
            mode=0o644,
            doc="The kernel that the AP part behaves as.",
            show=lambda _system: bracketed(with_current(choice.names, choice.get()), choice.get()),
            store=lambda _system, text: choice.choose(one_word(text)),
            errors={
                EINVAL: "no such kernel, or another patch needs one left out",
                EBUSY: "a mediated device or a guest exists",
            },
        ),
        Attr(
            name="reset",
            mode=0o200,
            doc="Write 1: the AP part as at mount time.",
            store=reset,
            errors={EINVAL: "not 1"},
        ),
        *journal_rows(
            "uevents",
            "Uevents of the AP part since the mount",
            lambda _system: uevents_from(uevents, _of_ap),
        ),
        *journal_rows(
            "log",
            "Log lines of the AP part since the mount",
            lambda _system: lines_from(log, _line_of_ap),
        ),
    )


def mounts(
    system: ApSystem, choice: ApKernelChoice, uevents: UeventLog, log: LineLog
) -> tuple[Mount, ...]:
    """Return where the control files appear."""
    rows: Iterable[Row] = (
        *_machine_rows(choice, uevents, log),
        *SETTINGS,
        *HARDWARE_ROWS,
        *GUEST_ROWS,
        *KEY_ROWS,
    )
    layout: Layout[ApSystem] = Layout(tuple(rows), kind=CONTROL)
    return (
        Mount("sys/kernel/debug/fakesys/ap", layout, lambda: system),
        Mount("sys/module/zcrypt/parameters", ZCRYPT_PARAMETERS, lambda: system),
    )
