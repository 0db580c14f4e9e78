"""Master keys, and what cards said about themselves, in a snapshot."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import U8, Line, Saved, check, check_unique
from fakesys.subsystems.ap_bus.card_info import ANY_DOMAIN, CardInfo, CcaInfo, Ep11CardInfo
from fakesys.subsystems.ap_bus.queues.master_keys import (
    SIZES,
    KeyKind,
    MasterKey,
    MasterKeys,
    NewState,
)

# A pattern of up to 32 bytes; None: no key.
Pattern = Annotated[str, Meta(pattern=r"\A[0-9a-f]{1,64}\Z")] | None
_NEW = {
    KeyKind.WK: (NewState.EMPTY, NewState.UNCOMMITTED, NewState.COMMITTED),
    KeyKind.AES: (NewState.EMPTY, NewState.PARTIAL, NewState.FULL),
}
_WHOLE = (NewState.FULL, NewState.UNCOMMITTED, NewState.COMMITTED)


class SavedKey(Saved, frozen=True):
    """The registers of a master key."""

    kind: KeyKind
    state: NewState
    new: Pattern
    current: Pattern
    old: Pattern


class SavedDomainKey(Saved, frozen=True):
    """A key that is not the one that its domain began with."""

    domain: U8
    key: SavedKey


class SavedCcaInfo(Saved, frozen=True):
    """What a CCA card said. `domain`: that was asked, -1 for any."""

    card: U8
    domain: Annotated[int, Meta(ge=ANY_DOMAIN, le=255)]
    serial: Line
    keys: Annotated[tuple[SavedKey, ...], Meta(min_length=len(KeyKind), max_length=len(KeyKind))]


class SavedEp11Info(Saved, frozen=True):
    """What an EP11 card said."""

    card: U8
    api_ordinalnr: U8
    fw_version: Line
    serial: Line
    op_modes: Line


class SavedCardInfo(Saved, frozen=True):
    """What is remembered of all cards."""

    cca: tuple[SavedCcaInfo, ...]
    ep11: Annotated[tuple[SavedEp11Info, ...], Meta(max_length=256)]


def save_keys(keys: MasterKeys) -> tuple[SavedDomainKey, ...]:
    """Return what a snapshot holds of the master keys."""
    return tuple(
        SavedDomainKey(domain=domain, key=_save_key(kind, key))
        for (domain, kind), key in keys.changed.items()
    )


def _save_key(kind: KeyKind, key: MasterKey) -> SavedKey:
    new, current, old = (None if pattern is None else f"{pattern:x}" for pattern in key[1:])
    return SavedKey(kind=kind, state=key.state, new=new, current=current, old=old)


def restore_keys(saved: tuple[SavedDomainKey, ...], keys: MasterKeys) -> None:
    """Fill keys that are those of the beginning. Raises BadSnapshotError."""
    check_unique([(key.domain, key.key.kind) for key in saved], "a master key")
    for entry in saved:
        keys.changed[entry.domain, entry.key.kind] = _restored_key(entry.key)


def _restored_key(saved: SavedKey) -> MasterKey:
    kind = saved.kind
    states = _NEW[KeyKind.WK if kind is KeyKind.WK else KeyKind.AES]
    check(saved.state in states, f"NEW of {kind} cannot be {saved.state}")
    check((saved.new is not None) == (saved.state in _WHOLE), f"NEW of {kind} is half there")
    check(kind is not KeyKind.WK or saved.old is None, f"there is no OLD of {kind}")
    patterns = [_pattern(text, kind) for text in (saved.new, saved.current, saved.old)]
    return MasterKey(saved.state, *patterns)


def _pattern(text: Pattern, kind: KeyKind) -> int | None:
    if text is None:
        return None
    check(len(text) <= SIZES[kind] * 2, f"a pattern of {kind} is too long")
    return int(text, 16)


def save_info(info: CardInfo) -> SavedCardInfo:
    """Return what a snapshot holds of what cards said."""
    cca = tuple(
        SavedCcaInfo(
            card=card,
            domain=domain,
            serial=found.serial,
            keys=tuple(_save_key(kind, key) for kind, key in found.keys.items()),
        )
        for (card, domain), found in info.cca_cache.items()
    )
    ep11 = tuple(
        SavedEp11Info(card=card, **found._asdict()) for card, found in info.ep11_cache.items()
    )
    return SavedCardInfo(cca=cca, ep11=ep11)


def restore_info(saved: SavedCardInfo, info: CardInfo) -> None:
    """Fill what is remembered of cards. Raises BadSnapshotError."""
    check_unique([(cca.card, cca.domain) for cca in saved.cca], "an answer of a CCA card")
    check_unique([ep11.card for ep11 in saved.ep11], "an answer of an EP11 card")
    for cca in saved.cca:
        check(cca.serial.isprintable(), "a serial number with control characters")
        check([key.kind for key in cca.keys] == list(KeyKind), "keys are missing in an answer")
        keys = {key.kind: _restored_key(key) for key in cca.keys}
        info.cca_cache[cca.card, cca.domain] = CcaInfo(cca.serial, keys)
    for ep11 in saved.ep11:
        texts = (ep11.fw_version, ep11.serial, ep11.op_modes)
        check(all(map(str.isprintable, texts)), "an answer with control characters")
        info.ep11_cache[ep11.card] = Ep11CardInfo(ep11.api_ordinalnr, *texts)
