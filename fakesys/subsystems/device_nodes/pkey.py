"""What the binary files of `devices/virtual/misc/pkey` hold: keys that nobody else knows.

A key is made of random bytes at each moment of the simulated time; its first bytes are the head of
a token of its kind. Like drivers/s390/crypto/pkey_api.c, zcrypt_ccamisc.h (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import ENODEV
from random import Random

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.features import Features
from fakesys.subsystems.device_nodes.features import NodeFeature

# Bytes of a clear key, and the numbers of the key types (arch/s390/include/uapi/asm/pkey.h, v6.1).
SIZES = {128: 16, 192: 24, 256: 32}
KEY_TYPES = {128: 1, 192: 2, 256: 3}
CEX6, CEX7 = 12, 13


class Family(Struct, frozen=True):
    """One directory of keys. `size`: bytes of a token; `head`: its first bytes, by bits of the key.

    `mode`, `oldest_type`: the cards that can make such a key, None where the processor does.
    `complaint`: what the driver says where no card can.
    """

    name: str
    size: int
    head: Callable[[int], bytes]
    mode: str | None = None
    oldest_type: int = 0
    complaint: str = ""
    needs: Features = ()
    unless: Features = ()

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
    """Return the head of a token with struct ep11kblob_header before the blob (v6.6)."""
    return b"\0\0\x01\x50\6\0" + bits.to_bytes(2, "big")


# Like zcrypt_ccamisc.c:cca_genseckey (v6.1), for any card and domain.
_NO_QUEUE = "cca_genseckey zcrypt_send_cprb (cardnr=65535 domain=65535) failed"
FAMILIES = (
    Family("protkey", 80, _protected),
    Family("ccadata", 64, _secure, "cca", complaint=_NO_QUEUE, unless=NodeFeature.KEY_HANDLERS),
    Family("ccadata", 64, _secure, "cca", needs=NodeFeature.KEY_HANDLERS),
    Family("ccacipher", 136, _cipher, "cca", CEX6),
    Family("ep11", 320, _ep11, "ep11", CEX7, unless=NodeFeature.LONG_EP11_KEYS),
    Family("ep11", 336, _long_ep11, "ep11", CEX7, needs=NodeFeature.LONG_EP11_KEYS),
)


def require_maker(family: Family, cards: Iterator[tuple[str, int]]) -> None:
    """Raise ENODEV unless a card of the host can make keys of a family.

    `cards`: mode and type of each card with a queue of the host that is online.
    """
    if family.mode is None:
        return
    if not any(mode == family.mode and kind >= family.oldest_type for mode, kind in cards):
        raise KernelError(ENODEV, f"no card of the host can make a key for {family.name}")
