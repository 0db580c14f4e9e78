"""Lists of CPUs as the kernel reads them: `0-3,8`, `all`, `0-15:2/4`, `1,N`."""

from __future__ import annotations

import re
from collections.abc import Iterable

_GROUP = "(?::([0-9]+)/([0-9]+))?"
_RANGE = re.compile(rf"([0-9]+|N)-([0-9]+|N){_GROUP}")
_ALL = re.compile(f"all{_GROUP}", re.IGNORECASE)
_ONE = re.compile("([0-9]+|N)")
_SEPARATORS = re.compile(r"[,\s]+")


def parse_cpulist(text: str, cpus: int) -> frozenset[int] | None:
    """Return the CPUs that a list names, out of `cpus`; None where the kernel refuses it.

    `N` is the last CPU, `:USED/GROUP` takes the first USED of every GROUP.
    Like lib/bitmap-str.c:bitmap_parselist (v6.18).

    >>> sorted(parse_cpulist("0-7:1/4,N", 16))
    [0, 4, 15]
    """
    found: set[int] = set()
    for word in filter(None, _SEPARATORS.split(text)):
        picked = _members(word, cpus)
        if picked is None:
            return None
        found.update(picked)
    return frozenset(found)


def _members(word: str, cpus: int) -> Iterable[int] | None:
    if (one := _ONE.fullmatch(word)) is not None:
        first = last = _number(one[1], cpus)
        used = group = "1"
    elif (region := _RANGE.fullmatch(word)) is not None:
        first, last = _number(region[1], cpus), _number(region[2], cpus)
        used, group = region[3] or "1", region[4] or "1"
    elif (everything := _ALL.fullmatch(word)) is not None:
        first, last = 0, cpus - 1
        used, group = everything[1] or "1", everything[2] or "1"
    else:
        return None
    taken, step = int(used), int(group)
    if first > last or last >= cpus or step == 0 or taken > step:
        return None
    return (cpu for cpu in range(first, last + 1) if (cpu - first) % step < taken)


def _number(text: str, cpus: int) -> int:
    return cpus - 1 if text == "N" else int(text)
