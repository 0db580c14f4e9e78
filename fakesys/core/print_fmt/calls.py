"""The functions of print formats. Like kernel/trace/trace_output.c:trace_print_symbols_seq, ..."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fakesys.core.print_fmt.expressions import Call, Parser
from fakesys.core.print_fmt.types import Expr, text


class Names:
    """The tables of names in a print format, and what looks into them, by variable."""

    def __init__(self) -> None:
        self.variables: dict[str, Any] = {}

    def keep(self, value: Any) -> str:
        """Return the name of a variable with this value."""
        name = f"_{len(self.variables)}"
        self.variables[name] = value
        return name


def calls_of(names: Names) -> Mapping[str, Call]:
    """Return the functions that a print format can call. `names`: gets their tables."""
    return MappingProxyType(
        {
            "__print_symbolic": lambda parser: _symbolic(parser, names),
            "__print_flags": lambda parser: _flags(parser, names),
            "__print_hex": lambda parser: _hex(parser),
            "__get_str": lambda parser: parser.field(parser.name()),
        }
    )


def _symbolic(parser: Parser, names: Names) -> Expr:
    value = parser.expression()
    table: dict[int, bytes] = {}
    for number, word in _pairs(parser):
        table.setdefault(number & _ALL, word)
    look_up = names.keep(symbol_of(table))
    return text(f"{look_up}({value.cut_to(64, signed=False)})")


def _flags(parser: Parser, names: Names) -> Expr:
    value = parser.expression()
    parser.take(",")
    separator = parser.literal().encode("latin-1")
    look_up = names.keep(flags_of(separator, _pairs(parser)))
    return text(f"{look_up}({value.cut_to(64, signed=False)})")


def _hex(parser: Parser) -> Expr:
    data = parser.expression()
    parser.take(",")
    length = parser.expression()
    return text(f"{data.code}[:{length.value()}].hex(' ').encode()")


_ALL = (1 << 64) - 1


def _pairs(parser: Parser) -> list[tuple[int, bytes]]:
    """Read `, { NUMBER, "NAME" }` as often as it comes."""
    found = []
    while parser.accept(","):
        parser.take("{")
        if parser.accept("}"):
            # An empty table: the kernel ends it so.
            continue
        number = parser.constant()
        parser.take(",")
        if parser.peek().kind == "text":
            found.append((number, parser.literal().encode("latin-1")))
        else:
            # NULL: the end of the table.
            parser.expression()
        parser.take("}")
    return found


def symbol_of(table: Mapping[int, bytes]) -> Callable[[int], bytes]:
    """Return the function that gives a number its name, and in hex if it has none."""
    get = table.get

    def look_up(value: int) -> bytes:
        found = get(value)
        return b"%#x" % value if found is None else found

    return look_up


def flags_of(separator: bytes, names: list[tuple[int, bytes]]) -> Callable[[int], bytes]:
    """Return the function that gives the names of bits, and those without a name in hex."""

    def look_up(value: int) -> bytes:
        words = []
        for mask, name in names:
            if value & mask == mask:
                words.append(name)
                value &= ~mask
        if value:
            words.append(b"%#x" % value)
        return separator.join(words)

    return look_up
