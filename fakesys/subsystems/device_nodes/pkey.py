"""What the binary files of `devices/virtual/misc/pkey` hold: keys that nobody else knows.

A key is made of random bytes at each moment of the simulated time; its first bytes are the head of
a token of its kind. Like drivers/s390/crypto/pkey_api.c, zcrypt_ccamisc.h (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple, Protocol

from msgspec import Struct

from fakesys.core.features import Features
from fakesys.subsystems.device_nodes.features import NodeFeature

# Bytes of a clear key, and the numbers of the key types (arch/s390/include/uapi/asm/pkey.h, v6.1).
SIZES = {128: 16, 192: 24, 256: 32}
KEY_TYPES = {128: 1, 192: 2, 256: 3}


class KeyMakers(Protocol):
    """Makes secure keys by requests to cards of the host; returns how many of `keys` it made.

    `family`: a directory of pkey. All raise ENODEV, EIO.
    """

    def of_any(self, family: str, keys: int) -> int:
        """Let any card make each key."""

    def of_listed(self, family: str, keys: int) -> int:
        """Let the first card of a list make all keys."""

    def of_handler(self, family: str, keys: int) -> int:
        """Let the first card of a list make a key, for each key again."""


class Family(Struct, frozen=True):
    """One directory of keys. `size`: bytes of a token; `head`: its first bytes, by bits of the key.

    `cards`: which can make such a key; `make`: asks them for the tokens of a file. None: the
    processor does. `asked`: cards are asked for their master keys first, so that none refuses.
    """

    name: str
    size: int
    head: Callable[[int], bytes]
    cards: str = ""
    make: Callable[[KeyMakers, str, int], int] | None = None
    needs: Features = ()
    unless: Features = ()
    asked: bool = False

    def files(self) -> Iterator[tuple[str, int, int]]:
        """Yield name, bits and number of tokens of each file."""
        for bits in (128, 192, 256):
            yield f"{self.name}_aes_{bits}", bits, 1
        for bits in (128, 256):
            yield f"{self.name}_aes_{bits}_xts", bits, 2

    def key(self, bits: int, tokens: int, now_ns: int) -> bytes:
        """Return the content of a file at a moment."""
        chance = Random(f"{self.name} {bits} {tokens} {now_ns}")
        made = []
        for _ in range(tokens):
            head = self.head(bits)
            made.append(head + chance.randbytes(self.size - len(head)))
        return b"".join(made)


def _protected(bits: int) -> bytes:
    """Return the head of struct protaeskeytoken: type, version 1, key type, length."""
    numbers = (KEY_TYPES[bits], SIZES[bits] + 32)
    return b"\0\0\0\0\1\0\0\0" + b"".join(number.to_bytes(4, "big") for number in numbers)


def _secure(_bits: int) -> bytes:
    """Return the head of struct secaeskeytoken: an internal token of version 4."""
    return b"\1\0\0\0\4\0"


def _cipher(_bits: int) -> bytes:
    """Return the head of struct cipherkeytoken: an internal token of 136 bytes, version 5."""
    return b"\1\0\0\x88\5"


def _ep11(bits: int) -> bytes:
    """Return the head of struct ep11keyblob: no CCA token, version 3, length, bits."""
    return b"\0\0\x01\x40\3\0" + bits.to_bytes(2, "big")


def _long_ep11(bits: int) -> bytes:
    """Return the head of a token with struct ep11kblob_header before the blob (v6.6, v6.1.192)."""
    return b"\0\0\x01\x50\6\0" + bits.to_bytes(2, "big")


def _by_any(makers: KeyMakers, family: str, keys: int) -> int:
    return makers.of_any(family, keys)


def _by_list(makers: KeyMakers, family: str, keys: int) -> int:
    return makers.of_listed(family, keys)


def _by_handler(makers: KeyMakers, family: str, keys: int) -> int:
    return makers.of_handler(family, keys)


_HANDLERS, _LONG = NodeFeature.KEY_HANDLERS, NodeFeature.LONG_EP11_KEYS
FAMILIES = (
    Family("protkey", 80, _protected),
    Family("ccadata", 64, _secure, "a CCA card", _by_any, unless=_HANDLERS),
    Family("ccadata", 64, _secure, "a CCA card", _by_handler, needs=_HANDLERS, asked=True),
    Family("ccacipher", 136, _cipher, "a CCA card from CEX6 on", _by_list, unless=_HANDLERS),
    Family(
        "ccacipher",
        136,
        _cipher,
        "a CCA card from CEX6 on",
        _by_handler,
        needs=_HANDLERS,
        asked=True,
    ),
    Family("ep11", 320, _ep11, "an EP11 card from CEX7 on", _by_list, unless=_LONG),
    Family(
        "ep11",
        336,
        _long_ep11,
        "an EP11 card from CEX7 on",
        _by_list,
        needs=_LONG,
        unless=_HANDLERS,
    ),
    Family("ep11", 336, _long_ep11, "an EP11 card from CEX7 on", _by_handler, needs=_HANDLERS),
)


class MissingFunction(NamedTuple):
    """A file for a key that the processor of these machines cannot make: `name`, bytes."""

    name: str
    size: int


# Their functions of PCKMO came after the newest machine that has these cards. Like
# pkey_sysfs.c:protkey_attrs, pkey_pckmo.c:pckmo_clr2protkey (v6.12).
MISSING_FUNCTIONS = (
    MissingFunction("protkey_aes_xts_128", 80),
    MissingFunction("protkey_aes_xts_256", 112),
    MissingFunction("protkey_hmac_512", 112),
    MissingFunction("protkey_hmac_1024", 176),
)
# The driver tries once more, as modules might have to be loaded.
TRIES = 2
NO_FUNCTION = "pckmo_clr2protkey pckmo functions not available"
