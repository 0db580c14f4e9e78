"""Files of modules without code: what `modinfo` shows, as the section `.modinfo` of an ELF file."""

from __future__ import annotations

import struct
import sys

from fakesys.execution.modules.descriptions import Description

HEADER = struct.Struct("=16sHHIQQQIHHHHHH")
SECTION = struct.Struct("=IIQQQQIIQQ")
ELFCLASS64, ELFDATA2LSB, ELFDATA2MSB, EV_CURRENT, ET_REL = 2, 1, 2, 1, 1
SHT_PROGBITS, SHT_STRTAB = 1, 3
NAMES = b"\0.modinfo\0.shstrtab\0"
# Fields of the description that belong to the place of the file.
ELSEWHERE = ("filename", "builtin")


def modinfo(module: Description, release: str) -> bytes:
    """Return `FIELD=VALUE` strings, each with a NUL, as MODULE_INFO of the kernel makes them."""
    pairs: list[tuple[str, str]] = []
    for field, value in module.fields:
        if field == "parm":
            # `NAME:TEXT (TYPE)`, as modinfo prints the two.
            text, _, kind = value.removesuffix(")").rpartition(" (")
            pairs += [("parm", text), ("parmtype", f"{text.partition(':')[0]}:{kind}")]
        elif field not in ELSEWHERE:
            pairs.append((field, value))
    pairs.append(("vermagic", f"{release} SMP mod_unload "))
    return b"".join(f"{field}={value}".encode() + b"\0" for field, value in pairs)


def stub(module: Description, release: str) -> bytes:
    """Return the file of a module."""
    info = modinfo(module, release)
    start = HEADER.size
    names = start + len(info)
    sections = -(-(names + len(NAMES)) // 8) * 8
    order = ELFDATA2LSB if sys.byteorder == "little" else ELFDATA2MSB
    identity = b"\x7fELF" + bytes((ELFCLASS64, order, EV_CURRENT))
    header = HEADER.pack(
        identity, ET_REL, 0, EV_CURRENT, 0, 0, sections, 0, HEADER.size, 0, 0, SECTION.size, 3, 2
    )
    table = (
        bytes(SECTION.size),
        SECTION.pack(1, SHT_PROGBITS, 2, 0, start, len(info), 0, 0, 1, 0),
        SECTION.pack(10, SHT_STRTAB, 0, 0, names, len(NAMES), 0, 0, 1, 0),
    )
    return (header + info + NAMES).ljust(sections, b"\0") + b"".join(table)
