"""Files that are changed by chance: bytes, lines and values. The same seed gives the same files."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

# Within strings, numbers and words of both TOML and scripts.
_VALUE = re.compile(rb'"[^"\n]*"|\'[^\'\n]*\'|[\w./+-]+')
_INSERTED = (
    b"\0", b"\xff", b"\x80", b"\n", b"\r", b"\x1b[31m", b"'", b'"', b'"""', b"'''", b"\\", b"#",
    b"=", b".", b",", b"[", b"]", b"{", b"}", b"[[", b"[" * 5000, b"{a=" * 2000, b"a." * 3000,
    b"9" * 5000, b"0x" + b"f" * 5000, b"x" * 70000, b"$(id)", b"`id`", b"%n%s", b"\xe2\x80\xa8",
)  # fmt: skip
VALUES = (
    b"inf", b"-inf", b"nan", b"1e308", b"1e12", b"-1", b"0", b"1", b"300", b"4096", b"true",
    b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"1" * 5000,
    b"0x" + b"1" * 5000, b"1e999", b"1979-05-27", b"1979-05-27T00:32:00Z", b"[]", b"{}", b'""',
    b"[" * 6000 + b"]" * 6000, b"[[]]", b'["a"]', b'"\\u0000"', b'"\\n"', b'"a\\nb"',
    "\"\u20ac\"".encode(), b'"\\U0001f600"', b'"[/x]"', b'"9.9"', b'"CEX9"', b'"nonesuch"',
    b'"linux-boot vcpus=x"', b'"/etc/passwd"', b'"../../victim"', b'"%s%n"',
    b'"%b"' % (b"y" * 9000),
    b"null", b"EINVAL", b"ok", b"/", b"..", b"../victim", b"a/../../victim", b"/tmp", b"out/victim",
    b"link/victim", b"'\\000'", b"'\\n'", b"'%'", b"''", b"put", b"add", b"block", b"clear",
    b"mkdir", b"rmdir", b"start", b"advance", b"hold", b"99999999999999999999", b"9" * 400,
    b"sys", b"sys/kernel", b"sys/kernel/debug/fakesys/reset", b"sys/bus/ap/apmask/", b"a//b", b".",
)  # fmt: skip


def changed_files(bases: Sequence[bytes], seed: int, count: int) -> Iterator[bytes]:
    """Yield files that differ from one of `bases` in up to four places."""
    chance = random.Random(seed)
    for _ in range(count):
        data = chance.choice(bases)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            data = chance.choice((_byte, _piece, _line, _value, _value, _value))(data, chance)
        yield data


def _byte(data: bytes, chance: random.Random) -> bytes:
    if not data:
        return bytes([chance.randrange(256)])
    at = chance.randrange(len(data))
    new = data[at] ^ 1 << chance.randrange(8) if chance.random() < 0.5 else chance.randrange(256)
    return data[:at] + bytes([new]) + data[at + 1 :]


def _piece(data: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(data))
    end = min(len(data), at + chance.choice((0, 0, 1, 7, 40, 4000)))
    new = chance.choice((b"", data[at:end] * 2, chance.choice(_INSERTED), chance.randbytes(9)))
    return data[:at] + new + data[end:]


def _line(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    kind = chance.randrange(3)
    if kind == 0:
        del lines[one]
    elif kind == 1:
        lines.insert(one, lines[other])
    else:
        lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def _value(data: bytes, chance: random.Random) -> bytes:
    places = list(_VALUE.finditer(data))
    if not places:
        return data
    place = chance.choice(places)
    return data[: place.start()] + chance.choice(VALUES) + data[place.end() :]
