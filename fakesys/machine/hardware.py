"""What a scenario begins with: the hardware of the AP part, and the commands that make its VMs."""

from __future__ import annotations

from collections.abc import Iterator

from fakesys.core.errors import KernelError
from fakesys.core.text import ALL_IDS
from fakesys.machine.scenario import Ap, Card, Kvm, ScenarioError
from fakesys.subsystems.ap_bus.hardware_spec import (
    DEFAULT,
    PRESETS,
    CardMode,
    CardSpec,
    HardwareSpec,
    mask_of,
)
from fakesys.subsystems.ap_control.files import parse_card

# The files that take commands for VMs.
CTL = "sys/kernel/debug/fakesys/kvm/ctl"
PRESET = "sys/kernel/debug/fakesys/kvm/preset"

_LETTERS = {"A": CardMode.ACCEL, "C": CardMode.CCA, "P": CardMode.EP11}


def hardware_of(ap: Ap) -> HardwareSpec:
    """Return the hardware that a scenario describes; the default one if it describes none.

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
        spec = parse_card(" ".join((str(card.id), kind, mode or "", *words)))
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


def guest_commands(kvm: Kvm) -> Iterator[tuple[str, str]]:
    """Yield path and text of each write that makes the VMs of a scenario, in their order."""
    for vm in kvm.vm:
        options = "".join(f" {key}={value}" for key, value in vm.options.items())
        yield CTL, f"vm create {vm.name}{options}\n"
        if vm.vcpus:
            yield CTL, f"{vm.name} vcpu add count={vm.vcpus}\n"
    for text in kvm.preset:
        yield PRESET, f"{text}\n"
