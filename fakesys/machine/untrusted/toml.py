"""Parse TOML that another person wrote.

`tomllib` calls itself for each level of arrays and tables, and copies the beginning of a key for
each of its parts. A look at the brackets and dots before keeps both small; what is written within
strings and comments does not count.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

# Arrays and inline tables within each other; a scenario has 2.
DEEPEST = 32
# Parts of a key; `kvm.vm.options.pid` has 4.
MOST_PARTS = 4

_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"""|\Z)'
    r"|'''.*?(?:'''|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+"?'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+"
    r"|[\[{]|[\]}]|\.|[=,\n]",
    re.DOTALL,
)


class TomlError(ValueError):
    """A text that is no TOML, or beyond the limits; the message names the line."""


def table_of(data: bytes) -> dict[str, Any]:
    """Return the table that a TOML file describes. Raises TomlError."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise TomlError(f"not TOML: byte 0x{byte:02x} is not UTF-8 (at line {line})") from None
    _refuse_depth(text)
    try:
        return tomllib.loads(text)
    # ValueError: Python converts no decimal number of more than 4300 digits.
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise TomlError(f"not TOML: {error}") from None


def _refuse_depth(text: str) -> None:
    depth, parts = 0, 1
    for found in _TOKEN.finditer(text):
        match found[0][0]:
            case "[" | "{":
                depth, parts = depth + 1, 1
            case "]" | "}":
                depth, parts = depth - 1, 1
            case ".":
                parts += 1
            case "=" | "," | "\n":
                parts = 1
            case _:
                continue
        if depth > DEEPEST:
            raise TomlError(f"nested more than {DEEPEST} deep (at line {_line(text, found)})")
        if parts > MOST_PARTS:
            raise TomlError(f"a key of more than {MOST_PARTS} parts (at line {_line(text, found)})")


def _line(text: str, found: re.Match[str]) -> int:
    return text.count("\n", 0, found.start()) + 1
