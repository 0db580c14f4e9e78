"""How recordings write bytes: \\n, \\t, \\\\, and \\xHH for what is not printable."""

from __future__ import annotations

import re

_NAMED = {10: "\\n", 9: "\\t", 92: "\\\\"}
_ESCAPE = re.compile(rb"\\(n|t|x[0-9a-fA-F]{2}|.)", re.DOTALL)


def escaped(data: bytes) -> str:
    """Bytes as a recording has them."""
    return "".join(
        _NAMED.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in data
    )


def unescaped(text: str) -> bytes:
    """The bytes of a text in a list."""

    def one(found: re.Match[bytes]) -> bytes:
        word = found[1]
        if word in (b"n", b"t"):
            return b"\n" if word == b"n" else b"\t"
        return bytes([int(word[1:], 16)]) if word.startswith(b"x") and word[1:] else word

    return _ESCAPE.sub(one, text.encode())
