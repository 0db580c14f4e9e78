"""What a `print fmt` of a `format` file prints: C's expressions and printf, for tests.

Independent of the `text` methods, which are compared with it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from fakesys.core.tracepoint import hashed

TOKEN = re.compile(
    r'\s*(REC->\w+|0[xX][0-9a-fA-F]+|\d+|"(?:[^"\\]|\\.)*"|\w+|<<|>>|==|!=|&&|\|\||->|[-+~!&|^<>?:(),{}])'
)
CASTS = {"u8": 8}
# Levels of binary operators, weakest first.
LEVELS = (
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "!="),
    ("<", ">"),
    ("<<", ">>"),
    ("+", "-"),
)
NAMES = {"VDSO_CLOCKMODE_NONE": 0, "VDSO_CLOCKMODE_TSC": 1}
NAMES |= {
    f"VMXERR_{name}": number
    for number, name in {
        4: "VMLAUNCH_NONCLEAR_VMCS",
        5: "VMRESUME_NONLAUNCHED_VMCS",
        6: "VMRESUME_AFTER_VMXOFF",
        7: "ENTRY_INVALID_CONTROL_FIELD",
        8: "ENTRY_INVALID_HOST_STATE_FIELD",
        26: "ENTRY_EVENTS_BLOCKED_BY_MOV_SS",
    }.items()
}
NAMES |= {
    f"APICV_INHIBIT_REASON_{name}": number
    for number, name in enumerate(
        (
            "DISABLED",
            "HYPERV",
            "ABSENT",
            "BLOCKIRQ",
            "PHYSICAL_ID_ALIASED",
            "APIC_ID_MODIFIED",
            "APIC_BASE_MODIFIED",
            "NESTED",
            "IRQWIN",
            "PIT_REINJ",
            "SEV",
            "LOGICAL_ID_ALIASED",
            "PHYSICAL_ID_TOO_BIG",
        )
    )
}
PAGE = re.compile(r"\(\{ const char.*?trace_seq_printf\(p, (.*?), 0\); saved_ptr; \}\)", re.DOTALL)
ROLE_BITS = {
    "level": (0, 4),
    "has_4_byte_gpte": (4, 1),
    "gpte_is_8_bytes": (4, 1),
    "quadrant": (5, 2),
    "direct": (7, 1),
    "access": (8, 3),
    "invalid": (11, 1),
    "efer_nx": (12, 1),
    "nxe": (12, 1),
    "ad_disabled": (16, 1),
}
ACCESS = ("---", "--x", "w--", "w-x", "-u-", "-ux", "wu-", "wux")


def printed(print_fmt: str, record: Any) -> str:
    """The text of a record, whose fields are attributes."""
    page = PAGE.search(print_fmt)
    if page is None:
        return _printf(print_fmt, record)
    shown = _printf(_role_spelled(page[1], record.role), record).split("\0")[0]
    return _printf(print_fmt.replace(page[0], f'"{shown}"'), record)


def _role_spelled(arguments: str, role: int) -> str:
    """The arguments with the bits of the role as numbers."""
    access = ACCESS[role >> 8 & 7]
    spelled = arguments.replace("access_str[role.access]", f'"{access}"')
    for name, (shift, bits) in ROLE_BITS.items():
        spelled = re.sub(rf"role\.{name}\b", str(role >> shift & (1 << bits) - 1), spelled)
    return spelled + ", 0"


def _printf(arguments: str, record: Any) -> str:
    parser = _Parser(arguments, record)
    form = parser.expression()
    values = []
    while parser.peek() == ",":
        parser.take(",")
        values.append(parser.expression())
    assert parser.peek() == "", parser.rest()
    return _fill(form, values)


def _fill(form: str, values: list[Any]) -> str:
    left = iter(values)

    def one(match: re.Match[str]) -> str:
        flags, length, conversion = match.groups()
        value = next(left)
        if conversion == "s":
            return str(value)
        if conversion == "p":
            return hashed(value)
        if conversion == "c":
            return chr(value)
        bits = 64 if length else 32
        value = int(value) & (1 << bits) - 1
        if conversion == "d":
            value -= (1 << bits) if value >> bits - 1 else 0
        return format(value, flags + conversion.replace("u", "d"))

    text = re.sub(r"%(#?\d*)(ll|l|)([duxspc])", one, form)
    assert next(left, None) is None, "more values than conversions"
    return text


@cache
def _tokens(source: str) -> tuple[str, ...]:
    return tuple(TOKEN.findall(source))


class _Parser:
    """A recursive descent through C's expressions; each method gives a value."""

    def __init__(self, source: str, record: Any) -> None:
        self._tokens = _tokens(source)
        self._record = record
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def rest(self) -> str:
        return " ".join(self._tokens[self._at :])

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        assert token, "the expression ends too early"
        assert not wanted or token == wanted, f"{wanted} expected at {self.rest()[:60]}"
        self._at += 1
        return str(token)

    def expression(self) -> Any:
        condition = self._binary(0)
        if self.peek() != "?":
            return condition
        self.take("?")
        yes = self.expression()
        self.take(":")
        no = self.expression()
        return yes if condition else no

    def _binary(self, level: int) -> Any:
        if level == len(LEVELS):
            return self._unary()
        value = self._binary(level + 1)
        while self.peek() in LEVELS[level]:
            value = _apply(self.take(), value, self._binary(level + 1))
        return value

    def _unary(self) -> Any:
        token = self.peek()
        if token in ("!", "~", "-"):
            self.take()
            value = self._unary()
            if token == "!":
                return not value
            return ~value if token == "~" else -value
        if token == "(" and self._tokens[self._at + 1] in CASTS:
            self.take("(")
            bits = CASTS[self.take()]
            self.take(")")
            return self._unary() & (1 << bits) - 1
        return self._primary()

    def _primary(self) -> Any:
        token = self.take()
        if token == "(":
            value = self.expression()
            self.take(")")
            return value
        if token.startswith('"'):
            text = token[1:-1]
            while self.peek().startswith('"'):
                text += self.take()[1:-1]
            return text
        if token.startswith("REC->"):
            return getattr(self._record, token[5:])
        if token[0].isdigit():
            digits = re.sub("[uUlL]+$", "", token)
            if not self.peek().upper().strip("UL") and self.peek():
                self.take()
            return int(digits, 0)
        return self._named(token)

    def _named(self, token: str) -> Any:
        if token in NAMES:
            return NAMES[token]
        self.take("(")
        if token == "__get_str":
            value = getattr(self._record, self.take())
        elif token == "is_writable_pte":
            value = self.expression() >> 1 & 1
        elif token == "__print_hex":
            data = self.expression()
            self.take(",")
            value = data[: self.expression()].hex(" ")
        elif token == "__print_symbolic":
            value = self._symbolic()
        else:
            assert token == "__print_flags", token
            value = self._flags()
        self.take(")")
        return value

    def _symbolic(self) -> str:
        value = int(self.expression()) & (1 << 64) - 1
        for mask, name in self._table():
            if mask & (1 << 64) - 1 == value:
                return name
        return f"{value:#x}"

    def _flags(self) -> str:
        value = int(self.expression()) & (1 << 64) - 1
        self.take(",")
        separator = self.expression()
        words = []
        for mask, name in self._table():
            if value & mask == mask:
                words.append(name)
                value &= ~mask
        if value:
            words.append(f"{value:#x}")
        return str(separator).join(words)

    def _table(self) -> list[tuple[int, str]]:
        rows = []
        while self.peek() == ",":
            self.take(",")
            self.take("{")
            if self.peek() != "}":
                value = self.expression()
                self.take(",")
                rows.append((value, self.expression()))
            self.take("}")
        return rows


def _apply(operator: str, left: Any, right: Any) -> Any:
    if operator == "&&":
        return bool(left) and bool(right)
    if operator == "||":
        return bool(left) or bool(right)
    return {
        "|": lambda: left | right,
        "^": lambda: left ^ right,
        "&": lambda: left & right,
        "==": lambda: left == right,
        "!=": lambda: left != right,
        "<": lambda: left < right,
        ">": lambda: left > right,
        "<<": lambda: left << right,
        ">>": lambda: left >> right,
        "+": lambda: left + right,
        "-": lambda: left - right,
    }[operator]()
