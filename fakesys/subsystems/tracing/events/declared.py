"""Events of the kernel around KVM, whose formats were recorded: `formats/VERSION.txt`.

A section of such a file is one event: `system:name`, a line `TYPE NAME; OFFSET SIZE SIGNED` for
each field, and the print format. Nothing of a section but its name is read until it is needed.
Most of these events never happen here; for those that do, `host.py` has the classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from fakesys.core.c_types import CType, Holds
from fakesys.core.event_format import EventFormat, Field, Loaded
from fakesys.core.tracepoint import Tracepoint, declared_fields

_FOLDER = Path(__file__).parent / "formats"
_FIELD = re.compile(r"(.+?) ?(\w+)(\[\d*\])?; (\d+) (\d+) ([01])")
_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}


@cache
def sections(version: str) -> Mapping[str, str]:
    """Return the sections of a version by name, in the order of `available_events`."""
    texts = (_FOLDER / f"{version}.txt").read_text().rstrip("\n").split("\n\n")
    return {name: body for name, _, body in (text.partition("\n") for text in texts)}


def declared_formats(
    version: str, classes: Mapping[str, type[Tracepoint]], first_id: int
) -> Iterator[EventFormat]:
    """Return the events of a version, numbered from `first_id` on; `classes`: of those that happen.

    An event that `classes` has not gets a class of its own when it is asked for.
    """
    for number, (name, body) in enumerate(sections(version).items(), start=first_id):
        system, _, event = name.partition(":")
        yield EventFormat(system, event, number, _Loader(name, body, classes.get(name)))


class _Loader:
    """Reads one section when it is called."""

    def __init__(self, name: str, body: str, cls: type[Tracepoint] | None) -> None:
        self._name = name
        self._body = body
        self._cls = cls

    def __call__(self) -> Loaded:
        *lines, print_fmt = self._body.split("\n")
        fields = tuple(map(_field, lines))
        recorded = {field.name: field.ctype for field in fields}
        if self._cls is None:
            cls, declared = _class(self._name, fields), recorded
        else:
            cls, declared = self._cls, dict(declared_fields(self._cls))
        return Loaded(
            cls=cls, fields=fields, print_fmt=print_fmt, text=_texts_of(fields), declared=declared
        )


def _field(line: str) -> Field:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise ValueError(f"{line!r} is no field")
    text, name, suffix, offset, size, signed = found.groups()
    return Field(name, _type(text, suffix or "", int(size), signed == "1"), int(offset))


def _type(text: str, suffix: str, size: int, signed: bool) -> CType:
    if text == "__data_loc char[]":
        return CType(text, size, signed, "I", holds=Holds.DYNAMIC)
    if suffix:
        holds = Holds.CHARS if text == "char" else Holds.BYTES
        return CType(text, size, signed, f"{size}s", suffix, align=1, holds=holds)
    if text == "bool":
        return CType(text, size, signed, "?", holds=Holds.BOOL)
    code = _CODES[size] if signed else _CODES[size].upper()
    return CType(text, size, signed, code)


def _class(name: str, fields: tuple[Field, ...]) -> type[Tracepoint]:
    """Return a class for an event that never happens, for filters, triggers and records."""
    system, _, event = name.partition(":")
    made = msgspec.defstruct(
        "".join(map(str.capitalize, event.split("_"))),
        [(field.name, Any) for field in fields],
        bases=(Tracepoint,),
        namespace={"system": system, "event": event, "__doc__": "An event that never happens."},
        module=__name__,
    )
    assert issubclass(made, Tracepoint)
    return made


def _texts_of(fields: tuple[Field, ...]) -> Any:
    """Return what shows an event whose print format cannot be compiled."""
    return lambda event: " ".join(f"{field.name}={getattr(event, field.name)}" for field in fields)
