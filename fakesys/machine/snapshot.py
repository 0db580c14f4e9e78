"""A whole machine as one JSON object on many lines, and back.

The first line says what the file is and holds the readable state; then one line per object of the
models; the last line has a checksum of all before it. What is no state is left out and made anew
by whoever loads: tree, tables of files, commands, open files, whoever waits.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from errno import EINVAL
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from fakesys.core.errors import KernelError
from fakesys.core.kernel import Kernel
from fakesys.core.version import __version__
from fakesys.graph.decode import BadGraphError, Decoder, parse
from fakesys.graph.encode import Encoder, Outside
from fakesys.graph.names import Names
from fakesys.machine.profiles import Profile
from fakesys.machine.scenario import Scenario
from fakesys.subsystems.ap_control.model import ApSystem
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.control.faults import Faults
from fakesys.subsystems.control.model import Refusal
from fakesys.subsystems.control.snapshots import FIRST, LAST, is_complete
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm_mmu.extension import MmuExtension
from fakesys.subsystems.selftest.model import Selftest
from fakesys.subsystems.tracing.instances.tracing import Tracing

if TYPE_CHECKING:
    from fakesys.machine.machine import Machine

FORMAT = 2
_PACKAGES = (
    *("fakesys.core", "fakesys.subsystems", "fakesys.machine.profiles"),
    *("fakesys.machine.kvm", "fakesys.machine.timeline"),
)
_OTHERS = tuple(
    f"fakesys.machine.scenario:{name}"
    for name in ("Scenario", "Ap", "Card", "Kvm", "Vm", "At", "Expect")
)


class Header(Struct, frozen=True):
    """What the first line of a snapshot says of it."""

    version: str
    profile: str
    scenario: str
    time_ns: int
    state: Mapping[str, Any]


class Parts(Struct, frozen=True, kw_only=True):
    """The models and settings of a machine: all that is saved of it."""

    kernel: Kernel
    ap: ApSystem
    kvm: Kvm
    memory: MmuExtension
    apicv: Apicv
    tracing: Tracing
    selftest: Selftest | None
    profile: Profile
    first_profile: Profile
    seed: int
    first_seed: int
    lockdown: bool
    faults: Faults
    last_error: Refusal | None
    uevents: tuple[int, tuple[Any, ...]]
    log: tuple[int, tuple[str, ...]]
    scenario: Scenario


def save(machine: Machine) -> bytes:
    """The machine as it is now."""
    # What is due happens before, so that the time in the file is the time of the reader.
    machine.clock.catch_up()
    roots, lines = Encoder(_names(), _outside(machine)).encode(_roots(machine.parts()))
    head = {
        "fakesys": __version__,
        "format": FORMAT,
        "profile": machine.profile_name,
        "scenario": machine.scenario.name,
        "time_ns": machine.clock.now_ns,
        "state": machine.state(),
        "roots": roots,
    }
    first = json.dumps(head, sort_keys=False)[:-1] + ', "objects":[\n'
    text = (first + ",\n".join(lines) + "\n").encode()
    return text + LAST + hashlib.sha256(text).hexdigest().encode() + b'"}\n'


def load(machine: Machine, data: bytes) -> Parts:
    """What a file holds, as parts for this machine, which is not changed.

    Raises EINVAL with the reason.
    """
    head, lines = _read(data)
    _header(head)
    try:
        found = Decoder(_names(), _outside(machine)).decode(
            head["roots"], [parse(line) for line in lines]
        )
        return _parts(found)
    except (BadGraphError, KeyError, TypeError) as error:
        raise KernelError(EINVAL, f"no usable snapshot: {error}") from None


def header(data: bytes) -> Header:
    """What a file says of itself. Raises EINVAL for one that is cut off, changed, or another's."""
    return _header(_read(data)[0])


def _read(data: bytes) -> tuple[dict[str, Any], list[str]]:
    at = data.rfind(b"\n", 0, -1) + 1
    if not data.startswith(FIRST):
        raise KernelError(EINVAL, "no snapshot of fakesys")
    if not is_complete(data):
        raise KernelError(EINVAL, "a snapshot that is cut off: its last line is missing")
    text = data[:at]
    if hashlib.sha256(text).hexdigest().encode() != data[at + len(LAST) : -3]:
        raise KernelError(EINVAL, "a snapshot that was changed: its checksum is wrong")
    first, *lines = text.decode("ascii", "replace").splitlines()
    try:
        head = json.loads(first.removesuffix(', "objects":[') + "}")
    except ValueError as error:
        raise KernelError(EINVAL, f"no snapshot of fakesys: {error}") from None
    return head, [line.removesuffix(",") for line in lines]


def _header(head: dict[str, Any]) -> Header:
    made_by = (head["fakesys"], head.get("format"))
    if made_by != (__version__, FORMAT):
        raise KernelError(
            EINVAL,
            f"a snapshot of fakesys {made_by[0]} (format {made_by[1]}); "
            f"this is {__version__} (format {FORMAT})",
        )
    try:
        return Header(
            version=head["fakesys"],
            profile=head["profile"],
            scenario=head["scenario"],
            time_ns=head["time_ns"],
            state=head["state"],
        )
    except KeyError as error:
        raise KernelError(EINVAL, f"no usable snapshot: {error} is missing") from None


@cache
def _names() -> Names:
    return Names(_PACKAGES, _OTHERS)


def _outside(machine: Machine) -> dict[str, Outside]:
    """What models refer to and do not own."""
    control = machine.control
    return {
        "machine": Outside(machine),
        "control": Outside(control),
        "uevents": Outside(control.uevents, frozenset({"_on_uevent", "_on_batch"})),
        "log": Outside(control.log, frozenset({"_on_line"})),
        "tree": Outside(machine.binder, frozenset({"_on_changed", "_on_touched", "_on_notified"})),
        "processes": Outside(machine.trace_side.processes),
        "daemon": Outside(os.getpid),
    }


def _roots(parts: Parts) -> dict[str, Any]:
    roots = {name: getattr(parts, name) for name in Parts.__struct_fields__}
    for name in ("profile", "first_profile"):
        roots[name] = asdict(roots[name])
    roots["scenario"] = json.loads(msgspec.json.encode(parts.scenario))
    if parts.last_error is not None:
        error = parts.last_error.error
        roots["last_error"] = (
            parts.last_error.time_ns,
            parts.last_error.path,
            error.errno,
            error.why,
        )
    return roots


def _parts(found: dict[str, Any]) -> Parts:
    for name in ("profile", "first_profile"):
        found[name] = Profile(**found[name])
    found["scenario"] = msgspec.convert(found["scenario"], Scenario)
    if found["last_error"] is not None:
        time_ns, path, errno, why = found["last_error"]
        found["last_error"] = Refusal(time_ns, path, KernelError(errno, why))
    return Parts(**found)
