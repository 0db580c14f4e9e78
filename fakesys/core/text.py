"""The kernel's number and mask formats: parse and print; at the end, words of control files.

A mask is a Python integer whose bit N (value 1 << N) stands for the ID N. In text the leftmost
bit is ID 0 (IBM numbering); no other module depends on that.
"""

from __future__ import annotations

import re
from errno import EINVAL, ERANGE

from fakesys.core.errors import KernelError

MASK_BITS = 256
ALL_IDS = (1 << MASK_BITS) - 1

_LONGEST_DECIMAL = 4096
_ULONG = 1 << 64
_BLANKS = " \t\n\v\f\r"
_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[0-9]+")
_SCANF_D = re.compile(r"[ \t\n\v\f\r]*(-?)([0-9]+)")
_SCANF_I = re.compile(r"[ \t\n\v\f\r]*(-?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_RELATIVE_TERM = re.compile(r"([+-])(NUM)(?:-(NUM))?[,\n]*".replace("NUM", _NUMBER.pattern[1:-1]))


def c_string(data: bytes) -> str:
    """Return the text that a store() sees: up to the first NUL, each byte one character."""
    return data.split(b"\0", 1)[0].decode("latin-1")


def _to_int(digits: str, base: int) -> int:
    if base and base != 10:
        return int(digits, base)
    if base == 10:
        digits = digits.lstrip("0") or "0"
    if digits[:2] in ("0x", "0X"):
        return int(digits, 16)
    if digits.startswith("0") and digits != "0":
        return int(digits, 8)
    # Python refuses to convert very long decimal texts; no caller has room for so many bits.
    return int(digits) if len(digits) <= _LONGEST_DECIMAL else 1 << _LONGEST_DECIMAL


def kstrtoull(text: str, base: int = 0, bits: int = 64) -> int:
    """Return an unsigned number. Raises EINVAL for other text, ERANGE beyond `bits` bits.

    Like lib/kstrtox.c:kstrtoull (v6.1): one optional `+`, the digits, at most one newline; digits
    that overflow 64 bits are refused before what follows them.
    """
    body = text.removesuffix("\n").removeprefix("+")
    pattern = _DECIMAL if base == 10 else _NUMBER
    if base == 16:
        body, pattern = re.sub("^0[xX]", "", body), re.compile("[0-9a-fA-F]+")
    digits = pattern.match(body)
    value = _to_int(digits[0], base) if digits else 0
    if value < 1 << 64 and not (digits and digits.end() == len(body)):
        raise KernelError(EINVAL, f"{text!r} is not a number")
    if value >> bits:
        raise KernelError(ERANGE, f"{body} does not fit into {bits} bits")
    return value


def kstrtoll(text: str, base: int = 0, bits: int = 64) -> int:
    """Return a signed number. Raises EINVAL, ERANGE. Like lib/kstrtox.c:kstrtoll (v6.1)."""
    negative = text.startswith("-")
    # A sign after the minus ("-+1") is refused, as kstrtoll parses the rest without one.
    body = text[1:] if negative else text
    if negative and body.startswith("+"):
        raise KernelError(EINVAL, f"{text!r} is not a number")
    value = kstrtoull(body, base)
    limit = 1 << (bits - 1)
    if value > (limit if negative else limit - 1):
        raise KernelError(ERANGE, f"{text.strip()} does not fit into {bits} signed bits")
    return -value if negative else value


def simple_strtoll(text: str) -> int:
    """Return the low 64 bits of the number at the start of the text, 0 without one.

    Like lib/vsprintf.c:simple_strtoll (v5.4): no blanks before it, anything after it.
    """
    negative = text.startswith("-")
    found = _NUMBER.match(text, int(negative))
    value = _to_int(found[1], 0) if found else 0
    return (-value if negative else value) % (1 << 64)


def kstrtobool(text: str) -> bool:
    """Return True for y, 1, on and False for n, 0, off in any case. Raises EINVAL.

    What follows is ignored. Like lib/kstrtox.c:kstrtobool (v6.1).
    """
    head = text[:2].lower()
    if head.startswith(("y", "1")) or head == "on":
        return True
    if head.startswith(("n", "0")) or head == "of":
        return False
    raise KernelError(EINVAL, f"{text!r} is neither y nor n")


def _scan(text: str, pattern: re.Pattern[str], base: int) -> int:
    found = pattern.match(text)
    if not found:
        raise KernelError(EINVAL, f"{text!r} does not begin with a number")
    value = _to_int(found[2], base)
    value = -value if found[1] else value
    # The kernel stores the result in an int: only the low 32 bits arrive.
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def scan_d(text: str) -> int:
    """Return what sscanf("%d") reads: white space, an optional minus, decimal digits.

    The rest is ignored, the value cut to 32 bits. Raises EINVAL without a digit.
    """
    return _scan(text, _SCANF_D, 10)


def scan_i(text: str) -> int:
    """Return what sscanf("%i") reads: as `scan_d`, with 0x for hex and 0 for octal."""
    return _scan(text, _SCANF_I, 0)


def format_mask(mask: int) -> str:
    """Return `0x` and 64 hex digits, ID 0 leftmost, without newline."""
    return f"0x{int(format(mask, f'0{MASK_BITS}b')[::-1], 2):064x}"


def parse_absolute_mask(text: str) -> int:
    """Return the mask of hex digits. Raises EINVAL. Like ap_bus.c:hex2bitmap (v6.1)."""
    body = text.removesuffix("\n")
    body = body[2:] if body.startswith("0x") else body.removeprefix("x")
    if len(body) > MASK_BITS // 4 or not re.fullmatch("[0-9a-fA-F]*", body):
        raise KernelError(EINVAL, f"{text!r} is not a mask of up to 64 hex digits")
    return int(format(int(body.ljust(64, "0"), 16), f"0{MASK_BITS}b")[::-1], 2)


def apply_relative_mask(text: str, mask: int) -> int:
    """Return `mask` after a chain of +N, -N, +N-M, -N-M. Raises EINVAL.

    Of a number only the low 64 bits count, as of simple_strtoul (lib/vsprintf.c, v6.1). Like
    ap_bus.c:modify_bitmap (v6.1).
    """
    position = 0
    while position < len(text):
        term = _RELATIVE_TERM.match(text, position)
        if not term:
            raise KernelError(EINVAL, f"{text!r} is not a chain of +N, -N, +N-M or -N-M")
        first = _to_int(term[2], 0) % _ULONG
        last = _to_int(term[3], 0) % _ULONG if term[3] else first
        if first > last or last >= MASK_BITS:
            raise KernelError(EINVAL, f"{term[0].strip()} is not a range within 0-255")
        bits = (1 << (last + 1)) - (1 << first)
        mask = mask | bits if term[1] == "+" else mask & ~bits
        position = term.end()
    return mask


def parse_mask(text: str, present: int) -> int:
    """Return a mask, absolute or relative to `present`. Raises EINVAL.

    Like ap_bus.c:ap_parse_mask_str (v6.1).
    """
    if text[:1] in ("+", "-"):
        return apply_relative_mask(text, present)
    return parse_absolute_mask(text)


def ids(mask: int) -> list[int]:
    """Return the IDs in a mask, ascending."""
    return [index for index, bit in enumerate(format(mask, "b")[::-1]) if bit == "1"]


# What files of the control directories take. No file of a real kernel parses like this.


def one_word(text: str) -> str:
    """Return the only word of a text; blanks around it do not count. Raises EINVAL."""
    words = text.split()
    if len(words) != 1:
        raise KernelError(EINVAL, "write one word")
    return words[0]


def zero_or_one(text: str) -> bool:
    """Return whether the text is `1`; one newline may follow. Raises EINVAL unless 0 or 1."""
    body = text.removesuffix("\n")
    if body not in ("0", "1"):
        raise KernelError(EINVAL, "write 0 or 1")
    return body == "1"


def require_one(text: str) -> None:
    """Refuse everything but `1`, which triggers what a file does. Raises EINVAL."""
    if text.removesuffix("\n") != "1":
        raise KernelError(EINVAL, "write 1")


# What messages quote of files that another person wrote.
LONGEST_QUOTE = 300


def one_line(text: str, longest: int | None = None) -> str:
    """Return a text as printable characters on one line, cut off after `longest`."""
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}..."
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
