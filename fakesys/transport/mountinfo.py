"""The mounts that this process sees, from `/proc/self/mountinfo` (proc(5))."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

MOUNTINFO = Path("/proc/self/mountinfo")


class MountLine(NamedTuple):
    """One line: mount point, type, source, and the minor number of the device."""

    point: Path
    fstype: str
    source: str
    minor: int


def mount_lines(types: Container[str] | None = None) -> Iterator[MountLine]:
    """Yield the mounts, or those of some types, oldest first. Touches no mounted file system."""
    with MOUNTINFO.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            if types is not None and after.partition(" ")[0] not in types:
                continue
            _, _, device, _, point = before.split(" ")[:5]
            fstype, source = after.split(" ")[:2]
            minor = int(device.partition(":")[2])
            yield MountLine(Path(_unescape(point)), fstype, _unescape(source), minor)


def _unescape(text: str) -> str:
    r"""Return a field without its octal escapes: a blank is written `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
