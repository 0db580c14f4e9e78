"""Lines to objects. No existing object is changed; a wrong file raises BadGraphError.

Mutable objects are made empty first, so that all lines can refer to them; immutable ones follow in
the order of the lines; then the empty ones are filled, those with hashed members last.
"""

from __future__ import annotations

import base64
import json
import operator
import re
import struct
import zlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from itertools import count
from random import Random
from types import CellType, FunctionType, MappingProxyType, MethodType
from typing import Any

import msgspec

from fakesys.graph.encode import BUILTIN_METHODS, Outside, plan_of
from fakesys.graph.names import Names

# In place of an object that is not made yet.
_LATER = object()


class BadGraphError(ValueError):
    """The lines describe no graph of this version."""


class Decoder:
    """Decodes one graph. `outside`: the objects that it refers to and does not own, by name."""

    def __init__(self, names: Names, outside: Mapping[str, Outside]) -> None:
        self._names = names
        self._outside = outside
        self._lines: Sequence[list[Any]] = ()
        self._things: list[Any] = []
        self._shapes: dict[int, _Shape] = {}

    def decode(self, roots: Mapping[str, Any], lines: Sequence[list[Any]]) -> dict[str, Any]:
        """Return the roots by name. Raises BadGraphError."""
        self._lines = lines
        try:
            self._build()
            return {name: self.value(root) for name, root in roots.items()}
        except _WRONG as error:
            raise BadGraphError(f"{type(error).__name__}: {error}") from error

    def _build(self) -> None:
        self._things = [None] * len(self._lines)
        for number, line in enumerate(self._lines):
            if line[0] == "class":
                self._shapes[number] = _Shape(self._class(line[1]), line[2])
        for number, line in enumerate(self._lines):
            self._things[number] = self._shell(line)
        for number, line in enumerate(self._lines):
            write = _FIXED.get(line[0]) if isinstance(line[0], str) else None
            if write is not None:
                self._things[number] = write(self, line, self._things[number])
        for number, line in enumerate(self._lines):
            self._fill(self._things[number], line)
        for number, line in enumerate(self._lines):
            self._fill_hashed(self._things[number], line)
        self._call_after_load()

    def value(self, written: Any) -> Any:
        """Return the object of a value in a line."""
        if isinstance(written, list):
            (number,) = written
            if not 0 <= number < len(self._things):
                raise BadGraphError(f"there is no line {number}")
            thing = self._things[number]
            if thing is _LATER:
                raise BadGraphError(f"line {number} is not there yet")
            return thing
        if isinstance(written, dict):
            ((kind, text),) = written.items()
            return _SPELLED[kind](text)
        return written

    def _values(self, written: Iterable[Any]) -> Iterator[Any]:
        return map(self.value, written)

    def _class(self, name: str) -> type:
        found = self._names.thing(name)
        if not isinstance(found, type):
            raise BadGraphError(f"{name} is no class")
        return found

    def _shell(self, line: list[Any]) -> Any:
        """Return an empty object for a line, `_LATER` for an immutable one."""
        kind = line[0]
        if isinstance(kind, str):
            make = _EMPTY.get(kind)
            if make is None and kind not in _FIXED and kind != "class":
                raise BadGraphError(f"{kind!r} is nothing that can be made")
            return _LATER if make is None else make(line)
        return _empty(self._shapes[kind].cls)

    def _fill(self, made: Any, line: list[Any]) -> None:
        kind = line[0]
        if not isinstance(kind, str):
            self._shapes[kind].fill(made, self._values(line[1:]))
        elif kind == "list":
            made.extend(self._values(line[1:]))
        elif kind == "deque":
            made.extend(self._values(line[2:]))
        elif kind == "cell" and len(line) > 1:
            made.cell_contents = self.value(line[1])

    def _fill_hashed(self, made: Any, line: list[Any]) -> None:
        kind = line[0]
        if kind in ("dict", "counter"):
            parts = self._values(line[1:])
            dict.update(made, zip(parts, parts, strict=True))
        elif kind == "set":
            made.update(self._values(line[1:]))

    def _call_after_load(self) -> None:
        for number, line in enumerate(self._lines):
            if not isinstance(line[0], str) and (hook := self._shapes[line[0]].loaded):
                hook(self._things[number])

    def _function(self, line: list[Any]) -> FunctionType:
        name, number, qualname, defaults, by_name = line[1:6]
        code, names = self._names.code_at(name, number)
        if code.co_qualname != qualname:
            raise BadGraphError(f"{qualname} is another function here")
        cells = tuple(self._values(line[6:]))
        made = FunctionType(code, names, code.co_name, self.value(defaults), cells)
        made.__kwdefaults__ = self.value(by_name)
        made.__qualname__ = qualname
        return made

    def _bound(self, line: list[Any]) -> MethodType:
        function, owner = self._values(line[1:])
        if not isinstance(function, FunctionType):
            raise BadGraphError("only functions are bound")
        return MethodType(function, owner)

    def _outside_thing(self, line: list[Any]) -> Any:
        other = self._outside[line[1]]
        if len(line) == 2:
            return other.thing
        if line[2] not in other.methods:
            raise BadGraphError(f"{line[2]} of {line[1]} is not to be referred to")
        return getattr(other.thing, line[2])

    def _builtin(self, line: list[Any]) -> Any:
        owner = self.value(line[1])
        if line[2] not in BUILTIN_METHODS.get(type(owner), ()):
            raise BadGraphError(f"{line[2]} of {type(owner).__name__} is not to be referred to")
        return getattr(owner, line[2])

    def _record(self, line: list[Any]) -> Any:
        cls = self._class(line[1])
        if not issubclass(cls, tuple):
            raise BadGraphError(f"{line[1]} is no record")
        return tuple.__new__(cls, self._values(line[2:]))

    def _partial(self, line: list[Any]) -> Any:
        keywords = {name: self.value(value) for name, value in line[2].items()}
        return partial(self.value(line[1]), *self._values(line[3:]), **keywords)

    def _enum(self, line: list[Any]) -> Any:
        cls = self._class(line[1])
        if not issubclass(cls, Enum):
            raise BadGraphError(f"{line[1]} is no enumeration")
        return cls(self.value(line[2]))

    def _struct(self, line: list[Any]) -> Any:
        cls = self._class(line[1])
        if not issubclass(cls, msgspec.Struct):
            raise BadGraphError(f"{line[1]} is no struct")
        return cls(*self._values(line[2:]))


class _Shape:
    """A class with the attributes that some of its objects have."""

    def __init__(self, cls: type, names: list[str]) -> None:
        if any(name.startswith("__") for name in names):
            raise BadGraphError("a name of Python's own")
        plan = plan_of(cls)
        self.cls = cls
        self.names = names
        self.loaded: Callable[[Any], None] | None = getattr(cls, "after_load", None)
        self._unsaved = plan.unsaved

    def fill(self, made: Any, values: Iterable[Any]) -> None:
        """Set the attributes directly, past any `__setattr__` of the class."""
        put = setattr if isinstance(made, msgspec.Struct) else object.__setattr__
        for name, value in zip(self.names, values, strict=True):
            put(made, name, value)
        for name, make in self._unsaved.items():
            put(made, name, make())


def unpacked(text: str) -> bytes:
    """Return the bytes of a text made by `packed`."""
    return zlib.decompress(base64.b64decode(text, validate=True))


def _empty(cls: type) -> Any:
    """Return an object without attributes."""
    if issubclass(cls, msgspec.Struct):
        # Cannot be made otherwise; all its fields are set later.
        return cls(*[None] * len(cls.__struct_fields__))
    return object.__new__(cls)


def _random(line: list[Any]) -> Random:
    made = Random()
    made.setstate((line[1], tuple(line[2]), line[3]))
    return made


def _getter(line: list[Any]) -> Any:
    if any(part.startswith("_") for name in line[1:] for part in name.split(".")):
        raise BadGraphError("attribute names that begin with an underscore are not allowed")
    return operator.attrgetter(*line[1:])


_WRONG = (
    *(ValueError, TypeError, LookupError, AttributeError),
    *(OverflowError, zlib.error, struct.error, re.error, MemoryError, RecursionError),
)
_SPELLED: Mapping[str, Callable[[str], Any]] = {
    "x": lambda text: int(text, 16),
    "f": float,
    "b": lambda text: base64.b64decode(text, validate=True),
}
_EMPTY: Mapping[str, Callable[[list[Any]], Any]] = {
    "list": lambda _line: [],
    "dict": lambda _line: {},
    "set": lambda _line: set(),
    "counter": lambda _line: Counter(),
    "deque": lambda line: deque(maxlen=line[1]),
    "cell": lambda _line: CellType(),
}
_FIXED: Mapping[str, Callable[[Decoder, list[Any], Any], Any]] = {
    "name": lambda decoder, line, _made: decoder._names.thing(line[1]),
    "outside": lambda decoder, line, _made: decoder._outside_thing(line),
    "tuple": lambda decoder, line, _made: tuple(decoder._values(line[1:])),
    "frozenset": lambda decoder, line, _made: frozenset(decoder._values(line[1:])),
    "record": lambda decoder, line, _made: decoder._record(line),
    "enum": lambda decoder, line, _made: decoder._enum(line),
    "fields": lambda decoder, line, _made: decoder._struct(line),
    "function": lambda decoder, line, _made: decoder._function(line),
    "bound": lambda decoder, line, _made: decoder._bound(line),
    "builtin": lambda decoder, line, _made: decoder._builtin(line),
    "partial": lambda decoder, line, _made: decoder._partial(line),
    "proxy": lambda decoder, line, _made: MappingProxyType(decoder.value(line[1])),
    "bytearray": lambda _decoder, line, _made: bytearray(unpacked(line[1])),
    "array": lambda _decoder, line, _made: array(line[1], unpacked(line[2])),
    "range": lambda _decoder, line, _made: range(*line[1:]),
    "count": lambda _decoder, line, _made: count(*line[1:]),
    "random": lambda _decoder, line, _made: _random(line),
    "struct": lambda _decoder, line, _made: struct.Struct(line[1]),
    "pattern": lambda _decoder, line, _made: re.compile(line[1], line[2]),
    "getter": lambda _decoder, line, _made: _getter(line),
}


def parse(line: str) -> list[Any]:
    """Return the list of one line of JSON. Raises BadGraphError."""
    try:
        found = json.loads(line)
    except ValueError as error:
        raise BadGraphError(f"not JSON: {error}") from None
    if not isinstance(found, list) or not found:
        raise BadGraphError("a line is a list that is not empty")
    return found
