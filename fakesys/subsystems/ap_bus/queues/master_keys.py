"""The master keys of domains: registers that are loaded, set and cleared at the support element.

A domain has the same keys on all cards, as administrators load them by domain. What is kept of a
key is its verification pattern.
"""

from __future__ import annotations

from enum import StrEnum
from errno import EINVAL
from typing import NamedTuple

from fakesys.core.errors import KernelError


class KeyKind(StrEnum):
    """A master key: AES, APKA and ASYM of CCA cards, WK (wrapping key) of EP11 cards."""

    AES = "AES"
    APKA = "APKA"
    ASYM = "ASYM"
    WK = "WK"


class NewState(StrEnum):
    """What is in the register NEW; the last two are those of CCA and of EP11."""

    EMPTY = "empty"
    PARTIAL = "partial"
    FULL = "full"
    UNCOMMITTED = "uncommitted"
    COMMITTED = "committed"


# Bytes of a verification pattern.
SIZES = {KeyKind.AES: 8, KeyKind.APKA: 8, KeyKind.ASYM: 16, KeyKind.WK: 32}


class MasterKey(NamedTuple):
    """The registers of one key. `new`, `current`, `old`: patterns, None where there is no key.

    Without `current` or `old` the register is invalid. An EP11 card has no register OLD.
    """

    state: NewState
    new: int | None
    current: int | None
    old: int | None


DomainKeys = dict[KeyKind, MasterKey]


class MasterKeys:
    """The keys of all domains. `changed`: those that differ from what a machine begins with."""

    def __init__(self) -> None:
        self.changed: dict[tuple[int, KeyKind], MasterKey] = {}

    def of(self, domain: int) -> DomainKeys:
        """Return the keys of a domain."""
        return {kind: self.key(domain, kind) for kind in KeyKind}

    def key(self, domain: int, kind: KeyKind) -> MasterKey:
        """Return one key of a domain; until it is changed, only its register CURRENT has one."""
        return self.changed.get((domain, kind)) or MasterKey(
            NewState.EMPTY, None, first_pattern(domain, kind), None
        )

    def load(self, domain: int, kind: KeyKind, pattern: int) -> None:
        """Load the register NEW. Raises EINVAL for a pattern that is too long."""
        if pattern >> (SIZES[kind] * 8):
            raise KernelError(EINVAL, f"a pattern of {kind} has {SIZES[kind]} bytes")
        state = NewState.UNCOMMITTED if kind is KeyKind.WK else NewState.FULL
        self._put(domain, kind, self.key(domain, kind)._replace(state=state, new=pattern))

    def load_part(self, domain: int, kind: KeyKind) -> None:
        """Load a first part of a CCA key into NEW. Raises EINVAL for a WK, or over a full key."""
        key = self.key(domain, kind)
        if kind is KeyKind.WK or key.state is NewState.FULL:
            raise KernelError(EINVAL, f"NEW of {kind} takes no part of a key")
        self._put(domain, kind, key._replace(state=NewState.PARTIAL, new=None))

    def commit(self, domain: int, kind: KeyKind) -> None:
        """Commit a new wrapping key. Raises EINVAL unless one is loaded."""
        key = self.key(domain, kind)
        if key.state is not NewState.UNCOMMITTED:
            raise KernelError(EINVAL, f"NEW of {kind} has nothing to commit")
        self._put(domain, kind, key._replace(state=NewState.COMMITTED))

    def set(self, domain: int, kind: KeyKind) -> None:
        """Make NEW the current key, and the current one the old. Raises EINVAL if it is not whole.

        A wrapping key must be committed before.
        """
        key = self.key(domain, kind)
        if key.state not in (NewState.FULL, NewState.COMMITTED):
            raise KernelError(EINVAL, f"NEW of {kind} is {key.state}")
        old = None if kind is KeyKind.WK else key.current
        self._put(domain, kind, MasterKey(NewState.EMPTY, None, key.new, old))

    def clear(self, domain: int, kind: KeyKind, register: str) -> None:
        """Clear `new`, `current` or `old`. Raises EINVAL for another register."""
        key = self.key(domain, kind)
        cleared = {
            "new": key._replace(state=NewState.EMPTY, new=None),
            "current": key._replace(current=None),
            "old": key._replace(old=None),
        }
        if register not in cleared:
            raise KernelError(EINVAL, f"{register!r} is none of {', '.join(cleared)}")
        self._put(domain, kind, cleared[register])

    def _put(self, domain: int, kind: KeyKind, key: MasterKey) -> None:
        self.changed[domain, kind] = key


def first_pattern(domain: int, kind: KeyKind) -> int:
    """Return the pattern of the current key that a domain begins with; they all differ."""
    number = list(KeyKind).index(kind) + 1
    word = 0x9E37_79B9_7F4A_7C15 * (domain * len(KeyKind) + number) % (1 << 64)
    return int.from_bytes(word.to_bytes(8, "big") * (SIZES[kind] // 8), "big")
