"""Texts that no client should write: random bytes, numbers at their edges, NULs, blobs."""

from __future__ import annotations

import random
from collections.abc import Iterator

EDGES = [
    sign + text
    for number in (0, 1, 5, 7, 255, 256, 2**31 - 1, 2**31, 2**32, 2**63, 2**64 - 1, 2**64)
    for text in (str(number), hex(number))
    for sign in ("", "+", "-")
]
WORDS = (
    "", " ", "\n", "\0", "\0005", "5\0", "5\n\n", " 5", "0x", "08", "+", "-", "+0-255", "-0-255",
    "-4,-0x47,-0xab,-0xff", "+4", "0x" + "f" * 64, "0x" + "f" * 65, "x", ",,", ",,\n", "0,0,0,",
    "y", "n", "on", "off", "1 ", "05.0004", "card05", "05.0004 on 3", "05.0004 off", "7 CEX6 cca",
    "7 CEX3 accel depth=1", "guest1", "guest1 ap=0", "add", "change\n", "remove 0 A=B",
    "10000000-0000-4000-8000-000000000001", "{10000000-0000-4000-8000-000000000001}",
    "adapter", "v6-literal", "ebusy", "request", "default", "empty", "\xff\xfe", "%s%n", "../..",
)  # fmt: skip


def texts(seed: int) -> Iterator[bytes]:
    """Endless garbage; the same for the same seed."""
    chance = random.Random(seed)
    while True:
        kind = chance.randrange(11)
        if kind < 4:
            yield chance.choice(EDGES).encode() + chance.choice((b"", b"\n"))
        elif kind < 8:
            yield chance.choice(WORDS).encode("latin-1") + chance.choice((b"", b"\n"))
        elif kind < 9:
            yield chance.randbytes(chance.randrange(1, 80))
        elif kind < 10:
            yield chance.choice(b"([{!-~,;:.*/\"'&|+<").to_bytes() * chance.choice(
                (300, 3000, 60000)
            )
        else:
            size = chance.choice((4095, 4096, 4097, 1 << 17, 1 << 20))
            yield (chance.randbytes(16) * (size // 16 + 1))[:size]
