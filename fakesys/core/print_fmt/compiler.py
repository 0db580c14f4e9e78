"""From the print format of an event to the function that makes its lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import Struct
from typing import Any, Protocol

from fakesys.core.c_types import CType, Holds
from fakesys.core.print_fmt.calls import Names, calls_of
from fakesys.core.print_fmt.expressions import Parser
from fakesys.core.print_fmt.formatting import converted
from fakesys.core.print_fmt.tokens import CannotCompileError
from fakesys.core.print_fmt.types import Expr, text
from fakesys.core.tracepoint import hashed

LinePrinter = Callable[[bytes, int, bytes], bytes]
"""Makes a line of what precedes the time within the second, that time, and the record."""

SymbolOf = Callable[[int, bool], str]

# The sizes of elements of arrays that are indexed.
_ELEMENTS = {"unsigned long": 8}
_HEAD = "%b%06d: "


class Place(Protocol):
    """A field of a record."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def ctype(self) -> CType:
        """Its type."""

    @property
    def offset(self) -> int:
        """Where it begins."""


def compile_printer(
    event: str, print_fmt: str, fields: Iterable[Place], symbol: SymbolOf | None = None
) -> LinePrinter:
    """Return the function that makes the lines of an event. Raises CannotCompileError.

    `symbol`: gives an address its name, and with true the offset in it too.
    """
    places = {field.name: field for field in fields if field.ctype.holds is not Holds.TAIL}
    names = Names()
    expressions = {name: _expression(place) for name, place in places.items()}
    parser = Parser(print_fmt, expressions, calls_of(names))
    form = parser.literal()

    def next_argument() -> Expr:
        parser.take(",")
        return parser.expression()

    pointers = {"p": names.keep(lambda address: hashed(address).encode())}
    if symbol is not None:
        pointers["ps"] = names.keep(lambda address: symbol(address, False).encode())
        pointers["pS"] = names.keep(lambda address: symbol(address, True).encode())
    form, arguments = converted(form, next_argument, pointers)
    if parser.peek().kind != "end":
        raise CannotCompileError(f"{parser.peek().text!r} follows the last argument")
    line = f"{_HEAD}{event.replace('%', '%%')}: {form}\n".encode("latin-1")
    used = sorted((places[name] for name in parser.used), key=lambda place: place.offset)
    return _function(line, arguments, used, names.variables)


def _function(
    line: bytes, arguments: list[str], used: list[Place], variables: dict[str, Any]
) -> LinePrinter:
    """Return `line` filled with the beginning, the time and these expressions of fields."""
    unpack = ""
    if used:
        taken = "".join(f"{_variable(place.name)}, " for place in used)
        unpack = f"    {taken}= unpack(record)\n"
    source = (
        "def print_line(head, micro, record):\n"
        f"{unpack}    return line % ({', '.join(['head', 'micro', *arguments])})\n"
    )
    scope = {"line": line, "unpack": Struct(_codes(used)).unpack_from, **variables}
    exec(source, scope)
    made: LinePrinter = scope["print_line"]
    return made


def _codes(used: list[Place]) -> str:
    codes = ["<"]
    position = 0
    for place in used:
        codes.append(f"{place.offset - position}x{place.ctype.code}")
        position = place.offset + place.ctype.size
    return "".join(codes)


def _variable(name: str) -> str:
    # A field may be called as one of Python's keywords.
    return f"f_{name}"


def _expression(place: Place) -> Expr:
    kind, name = place.ctype, _variable(place.name)
    if kind.holds is Holds.CHARS:
        return text(f"{name}.partition(b'\\0')[0]")
    if kind.holds is Holds.DYNAMIC:
        begin = f"{name} & 0xFFFF"
        return text(f"record[{begin} : ({begin}) + ({name} >> 16)].partition(b'\\0')[0]")
    if kind.holds is Holds.BYTES:
        return Expr(name, bits=0, element=_ELEMENTS.get(kind.text, 0))
    return Expr(name, kind.size * 8, kind.signed)
