"""A whole machine as one JSON object on many lines, and back.

The first line says what the file is and holds the readable state; then one line per object of the
models; the last line has a checksum of all before it. What is no state is left out, and made
again by the machine that loads: tree, tables of files, commands, open files, waiting readers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from errno import EINVAL
from functools import cache
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from fakesys.core.errors import KernelError
from fakesys.core.version import __version__
from fakesys.graph.decode import BadGraphError, Decoder, parse
from fakesys.graph.encode import Encoder, Outside
from fakesys.graph.names import Names
from fakesys.machine.parts import Parts
from fakesys.machine.profiles import Profile, require_known
from fakesys.machine.scenario import Origin
from fakesys.machine.subsystems import Subsystems
from fakesys.subsystems.control.model import Control, Refusal
from fakesys.subsystems.control.snapshots import FIRST, LAST, is_complete
from fakesys.tree.filesystem import FileSystem

FORMAT = 2
_PACKAGES = (
    *("fakesys.core", "fakesys.subsystems", "fakesys.machine.profiles"),
    *("fakesys.machine.kvm", "fakesys.machine.playback.timeline"),
)
_OTHERS = (
    *(f"fakesys.machine.scenario:{name}" for name in ("Scenario", "At", "Expect")),
    *(f"fakesys.machine.hardware:{name}" for name in ("Ap", "Card", "Kvm", "Vm")),
)


class Header(Struct, frozen=True):
    """What the first line of a snapshot says of it."""

    version: str
    profile: str
    scenario: str
    time_ns: int
    state: Mapping[str, Any]


def save(parts: Parts, state: Mapping[str, Any], outside: Mapping[str, Outside]) -> bytes:
    """Return a machine as a file. `state`: what a reader sees of it in the first line."""
    roots, lines = Encoder(_names(), outside).encode(_roots(parts))
    head = {
        "fakesys": __version__,
        "format": FORMAT,
        "profile": parts.profile.name,
        "scenario": parts.origin.scenario.name,
        "time_ns": parts.kernel.clock.now_ns,
        "state": state,
        "roots": roots,
    }
    first = json.dumps(head, sort_keys=False)[:-1] + ', "objects":[\n'
    text = (first + ",\n".join(lines) + "\n").encode()
    return text + LAST + hashlib.sha256(text).hexdigest().encode() + b'"}\n'


def load(data: bytes, outside: Mapping[str, Outside]) -> Parts:
    """Return what a file holds, as parts for the machine that `outside` belongs to.

    Raises EINVAL with the reason; nothing has changed then.
    """
    head, lines = _read(data)
    _header(head)
    try:
        found = Decoder(_names(), outside).decode(head["roots"], [parse(line) for line in lines])
        return _parts(found)
    except (BadGraphError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise KernelError(EINVAL, f"no usable snapshot: {error}") from None


def header(data: bytes) -> Header:
    """Return what a file says of itself.

    Raises EINVAL for a file that is cut off, changed, or no snapshot of this version.
    """
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


class Live(Protocol):
    """A machine that runs: what its models refer to and do not own."""

    control: Control
    fs: FileSystem
    subsystems: Subsystems


def outside(machine: Live) -> dict[str, Outside]:
    """Return what the models of a machine refer to and a snapshot does not hold."""
    control = machine.control
    tree = frozenset({"_on_changed", "_on_touched", "_on_notified"})
    return {
        "machine": Outside(machine),
        "control": Outside(control),
        "uevents": Outside(control.uevents, frozenset({"_on_uevent", "_on_batch"})),
        "log": Outside(control.log, frozenset({"_on_line"})),
        "tree": Outside(machine.fs.binder, tree),
        "processes": Outside(machine.subsystems.tracing.tracing.shared.processes),
        "daemon": Outside(os.getpid),
    }


@cache
def _names() -> Names:
    return Names(_PACKAGES, _OTHERS)


def _roots(parts: Parts) -> dict[str, Any]:
    roots = {name: getattr(parts, name) for name in Parts.__struct_fields__}
    roots["profile"] = asdict(parts.profile)
    roots["origin"] = json.loads(msgspec.json.encode(parts.origin))
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
    profile = found["profile"] = Profile(**found["profile"])
    require_known(profile)
    found["origin"] = msgspec.convert(found["origin"], Origin)
    if found["last_error"] is not None:
        time_ns, path, errno, why = found["last_error"]
        found["last_error"] = Refusal(time_ns, path, KernelError(errno, why))
    return Parts(**found)
