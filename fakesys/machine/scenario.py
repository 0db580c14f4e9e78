"""Scenario files: the hardware to begin with, then writes and expectations over time.

A scenario says nothing that a shell could not do on the mount; it only says it at a time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from fakesys.core.errors import KernelError
from fakesys.core.text import LONGEST_QUOTE, one_line
from fakesys.machine.hardware import (
    Ap,
    Kvm,
    Natural,
    ScenarioError,
    hardware_of,
    refuse_too_many,
    require_preset,
)
from fakesys.machine.profiles import profile_of
from fakesys.machine.untrusted.files import UnusableFileError, read_file
from fakesys.machine.untrusted.toml import TomlError, table_of

# importlib.resources takes longer to import than a scenario to read.
SHIPPED = Path(__file__).parent.with_name("scenarios")
# Of a scenario file, in bytes.
MOST = 1 << 20
# Of a recorded script, which tells its machine: some million steps.
MOST_RECORDED = 64 << 20
# COMMAND_LINE_SIZE of s390x.
LONGEST_BOOT = 4096
# Simulated time in a scenario ends after four months, which an idle machine plays in ten seconds.
MOST_SECONDS = 10_000_000
Seconds = Annotated[float, Meta(ge=0, le=MOST_SECONDS)]


class At(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One write, as by `echo TEXT > WRITE`, at simulated `seconds`; `expect` names its errno."""

    write: str
    text: str
    seconds: Seconds = 0.0
    expect: str | None = None


class Expect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file must read at simulated `seconds`, or when all else is done.

    `text` is compared without its last newline; `error` names the errno of a refused read.
    """

    read: str
    text: str | None = None
    error: str | None = None
    seconds: Seconds | None = None


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole machine and what happens to it. `profile` None: the default, or as asked for.

    `boot`: the command line of the kernel, such as `ap.apmask=-5 kvm.halt_poll_ns=0`.
    """

    description: str = ""
    profile: str | None = None
    seed: Natural = 1
    boot: Annotated[str, Meta(max_length=LONGEST_BOOT)] = ""
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
    seed: Natural


def shipped() -> list[str]:
    """Return the names of the scenarios that come with the package."""
    return sorted(entry.stem for entry in SHIPPED.glob("*.toml"))


def load(source: str | Path) -> Scenario:
    """Return a shipped scenario by its name, or one from a file. Raises ScenarioError.

    Of a script that `fakesys record` wrote it is the scenario of its machine.
    """
    text = str(source)
    if not text.endswith(".toml") and "/" not in text:
        return _shipped_scenario(text)
    try:
        data = read_file(Path(source), MOST if text.endswith(".toml") else MOST_RECORDED)
    except UnusableFileError as error:
        raise ScenarioError(str(error)) from None
    if data.startswith(b"#!/bin/sh\n"):
        return _recorded(data.decode("utf-8", "surrogateescape"), text)
    if len(data) > MOST:
        raise _unusable(text, f"{len(data)} bytes, of which at most {MOST} can be used")
    return parse(data, text)


def _recorded(script: str, name: str) -> Scenario:
    try:
        origin = origin_in(script)
    except ScenarioError as error:
        raise _unusable(name, str(error)) from None
    return msgspec.structs.replace(origin.scenario, profile=origin.profile, seed=origin.seed)


def origin_in(script: str) -> Origin:
    """Return from what the machine of a recorded script was made. Raises ScenarioError."""
    from fakesys.subsystems.control.script import machine_in

    described = machine_in(script)
    if described is None:
        raise ScenarioError("the script does not say of which machine it is")
    try:
        origin = msgspec.json.decode(described.encode("utf-8", "surrogateescape"), type=Origin)
        check(origin.scenario)
    except (msgspec.DecodeError, ScenarioError, RecursionError) as error:
        why = one_line(str(error), LONGEST_QUOTE)
        raise ScenarioError(f"the line `#: ` describes no machine: {why}") from None
    return origin


def is_shipped(scenario: Scenario) -> bool:
    """Return whether this is the shipped scenario of its name, but for `boot`."""
    if scenario.name not in shipped():
        return False
    return with_boot(_shipped_scenario(scenario.name), scenario.boot) == scenario


def _shipped_scenario(name: str) -> Scenario:
    if name not in shipped():
        known = ", ".join(shipped())
        raise ScenarioError(f"{name!r} is no scenario ({known}) and no path of a .toml file")
    data = (SHIPPED / f"{name}.toml").read_bytes()
    return parse(data, name)


def with_preset(scenario: Scenario, preset: str) -> Scenario:
    """Return the same scenario with the AP hardware of a preset instead of its own.

    A preset of a guest, such as `linux-boot vcpus=17`, is one more guest that boots. Raises
    ScenarioError for a preset that does not exist.
    """
    from fakesys.subsystems.apicv.presets import NAMES

    if preset.split()[:1] and preset.split()[0] in NAMES:
        kvm = msgspec.structs.replace(scenario.kvm, preset=(*scenario.kvm.preset, preset))
        return msgspec.structs.replace(scenario, kvm=kvm)
    require_preset(preset, "preset")
    return msgspec.structs.replace(scenario, ap=Ap(preset=preset))


def with_boot(scenario: Scenario, boot: str) -> Scenario:
    """Return the same scenario with another command line of the kernel. Raises ScenarioError."""
    _require_line(boot, "boot")
    return msgspec.structs.replace(scenario, boot=boot)


def _require_line(boot: str, where: str) -> None:
    if len(boot) > LONGEST_BOOT:
        raise ScenarioError(f"{where}: more than {LONGEST_BOOT} characters")
    if not (boot.isascii() and boot.isprintable()):
        raise ScenarioError(f"{where}: not one line of printable ASCII characters")


def parse(data: bytes, origin: str) -> Scenario:
    """Return a scenario from TOML; `origin` names it in messages. Raises ScenarioError."""
    try:
        found = msgspec.convert({"name": one_line(Path(origin).stem), **table_of(data)}, Scenario)
        check(found)
    except msgspec.ValidationError as error:
        raise _unusable(origin, readable(str(error))) from None
    except (TomlError, ScenarioError) as error:
        raise _unusable(origin, str(error)) from None
    return found


def check(scenario: Scenario) -> None:
    """Raise ScenarioError, which names the key, for what no machine can begin with."""
    if scenario.profile is not None:
        try:
            profile_of(scenario.profile)
        except KernelError as refusal:
            raise ScenarioError(f"key profile: {refusal.why}") from None
    _require_line(scenario.boot, "key boot")
    hardware_of(scenario.ap)
    refuse_too_many(scenario.kvm)


def _unusable(origin: str, why: str) -> ScenarioError:
    return ScenarioError(f"{one_line(origin)}: {one_line(why, LONGEST_QUOTE)}")


def readable(message: str) -> str:
    """Return `key ap.card[0].id: expected int, got str` from the validator's own wording."""
    found = re.fullmatch(r"(.*?)(?: - at `\$\.?(.*?)`)?", message, re.DOTALL)
    assert found is not None
    what = (found[1][:1].lower() + found[1][1:]).replace("`", "")
    what = what.replace("object contains unknown field", "unknown key")
    what = what.replace("object missing required field", "missing key")
    what = re.sub("str matching regex .*", "one word", what, flags=re.DOTALL)
    return f"key {found[2]}: {what}" if found[2] else what
