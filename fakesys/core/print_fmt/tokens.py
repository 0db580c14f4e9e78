"""C source of print formats as tokens."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

_TOKEN = r"""\s*(?:
    (?P<text>"(?:[^"\\]|\\.)*")
  | (?P<char>'(?:[^'\\]|\\.)')
  | (?P<number>0[xX][0-9a-fA-F]+|\d+)[uUlL]*
  | (?P<name>[A-Za-z_]\w*)
  | (?P<sign><<|>>|<=|>=|==|!=|&&|\|\||->|[-+*/%&|^~!<>?:(){}\[\],])
  | (?P<end>\Z)
    )"""
_ESCAPES = {"n": "\n", "t": "\t", "0": "\0"}


class CannotCompileError(Exception):
    """A print format that uses more of C than is understood here."""


class Token(NamedTuple):
    """A token: `kind` is text, char, number, name, sign or end. `wide`: a constant of 64 bits."""

    kind: str
    text: str
    wide: bool = False
    unsigned: bool = False


@cache
def _token() -> re.Pattern[str]:
    # Compiled at the first use: it takes 2 ms, which would be a part of every start.
    return re.compile(_TOKEN, re.VERBOSE)


def tokens_of(source: str) -> list[Token]:
    """Return the tokens of a C source, the last one of kind `end`. Raises CannotCompileError."""
    found: list[Token] = []
    place = 0
    pattern = _token()
    while not found or found[-1].kind != "end":
        match = pattern.match(source, place)
        if match is None or match.lastgroup is None:
            raise CannotCompileError(f"no token: {source[place : place + 20]!r}")
        text = match[match.lastgroup]
        suffix = source[match.end(match.lastgroup) : match.end()].lower()
        found.append(Token(match.lastgroup, text, "l" in suffix, "u" in suffix))
        place = match.end()
    return found


def unquoted(literal: str) -> str:
    """Return the characters of a C literal with its quotes."""
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), literal[1:-1])
