"""What a scenario begins with: the hardware of the AP part, and the commands that make its VMs.

The values are declared here as a scenario file has them, each with its range.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from msgspec import Meta, Struct

from fakesys.core.errors import KernelError
from fakesys.core.text import ALL_IDS
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

# As many guests as a start makes in some ten seconds.
MOST_VMS = 1024
MOST_PRESETS = 64
MOST_VCPUS = 8192

Id = Annotated[int, Meta(ge=0, le=255)]
Word = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A\S+\Z")]
Line = Annotated[str, Meta(max_length=4096)]
Number = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Natural = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]

_LETTERS = {"A": CardMode.ACCEL, "C": CardMode.CCA, "P": CardMode.EP11}


class ScenarioError(ValueError):
    """A scenario that cannot be used; the text names file or key, and what was expected."""


class Card(Struct, frozen=True, forbid_unknown_fields=True):
    """One AP card. `type`: `CEX4`..`CEX8`, or with the letter of its mode, such as `CEX5C`.

    `domains`: the domains in which its queues answer; None: in all of the machine's.
    """

    id: int
    type: Word
    mode: Word | None = None
    serialnr: Word | None = None
    functions: Word | None = None
    fw_version: Word | None = None
    depth: Natural | None = None
    domains: tuple[int, ...] | None = None


class Ap(Struct, frozen=True, forbid_unknown_fields=True):
    """The AP hardware: a preset (`default`, `empty`, `full`), or cards and domains listed."""

    preset: str | None = None
    card: tuple[Card, ...] = ()
    domains: tuple[int, ...] | None = None
    control_domains: tuple[int, ...] | None = None
    max_adapter_id: Id | None = None
    max_domain_id: Id | None = None


class Vm(Struct, frozen=True, forbid_unknown_fields=True):
    """One KVM guest, made before the timeline starts; `options` as `vm create` takes them."""

    name: Word
    vcpus: Natural = 0
    options: dict[Word, Word | Number] = {}


class Kvm(Struct, frozen=True, forbid_unknown_fields=True):
    """The KVM guests to begin with. `preset`: those that boot, as `fakesys/kvm/preset` takes it."""

    vm: Annotated[tuple[Vm, ...], Meta(max_length=MOST_VMS)] = ()
    preset: Annotated[tuple[Line, ...], Meta(max_length=MOST_PRESETS)] = ()


def hardware_of(ap: Ap) -> HardwareSpec:
    """Return the hardware that a scenario describes; the default one if it describes none.

    Raises ScenarioError, which names the key, for hardware that cannot be.
    """
    if ap.preset is not None:
        require_preset(ap.preset, "key ap.preset")
    listed = bool(ap.card) or ap.domains is not None
    base = PRESETS[ap.preset] if ap.preset else (HardwareSpec() if listed else DEFAULT)
    cards = tuple(_card(card, index) for index, card in enumerate(ap.card))
    domains = _mask(ap.domains, base.domains or _domains_of(cards), "key ap.domains")
    control = base.control_domains or domains
    return HardwareSpec(
        cards=(*base.cards, *cards),
        domains=domains,
        control_domains=_mask(ap.control_domains, control, "key ap.control_domains"),
        max_adapter_id=_either(ap.max_adapter_id, base.max_adapter_id),
        max_domain_id=_either(ap.max_domain_id, base.max_domain_id),
    )


def require_preset(name: str, where: str) -> None:
    """Raise ScenarioError unless there is AP hardware of this name."""
    if name not in PRESETS:
        raise ScenarioError(f"{where}: {name!r} is none of {', '.join(PRESETS)}")


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
    where = f"key ap.card[{index}]"
    kind, mode = card.type, card.mode
    if kind[-1:] in _LETTERS:
        kind, mode = kind[:-1], mode or str(_LETTERS[card.type[-1]])
    options = {
        "serialnr": card.serialnr,
        "fw_version": card.fw_version,
        "depth": card.depth,
        "functions": card.functions,
    }
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
        extra_functions=spec.extra_functions,
    )


def refuse_too_many(kvm: Kvm) -> None:
    """Raise ScenarioError for more vCPUs than a start can make in a short time."""
    vcpus = sum(vm.vcpus for vm in kvm.vm)
    if vcpus > MOST_VCPUS:
        raise ScenarioError(f"key kvm.vm: {vcpus} vCPUs in all, more than {MOST_VCPUS}")


def guest_commands(kvm: Kvm) -> Iterator[tuple[str, str, str]]:
    """Yield key, path and text of each write that makes the VMs of a scenario, in their order."""
    for index, vm in enumerate(kvm.vm):
        key = f"kvm.vm[{index}]"
        options = "".join(f" {name}={value}" for name, value in vm.options.items())
        yield key, CTL, as_bytes(f"vm create {vm.name}{options}\n")
        if vm.vcpus:
            yield key, CTL, as_bytes(f"{vm.name} vcpu add count={vm.vcpus}\n")
    for index, text in enumerate(kvm.preset):
        yield f"kvm.preset[{index}]", PRESET, as_bytes(f"{text}\n")


def as_bytes(text: str) -> str:
    """Return a text of a scenario for `Machine.write`: one character for each byte of UTF-8."""
    return text.encode().decode("latin-1")


@contextmanager
def refusals_name(key: str) -> Iterator[None]:
    """Let the reason of a refused write begin with the key of the scenario that wanted it."""
    try:
        yield
    except KernelError as refusal:
        raise KernelError(refusal.errno or 0, f"key {key}: {refusal.why}") from None
