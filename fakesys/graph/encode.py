"""Objects to lines: each object once, by the number of its line, so sharing and cycles stay.

A value in a line is itself when JSON has it; `[N]` is the object of line N; `{"x": ...}`,
`{"f": ...}`, `{"b": ...}` are a long integer, a float that is no finite number, bytes.
The line of an immutable object follows those of its parts, so that one pass builds it; a line may
refer to a mutable object whose line follows.
"""

from __future__ import annotations

import base64
import json
import zlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from itertools import count
from math import isfinite
from operator import attrgetter
from random import Random
from re import Pattern
from struct import Struct
from types import (
    BuiltinMethodType,
    CellType,
    FunctionType,
    MappingProxyType,
    MethodType,
)
from typing import Any, NamedTuple

import msgspec

from fakesys.graph.names import Names

LONGEST_PLAIN_INT = 1 << 53
BUILTIN_METHODS: Mapping[type, frozenset[str]] = {
    dict: frozenset({"get", "items", "keys", "pop", "values"}),
    list: frozenset({"append", "extend"}),
    set: frozenset({"add", "discard"}),
    deque: frozenset({"append"}),
    Random: frozenset({"getrandbits", "random"}),
}
_BUILTIN_BASES = (dict, list, tuple, set, frozenset, str, bytes, int, float, BaseException)


class Outside(NamedTuple):
    """An object that the graph refers to and does not own. `methods`: those it may refer to."""

    thing: object
    methods: frozenset[str] = frozenset()


class CannotSaveError(TypeError):
    """The object is of a kind that cannot be written."""


class Encoder:
    """Encodes one graph. `outside`: the objects that it refers to and does not own, by name."""

    def __init__(self, names: Names, outside: Mapping[str, Outside]) -> None:
        self._names = names
        self._outside = {id(other.thing): name for name, other in outside.items()}
        self._outside_methods = {name: other.methods for name, other in outside.items()}
        self._numbers: dict[int, int] = {}
        self._lines: list[str] = []
        # Objects whose line is still to be written; then all objects, which keeps their ids valid.
        self._open: list[tuple[int, Any]] = []
        self._alive: list[Any] = []
        self._shapes: dict[tuple[type, tuple[str, ...]], int] = {}
        self._plans: dict[type, _Plan] = {}

    def encode(self, roots: Mapping[str, object]) -> tuple[dict[str, Any], list[str]]:
        """Return the roots as values, and the lines. Raises CannotSaveError."""
        found = {}
        for name, root in roots.items():
            found[name] = self.value(root)
            while self._open:
                number, thing = self._open.pop()
                self._lines[number] = _dump(self._content(thing))
        return found, self._lines

    def value(self, thing: Any) -> Any:
        """Return the value of an object in a line."""
        kind = type(thing)
        if kind is int:
            small = -LONGEST_PLAIN_INT < thing < LONGEST_PLAIN_INT
            return thing if small else {"x": f"{thing:x}"}
        if kind is str or thing is None or kind is bool:
            return thing
        if kind is float:
            return thing if isfinite(thing) else {"f": repr(thing)}
        if kind is bytes:
            return {"b": base64.b64encode(thing).decode()}
        number = self._numbers.get(id(thing))
        return [self._place(thing) if number is None else number]

    def _place(self, thing: Any) -> int:
        """Write the line of an object, or reserve its number; return the number."""
        whole = self._whole(thing)
        self._alive.append(thing)
        number = self._numbers[id(thing)] = len(self._lines)
        if whole is None:
            self._lines.append("")
            self._open.append((number, thing))
        else:
            self._lines.append(_dump(whole))
        return number

    def _whole(self, thing: Any) -> list[Any] | None:
        """Return the line of an immutable object or of one without parts; None for others."""
        name = self._names.name_of(thing)
        if name is not None:
            return ["name", name]
        outside = self._outside.get(id(thing))
        if outside is not None:
            return ["outside", outside]
        kind = type(thing)
        write = _WHOLE.get(kind)
        if write is not None:
            return write(self, thing)
        if isinstance(thing, tuple):
            return ["record", self._class(kind), *map(self.value, thing)]
        if isinstance(thing, Enum):
            return ["enum", self._class(kind), self.value(thing.value)]
        if isinstance(thing, msgspec.Struct) and thing.__struct_config__.frozen:
            values = (getattr(thing, name) for name in thing.__struct_fields__)
            return ["fields", self._class(kind), *map(self.value, values)]
        return None

    def _content(self, thing: Any) -> list[Any]:
        """Return the line of a mutable object."""
        kind = type(thing)
        if kind is dict:
            return ["dict", *(self.value(part) for pair in thing.items() for part in pair)]
        if kind is list:
            return ["list", *map(self.value, thing)]
        if kind is set:
            return ["set", *map(self.value, thing)]
        if kind is deque:
            return ["deque", thing.maxlen, *map(self.value, thing)]
        if kind is Counter:
            return ["counter", *(self.value(part) for pair in thing.items() for part in pair)]
        if kind is CellType:
            return ["cell", *self._cell(thing)]
        return self._instance(thing)

    def _cell(self, cell: CellType) -> list[Any]:
        try:
            return [self.value(cell.cell_contents)]
        except ValueError:
            return []

    def _instance(self, thing: Any) -> list[Any]:
        kind = type(thing)
        plan = self._plan(kind)
        names: list[str] = []
        values = []
        for name in plan.slots:
            try:
                value = getattr(thing, name)
            except AttributeError:
                continue
            names.append(name)
            values.append(value)
        for name, value in getattr(thing, "__dict__", {}).items():
            if name not in plan.unsaved:
                names.append(name)
                values.append(value)
        try:
            shape = self._shape(kind, tuple(names))
            return [shape, *map(self.value, values)]
        except CannotSaveError as error:
            raise CannotSaveError(f"{kind.__qualname__}: {error}") from None

    def _shape(self, kind: type, names: tuple[str, ...]) -> int:
        """Return the number of the line with the class and attribute names of some objects."""
        number = self._shapes.get((kind, names))
        if number is None:
            line = ["class", self._class(kind), list(names)]
            number = self._shapes[kind, names] = len(self._lines)
            self._lines.append(_dump(line))
        return number

    def _class(self, kind: type) -> str:
        name = self._names.name_of(kind)
        if name is None:
            raise CannotSaveError(f"{kind.__module__}.{kind.__qualname__} is no class of a model")
        return name

    def _plan(self, kind: type) -> _Plan:
        plan = self._plans.get(kind)
        if plan is None:
            if issubclass(kind, _BUILTIN_BASES):
                raise CannotSaveError(f"{kind.__qualname__} is derived from a builtin")
            self._class(kind)
            plan = self._plans[kind] = plan_of(kind)
        return plan

    def _function(self, thing: FunctionType) -> list[Any]:
        place = self._names.place_of(thing)
        if place is None:
            raise CannotSaveError(f"{thing.__module__}.{thing.__qualname__} is no function of ours")
        cells = [self.value(cell) for cell in thing.__closure__ or ()]
        defaults = [self.value(thing.__defaults__), self.value(thing.__kwdefaults__)]
        return ["function", *place, thing.__qualname__, *defaults, *cells]

    def _method(self, thing: MethodType) -> list[Any]:
        name = thing.__func__.__name__
        outside = self._outside.get(id(thing.__self__))
        if outside is None:
            return ["bound", self.value(thing.__func__), self.value(thing.__self__)]
        if name not in self._outside_methods[outside]:
            raise CannotSaveError(f"{name} of {outside} is not to be referred to")
        return ["outside", outside, name]

    def _builtin(self, thing: Any) -> list[Any]:
        owner = thing.__self__
        if thing.__name__ not in BUILTIN_METHODS.get(type(owner), ()):
            raise CannotSaveError(f"{thing!r} has no name")
        return ["builtin", self.value(owner), thing.__name__]

    def _frozenset(self, thing: frozenset[Any]) -> list[Any]:
        for part in thing:
            kind = type(part)
            simple = kind.__module__ == "builtins" or issubclass(kind, (tuple, Enum))
            if simple or _by_identity(kind) or _is_value(kind):
                continue
            raise CannotSaveError(f"a frozenset of {kind.__qualname__}")
        return ["frozenset", *map(self.value, thing)]


class _Plan(NamedTuple):
    """How the objects of a class are written."""

    slots: tuple[str, ...]
    unsaved: Mapping[str, Callable[[], object]]


def plan_of(kind: type) -> _Plan:
    """Return how the objects of a class are written.

    Its `UNSAVED` maps attributes that are not written to callables that make them at load.
    """
    unsaved: dict[str, Callable[[], object]] = {}
    slots: list[str] = []
    for cls in reversed(kind.__mro__):
        unsaved.update(vars(cls).get("UNSAVED", {}))
        names = vars(cls).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            hidden = name.startswith("__") and not name.endswith("__")
            slots.append(f"_{cls.__name__.lstrip('_')}{name}" if hidden else name)
    kept = tuple(name for name in slots if name not in unsaved and not name.startswith("__"))
    return _Plan(kept, unsaved)


def _is_value(kind: type) -> bool:
    """Return whether objects of the class are immutable values."""
    return issubclass(kind, msgspec.Struct) and kind.__struct_config__.frozen


def _by_identity(kind: type) -> bool:
    """Return whether objects of the class are equal only to themselves."""
    return vars(object)["__hash__"] is getattr(kind, "__hash__")  # noqa: B009


def packed(data: bytes) -> str:
    """Return bytes as compressed text."""
    return base64.b64encode(zlib.compress(data, 1)).decode()


def _count_of(thing: Any) -> list[Any]:
    # Pickling of counters ends with Python 3.14; what they print stays.
    return ["count", *json.loads(f"[{repr(thing)[6:-1]}]")]


def _dump(line: list[Any]) -> str:
    return json.dumps(line, separators=(",", ":"), allow_nan=False)


def _parts(kind: str) -> Callable[[Encoder, Any], list[Any]]:
    return lambda encoder, thing: [kind, *map(encoder.value, thing)]


def _random(thing: Random) -> list[Any]:
    version, state, gauss = thing.getstate()
    return ["random", version, list(state), gauss]


_WHOLE: Mapping[type, Callable[[Encoder, Any], list[Any] | None]] = {
    tuple: _parts("tuple"),
    frozenset: Encoder._frozenset,
    FunctionType: Encoder._function,
    MethodType: Encoder._method,
    BuiltinMethodType: Encoder._builtin,
    partial: lambda encoder, thing: [
        "partial",
        encoder.value(thing.func),
        {name: encoder.value(value) for name, value in thing.keywords.items()},
        *map(encoder.value, thing.args),
    ],
    MappingProxyType: lambda encoder, thing: ["proxy", encoder.value(dict(thing))],
    bytearray: lambda _encoder, thing: ["bytearray", packed(bytes(thing))],
    array: lambda _encoder, thing: ["array", thing.typecode, packed(thing.tobytes())],
    range: lambda _encoder, thing: ["range", thing.start, thing.stop, thing.step],
    count: lambda _encoder, thing: _count_of(thing),
    Random: lambda _encoder, thing: _random(thing),
    Struct: lambda _encoder, thing: ["struct", thing.format],
    Pattern: lambda _encoder, thing: ["pattern", thing.pattern, thing.flags],
    attrgetter: lambda _encoder, thing: ["getter", *thing.__reduce__()[1]],
    # Filled later.
    **dict.fromkeys((dict, list, set, deque, Counter, CellType), lambda _encoder, _thing: None),
}
