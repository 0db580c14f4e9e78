"""A whole machine as one JSON document of declared values, and back.

The first line says what the file is and holds the readable state; one line follows for each part,
and the last line has a checksum of all before it. A load decodes the document into `Snapshot`,
which declares every value, and fills new models; the machine changes only when all parts
were checked. What is no state is not in the file and made again: tree, tables of files, commands,
open files, waiting readers, and all that follows from other values.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from errno import EINVAL
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta, Raw, Struct

from fakesys.core.errors import KernelError
from fakesys.core.events import Uevent, UeventBatch
from fakesys.core.saved import U32, U63, BadSnapshotError, Line, Saved, Word, check
from fakesys.core.scheduling.resched import cond_resched_killable, ends_call
from fakesys.core.version import __version__
from fakesys.machine.hardware import ScenarioError
from fakesys.machine.profiles import profile_of
from fakesys.machine.saved_models import SavedModels, restored_models, save_models
from fakesys.machine.scenario import Origin
from fakesys.machine.scenario import check as check_scenario
from fakesys.machine.subsystems import Subsystems
from fakesys.machine.timeline import (
    SavedTimeline,
    Stage,
    Timeline,
    restored_timeline,
    save_timeline,
)
from fakesys.subsystems.ap_control import journals
from fakesys.subsystems.control import saved as settings
from fakesys.subsystems.control.model import Control
from fakesys.subsystems.control.snapshots import FIRST, is_complete, last_line

FORMAT = 3
# What decides whether the rest can be read, in this and in former formats.
_MADE_BY = re.compile(rb'\{"fakesys": "([^"\\]{1,40})", "format": (\d{1,9}),')
_CHECKSUM = re.compile(rb'"sha256":"([0-9a-f]{64})"\}\n')

# Bytes that Python needs for a reference, and for each kind of object. Numbers up to 256 exist.
_VALUE, _TUPLE, _STRING, _STRUCT, _NUMBER = 8, 56, 49, 32, 32
_LARGE = re.compile(rb"[:,\[-]\d{3}")
# Files that need no more than this are not worth a look.
_SMALL = 1 << 20


class Header(Saved, frozen=True):
    """What the first line of a snapshot says of it. `state`: the text of `fakesys/state`."""

    fakesys: Word
    format: U32
    profile: Word
    scenario: Line
    time_ns: U63
    state: Raw


class Snapshot(Header, frozen=True):
    """A whole file."""

    origin: Origin
    models: SavedModels
    control: settings.SavedControl
    uevents: journals.SavedUevents
    log: journals.SavedLog
    timeline: SavedTimeline | None
    sha256: Annotated[str, Meta(max_length=64)]


class Live(Stage, Protocol):
    """A machine that runs."""

    origin: Origin
    subsystems: Subsystems

    def state(self) -> Mapping[str, Any]:
        """Return the machine as plain data."""


class Loaded(Struct, frozen=True):
    """What a machine becomes by a load."""

    origin: Origin
    models: Subsystems
    timeline: Timeline | None
    uevents: Sequence[Uevent | UeventBatch]
    saved: Snapshot

    def show_in(self, control: Control) -> None:
        """Let journals and settings be those of the file; the journals hear the new models."""
        control.begin(self.models.kernel, self.saved.control.seed)
        control.uevents.replace(self.saved.uevents.last, self.uevents)
        control.log.replace(self.saved.log.last, self.saved.log.kept, self.saved.log.times)
        settings.restore(self.saved.control, control)


def save(machine: Live) -> bytes:
    """Return a machine as a file."""
    head = {
        "fakesys": __version__,
        "format": FORMAT,
        "profile": machine.subsystems.profile.name,
        "scenario": machine.scenario.name,
        "time_ns": machine.clock.now_ns,
        "state": machine.state(),
    }
    # The name of a directory can be no UTF-8; the state is for readers, who see `?` there.
    lines = [json.dumps(head, ensure_ascii=False)[:-1].encode("utf-8", "replace")]
    for name, part in _parts(machine).items():
        lines.append(b'"%s":%s' % (name.encode(), msgspec.json.encode(part)))
    text = b",\n".join((*lines, b""))
    return text + last_line(hashlib.sha256(text).hexdigest())


def _parts(machine: Live) -> dict[str, Any]:
    control = machine.control
    return {
        "origin": machine.origin,
        "models": save_models(machine.subsystems),
        "control": settings.save(control),
        "uevents": journals.save_uevents(control.uevents),
        "log": journals.save_log(control.log),
        "timeline": save_timeline(machine.timeline),
    }


def load(data: bytes, machine: Live) -> Loaded:
    """Return what a file holds, for a machine that is to become it.

    Raises EINVAL with the reason, EINTR after a signal; nothing has changed then.
    """
    header(data)
    try:
        _check_size(data)
        cond_resched_killable()
        return _loaded(msgspec.json.decode(data, type=Snapshot), machine)
    except _WRONG as error:
        if ends_call(error):
            raise
        why = error.why if isinstance(error, KernelError) else str(error)
        raise KernelError(EINVAL, f"no usable snapshot: {_one_line(why)}") from None


_WRONG = (
    *(BadSnapshotError, ScenarioError, KernelError),
    *(msgspec.DecodeError, RecursionError, UnicodeDecodeError),
)


def _check_size(data: bytes) -> None:
    """Refuse a file whose values need more than four times its size, before they are made.

    The text of all strings is in the file, so its size is the fourth part. Files of machines need
    less than three times their size, most of them as much as their size.
    """
    begin = data.index(b"\n")
    counts = Counter[bytes]()
    for mark in (b"[", b'":', b",", b'"', b"{"):
        cond_resched_killable()
        counts[mark] = data.count(mark, begin)
    for _ in _LARGE.finditer(data, begin):
        cond_resched_killable()
        counts[b"large"] += 1
    lists = counts[b"["]
    needed = _VALUE * (counts[b","] + lists) + _TUPLE * lists
    needed += _STRING * (counts[b'"'] // 2 - counts[b'":'])
    needed += _STRUCT * counts[b"{"] + _NUMBER * counts[b"large"]
    check(needed <= 3 * len(data) + _SMALL, "its values need more than 4 times its size")


def _loaded(saved: Snapshot, machine: Live) -> Loaded:
    origin = saved.origin
    # What `reset` will make of it.
    profile_of(origin.profile)
    check_scenario(origin.scenario)
    check(origin.scenario.name.isprintable(), "the name of the scenario is no name")
    settings.check_control(saved.control)
    journals.check_log(saved.log)
    uevents = journals.restored_uevents(saved.uevents)
    processes = machine.subsystems.tracing.tracing.shared.processes
    models = restored_models(saved.models, origin.scenario, processes)
    clock = models.kernel.clock
    timeline = restored_timeline(saved.timeline, machine, origin.scenario, clock)
    return Loaded(origin, models, timeline, uevents, saved)


def header(data: bytes) -> Header:
    """Return what a file says of itself.

    Raises EINVAL for a file that is cut off, changed, or no snapshot of this version.
    """
    if not data.startswith(FIRST):
        raise KernelError(EINVAL, "no snapshot of fakesys")
    if not is_complete(data):
        raise KernelError(EINVAL, "a snapshot that is cut off: its last line is missing")
    _check_version(data)
    at = data.rindex(b"\n", 0, -1) + 1
    checksum = _CHECKSUM.fullmatch(data, at)
    if checksum is None or hashlib.sha256(data[:at]).hexdigest().encode() != checksum[1]:
        raise KernelError(EINVAL, "a snapshot that was changed: its checksum is wrong")
    first = data[: data.index(b"\n")].removesuffix(b",") + b"}"
    try:
        return msgspec.json.decode(first, type=Header)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise KernelError(EINVAL, f"no usable snapshot: {_one_line(str(error))}") from None


def _check_version(data: bytes) -> None:
    found = _MADE_BY.match(data)
    if found is None:
        raise KernelError(EINVAL, "no snapshot of fakesys")
    version, number = found[1].decode("ascii", "replace"), int(found[2])
    if (version, number) != (__version__, FORMAT):
        raise KernelError(
            EINVAL,
            f"a snapshot of fakesys {version} (format {number}); "
            f"this is {__version__} (format {FORMAT})",
        )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]
