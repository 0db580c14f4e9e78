"""printf's conversions become those of Python's `%` for bytes. Like lib/vsprintf.c (v6.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from fakesys.core.print_fmt.tokens import CannotCompileError
from fakesys.core.print_fmt.types import Expr

_CONVERSION = re.compile(r"%(%|([-+ #0]*)(\d*)(?:\.(\d+))?(hh|h|ll|l|L|z|t|)(p[sS]|[a-zA-Z]))")
_BITS = {"hh": 8, "h": 16, "": 32, "l": 64, "ll": 64, "L": 64, "z": 64, "t": 64}


def converted(
    form: str, next_argument: Callable[[], Expr], pointers: Mapping[str, str]
) -> tuple[str, list[str]]:
    """Return the form for Python's `%`, and the expressions of its arguments.

    `pointers`: the variable that holds the function for `%p`, and that for `%ps`, `%pS` if known.

    Raises CannotCompileError.
    """
    arguments: list[str] = []

    def one(found: re.Match[str]) -> str:
        if found[1] == "%":
            return "%%"
        flags, width, precision, length, kind = found.groups()[1:]
        more = "" if precision is None else f".{precision}"
        if kind == "s":
            arguments.append(_text(next_argument()))
            return f"%{flags}{width}{more}b"
        if kind in pointers and not form[found.end() : found.end() + 1].isalpha():
            arguments.append(f"{pointers[kind]}({next_argument().cut_to(64, signed=False)})")
            return "%b"
        if kind not in "diuxX":
            raise CannotCompileError(f"%{kind} is not understood")
        argument = next_argument()
        arguments.append(argument.cut_to(_BITS[length], signed=kind in "di"))
        return f"%{flags}{width}{more}{kind if kind in 'xX' else 'd'}"

    if "%" in _CONVERSION.sub("", form):
        raise CannotCompileError(f"{form!r} has another conversion")
    return _CONVERSION.sub(one, form), arguments


def _text(argument: Expr) -> str:
    if not argument.is_text:
        raise CannotCompileError(f"{argument.code} is no text")
    return argument.code
