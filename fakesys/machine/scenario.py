"""Scenario files: the hardware to begin with, then writes and expectations over time.

A scenario says nothing that a shell could not do on the mount; it only says it at a time.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec

from fakesys.subsystems.apicv.presets import GUESTS

# importlib.resources takes longer to import than a scenario to read.
SHIPPED = Path(__file__).parent.with_name("scenarios")


class ScenarioError(ValueError):
    """A scenario that cannot be used; the text names file, place and what was expected."""


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One AP card. `type`: `CEX4`..`CEX8`, or with the letter of its mode, such as `CEX5C`.

    `domains`: the domains in which its queues answer; None: in all of the machine's.
    """

    id: int
    type: str
    mode: str | None = None
    serialnr: str | None = None
    fw_version: str | None = None
    depth: int | None = None
    domains: tuple[int, ...] | None = None


class Ap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The AP hardware: a preset (`default`, `empty`, `full`), or cards and domains listed."""

    preset: str | None = None
    card: tuple[Card, ...] = ()
    domains: tuple[int, ...] | None = None
    control_domains: tuple[int, ...] | None = None
    max_adapter_id: int | None = None
    max_domain_id: int | None = None


class Vm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One KVM guest, made before the timeline starts; `options` as `vm create` takes them."""

    name: str
    vcpus: int = 0
    options: dict[str, str | int] = {}


class Kvm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The KVM guests to begin with. `preset`: those that boot, as `fakesys/kvm/preset` takes it."""

    vm: tuple[Vm, ...] = ()
    preset: tuple[str, ...] = ()


class At(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One write, as by `echo TEXT > WRITE`, at simulated `seconds`; `expect` names its errno."""

    write: str
    text: str
    seconds: float = 0.0
    expect: str | None = None


class Expect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file must read at simulated `seconds`, or when all else is done.

    `text` is compared without its last newline; `error` names the errno of a refused read.
    """

    read: str
    text: str | None = None
    error: str | None = None
    seconds: float | None = None


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole machine and what happens to it. `profile` None: the default, or as asked for."""

    description: str = ""
    profile: str | None = None
    seed: int = 1
    selftest: bool = False
    ap: Ap = Ap()
    kvm: Kvm = Kvm()
    at: tuple[At, ...] = ()
    expect: tuple[Expect, ...] = ()
    name: str = ""


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From what a machine was made."""

    scenario: Scenario
    profile: str
    seed: int


def shipped() -> list[str]:
    """Return the names of the scenarios that come with the package."""
    return sorted(entry.stem for entry in SHIPPED.glob("*.toml"))


def load(source: str | Path) -> Scenario:
    """Return a shipped scenario by its name, or one from a file. Raises ScenarioError."""
    text = str(source)
    if not text.endswith(".toml") and "/" not in text:
        return _shipped_scenario(text)
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from None
    return parse(data, str(path))


def _shipped_scenario(name: str) -> Scenario:
    if name not in shipped():
        known = ", ".join(shipped())
        raise ScenarioError(f"{name!r} is no scenario ({known}) and no path of a .toml file")
    data = (SHIPPED / f"{name}.toml").read_bytes()
    return parse(data, name)


def with_preset(scenario: Scenario, preset: str) -> Scenario:
    """Return the same scenario with the AP hardware of a preset instead of its own.

    A preset of a guest, such as `linux-boot vcpus=17`, is one more guest that boots.
    """
    if preset.split()[:1] and preset.split()[0] in GUESTS:
        kvm = msgspec.structs.replace(scenario.kvm, preset=(*scenario.kvm.preset, preset))
        return msgspec.structs.replace(scenario, kvm=kvm)
    return msgspec.structs.replace(scenario, ap=Ap(preset=preset))


def parse(data: bytes, origin: str) -> Scenario:
    """Return a scenario from TOML; `origin` names it in messages. Raises ScenarioError."""
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{origin}: not TOML: {error}") from None
    try:
        scenario = msgspec.convert({"name": Path(origin).stem, **table}, Scenario)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"{origin}: {_readable(str(error))}") from None
    return scenario


def _readable(message: str) -> str:
    """`key ap.card[0].id: expected int, got str` from the validator's own wording."""
    found = re.fullmatch(r"(.*?)(?: - at `\$\.?(.*?)`)?", message, re.DOTALL)
    assert found is not None
    what = (found[1][:1].lower() + found[1][1:]).replace("`", "")
    what = what.replace("object contains unknown field", "unknown key")
    what = what.replace("object missing required field", "missing key")
    return f"key {found[2]}: {what}" if found[2] else what
