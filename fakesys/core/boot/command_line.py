"""The kernel command line: its words, and the parameters of modules among them.

    BootLine('ap.apmask=-5 quiet kvm.halt_poll_ns=0').of("ap")      # (("apmask", "-5"),)

Like kernel/params.c:next_arg, parse_args, parameq (v6.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EINVAL, ENOSPC
from typing import NamedTuple

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.text import kstrtobool, kstrtoll, kstrtoull

_BLANKS = " \t\n\v\f\r\xa0"
# params.c:param_set_charp.
LONGEST_TEXT = 1024


class Word(NamedTuple):
    """One word of a command line; `value` is None without a `=`."""

    name: str
    value: str | None


class BootLine(Struct, frozen=True):
    """A kernel command line."""

    text: str = ""

    def words(self) -> Iterator[Word]:
        """Yield the words for the kernel, which end at `--`."""
        rest = self.text.lstrip(_BLANKS)
        while rest:
            word, rest = _next_word(rest)
            if word == Word("--", None):
                return
            yield word

    def of(self, module: str) -> tuple[Word, ...]:
        """Return the parameters of a module in their order, without its name."""
        found = []
        for name, value in self.words():
            head, dot, tail = name.partition(".")
            if dot and same_name(head, module):
                found.append(Word(tail, value))
        return tuple(found)


NO_LINE = BootLine()


def same_name(one: str, other: str) -> bool:
    """Return whether two names of modules or parameters are the same: `-` counts as `_`."""
    return one.replace("-", "_") == other.replace("-", "_")


def _next_word(text: str) -> tuple[Word, str]:
    end, quoted = 0, False
    while end < len(text) and (quoted or text[end] not in _BLANKS):
        quoted ^= text[end] == '"'
        end += 1
    word, rest = text[:end], text[end:].lstrip(_BLANKS)
    if word.startswith('"'):
        word = word[1:].removesuffix('"')
    name, equals, value = word.partition("=")
    if not equals:
        return Word(word, None), rest
    if value.startswith('"'):
        value = value[1:].removesuffix('"')
    return Word(name, value), rest


# How parameters are parsed. Each raises EINVAL, numbers ERANGE.


def _given(value: str | None) -> str:
    if value is None:
        raise KernelError(EINVAL, "the parameter needs a value")
    return value


def param_int(value: str | None) -> int:
    """Return an int. Like kernel/params.c:param_set_int (v6.1)."""
    return kstrtoll(_given(value), bits=32)


def param_uint(value: str | None) -> int:
    """Return an unsigned int. Like kernel/params.c:param_set_uint (v6.1)."""
    return kstrtoull(_given(value), bits=32)


def param_bool(value: str | None) -> bool:
    """Return a bool; a parameter without value is on. Like kernel/params.c:param_set_bool."""
    return kstrtobool("1" if value is None else value)


def param_text(value: str | None) -> str:
    """Return a text. Raises ENOSPC beyond 1024 bytes. Like kernel/params.c:param_set_charp."""
    text = _given(value)
    if len(text) > LONGEST_TEXT:
        raise KernelError(ENOSPC, f"{len(text)} bytes are too many")
    return text


def wrong_parameter(doing: str, name: str, value: str | None, error: KernelError) -> str:
    """Return the line of the log for a value that was refused. Like params.c:parse_args (v6.1)."""
    why = "too large" if error.errno == ENOSPC else "invalid"
    return f"{doing}: `{value or ''}' {why} for parameter `{name}'"
