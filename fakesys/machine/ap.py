"""The AP side of a machine: hardware, models, kernels and files put together."""

from __future__ import annotations

from typing import Any

from fakesys.core.errors import KernelError
from fakesys.core.features import FeatureSet
from fakesys.core.journal import LineLog, UeventLog
from fakesys.core.kernel import Kernel
from fakesys.core.text import ALL_IDS
from fakesys.machine.profiles import ApKernel
from fakesys.machine.scenario import Ap, Card, ScenarioError
from fakesys.subsystems.ap_bus.files import bus as bus_files
from fakesys.subsystems.ap_bus.hardware import (
    DEFAULT,
    PRESETS,
    CardMode,
    CardSpec,
    HardwareSpec,
    mask_of,
)
from fakesys.subsystems.ap_control import files as control_files
from fakesys.subsystems.ap_control import hardware_files
from fakesys.subsystems.ap_control.files import ApKernelChoice
from fakesys.subsystems.ap_control.model import ApPolicies, ApSystem
from fakesys.subsystems.mdev import files as mdev_files
from fakesys.subsystems.vfio_ap import files as vfio_ap_files
from fakesys.tree.attr import Attr, Mount

_LETTERS = {"A": CardMode.ACCEL, "C": CardMode.CCA, "P": CardMode.EP11}


class ApSide:
    """The AP part of a machine, as the kernel that was chosen last has it."""

    def __init__(self, kernel: Kernel, ap: ApKernel, spec: HardwareSpec) -> None:
        self._kernel = kernel
        self._ap = ap
        self.system = ApSystem(kernel, spec, _policies(ap))

    @classmethod
    def around(cls, kernel: Kernel, ap: ApKernel, system: ApSystem) -> ApSide:
        """The AP part whose models exist already."""
        side = cls.__new__(cls)
        side._kernel, side._ap, side.system = kernel, ap, system
        return side

    @property
    def features(self) -> FeatureSet:
        """What the chosen kernel has."""
        return self._ap.features

    def use(self, ap: ApKernel) -> None:
        """Behave like this kernel. Raises EBUSY while a mediated device or a guest exists."""
        if ap is not self._ap:
            self.system.use(_policies(ap))
            self._ap = ap

    def mounts(self, choice: ApKernelChoice, uevents: UeventLog, log: LineLog) -> tuple[Mount, ...]:
        """Where the AP part's files stand."""
        system, devices = self.system, self._kernel.devices
        return (
            *bus_files.mounts(
                lambda: system.bus,
                devices,
                queue_rows=vfio_ap_files.queue_rows(lambda: system.vfio_ap),
                drivers=vfio_ap_files.driver_rows(),
            ),
            *mdev_files.mounts(lambda: system.mdev_bus),
            *vfio_ap_files.mounts(lambda: system.vfio_ap, devices),
            *control_files.mounts(system, choice, uevents, log),
        )

    def faults(self) -> tuple[Attr[Any], ...]:
        """The AP part's files below `fakesys/faults/`."""
        return hardware_files.fault_rows(lambda: self.system)


def _policies(ap: ApKernel) -> ApPolicies:
    return ApPolicies(ap.bus, ap.mdev, ap.vfio_ap)


def hardware_of(ap: Ap) -> HardwareSpec:
    """The hardware that a scenario describes; without a word the default one.

    Raises ScenarioError for a card that cannot be.
    """
    if ap.preset is not None and ap.preset not in PRESETS:
        raise ScenarioError(f"ap.preset: {ap.preset!r} is none of {', '.join(PRESETS)}")
    listed = bool(ap.card) or ap.domains is not None
    base = PRESETS[ap.preset] if ap.preset else (HardwareSpec() if listed else DEFAULT)
    cards = tuple(_card(card, index) for index, card in enumerate(ap.card))
    domains = _mask(ap.domains, base.domains or _domains_of(cards), "ap.domains")
    return HardwareSpec(
        cards=(*base.cards, *cards),
        domains=domains,
        control_domains=_mask(ap.control_domains, base.control_domains or domains, "ap.domains"),
        max_adapter_id=_either(ap.max_adapter_id, base.max_adapter_id),
        max_domain_id=_either(ap.max_domain_id, base.max_domain_id),
    )


def _either(given: int | None, default: int) -> int:
    return default if given is None else given


def _domains_of(cards: tuple[CardSpec, ...]) -> int:
    mask = 0
    for card in cards:
        mask |= card.domains or 0
    return mask


def _mask(numbers: tuple[int, ...] | None, default: int, where: str) -> int:
    if numbers is None:
        return default
    if any(not 0 <= number <= 255 for number in numbers):
        raise ScenarioError(f"{where}: a domain is within 0-255")
    return mask_of(*numbers)


def _card(card: Card, index: int) -> CardSpec:
    where = f"ap.card[{index}]"
    kind, mode = card.type, card.mode
    if kind[-1:] in _LETTERS:
        kind, mode = kind[:-1], mode or str(_LETTERS[card.type[-1]])
    options = {"serialnr": card.serialnr, "fw_version": card.fw_version, "depth": card.depth}
    words = [f"{key}={value}" for key, value in options.items() if value is not None]
    try:
        spec = control_files.parse_card(" ".join((str(card.id), kind, mode or "", *words)))
    except KernelError as refusal:
        raise ScenarioError(f"{where}: {refusal.why}") from None
    if not 0 <= card.id <= 255:
        raise ScenarioError(f"{where}.id: an adapter is within 0-255")
    domains = None if card.domains is None else _mask(card.domains, ALL_IDS, f"{where}.domains")
    return CardSpec(
        id=spec.id,
        type=spec.type,
        mode=spec.mode,
        serialnr=spec.serialnr,
        fw_version=spec.fw_version,
        depth=spec.depth,
        domains=domains,
    )
