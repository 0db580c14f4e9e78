"""The address of a queue, and the 256 counters that a card has of its queues."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_NAME = re.compile(r"([0-9a-f]{2})\.([0-9a-f]{4})")
_CARD_NAME = re.compile(r"card([0-9a-f]{2})")
_ID_NAME = re.compile(r"[0-9a-f]{2}")


class Apqn(NamedTuple):
    """Adapter (card) number and queue index (domain) number."""

    apid: int
    apqi: int

    def __str__(self) -> str:
        return f"{self.apid:02x}.{self.apqi:04x}"


def apqn_of(name: str) -> Apqn | None:
    """Return the address in a queue's name such as `05.00ab`; None for any other text."""
    found = _NAME.fullmatch(name)
    if not found or int(found[2], 16) > 255:
        return None
    return Apqn(int(found[1], 16), int(found[2], 16))


def apid_of(name: str) -> int | None:
    """Return the adapter in a card's name such as `card05`; None for any other text."""
    found = _CARD_NAME.fullmatch(name)
    return int(found[1], 16) if found else None


def apid_of_digits(name: str) -> int | None:
    """Return the adapter in two digits such as `0a`; None for any other text."""
    return int(name, 16) if _ID_NAME.fullmatch(name) else None


class BitCounter:
    """256 counters, one per ID, kept as planes of bits.

    Plane N holds bit N of every counter. Adding one to a set of counters costs a few operations
    on integers, whatever the size of the set:

        counter = BitCounter()
        counter.add(0b110)
        counter.add(0b100)
        counter.count(2)    # 2
    """

    __slots__ = ("_planes",)

    def __init__(self, planes: Iterable[int] = ()) -> None:
        self._planes = list(planes)

    @property
    def planes(self) -> tuple[int, ...]:
        """The planes, lowest bit of the counters first."""
        return tuple(self._planes)

    @property
    def nonzero(self) -> int:
        """The IDs whose counters are not zero."""
        mask = 0
        for plane in self._planes:
            mask |= plane
        return mask

    def add(self, mask: int) -> None:
        """Add one to the counter of each ID in the mask."""
        carry = mask
        for index, plane in enumerate(self._planes):
            if not carry:
                return
            self._planes[index], carry = plane ^ carry, plane & carry
        if carry:
            self._planes.append(carry)

    def count(self, index: int) -> int:
        """Return the counter of one ID."""
        return sum((plane >> index & 1) << bit for bit, plane in enumerate(self._planes))

    def state(self) -> list[str]:
        """Return the planes as hexadecimal numbers, lowest bit first."""
        return [hex(plane) for plane in self._planes]
