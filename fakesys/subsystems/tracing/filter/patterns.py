"""String comparison in filters: exact, front, middle, end and glob patterns.

Like kernel/trace/trace_events_filter.c:filter_parse_regex and the regex_match_* (v6.1).
A comparison depends on the `room` of the field: a fixed number of bytes, None for a text that has
its length with it, 0 for one whose length the kernel does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Matcher = Callable[[str], bool]


def exact(pattern: str, room: int | None) -> Matcher:
    """Return what compares the whole text."""
    if room:
        wanted = pattern[:room]
        return lambda text: text[:room] == wanted
    return lambda text: text == pattern


def glob(pattern: str, room: int | None) -> Matcher:
    """Return what `~` compares with; a leading `!` inverts."""
    if pattern.startswith("!"):
        match = _positive(pattern[1:], room)
        return lambda text: not match(text)
    return _positive(pattern, room)


def _positive(pattern: str, room: int | None) -> Matcher:
    if pattern[:1].isdigit() or not re.search(r"[*?\[\\]", pattern):
        return exact(pattern, room)
    inner = pattern.strip("*")
    if re.search(r"[*?\[\\]", inner) or not pattern.strip("*") or pattern.count("*") > 2:
        return _wild(pattern, room)
    front, back = pattern.startswith("*"), pattern.endswith("*")
    if front and back:
        return lambda text: inner in text
    if front:
        return _end(inner, room)
    return lambda text: (not room or len(inner) <= room) and text.startswith(inner)


def _end(inner: str, room: int | None) -> Matcher:
    # The kernel looks at the last bytes of the room, whatever the text's own length.
    if room is None:
        return lambda text: text.endswith(inner)
    if room == 0:
        return lambda text: False
    return lambda text: text.ljust(room - 1, "\0")[: room - 1].endswith(inner)


def _wild(pattern: str, room: int | None) -> Matcher:
    if room == 0:
        return lambda text: False
    compiled = re.compile(translate(pattern), re.DOTALL)
    return lambda text: compiled.fullmatch(text) is not None


def translate(pattern: str) -> str:
    r"""Return a kernel glob as a regular expression. Like lib/glob.c:glob_match.

    >>> translate("kvm_[!x]*")
    'kvm_[^x].*'
    """
    parts = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            parts.append(".*")
        elif character == "?":
            parts.append(".")
        elif character == "\\":
            # At the end it quotes the NUL after the pattern, so it matches the end of the text.
            parts.append(re.escape(pattern[position : position + 1]))
            position += 1
        elif character == "[" and (end := pattern.find("]", position + 1)) > 0:
            parts.append(_set(pattern[position:end]))
            position = end + 1
        else:
            parts.append(re.escape(character))
    return "".join(parts)


def _set(inside: str) -> str:
    inverted = inside.startswith("!") and len(inside) > 1
    body = inside[1:] if inverted else inside
    ranges = re.sub(r"([\\\[\]^&~|])", r"\\\1", body)
    # A range that runs backwards matches nothing and is an error in a regular expression.
    for low, high in re.findall(r"(.)-(.)", body, re.DOTALL):
        if low > high:
            return "." if inverted else "(?!)"
    return f"[{'^' if inverted else ''}{ranges}]"
