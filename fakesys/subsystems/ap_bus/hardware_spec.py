"""AP hardware as installed at power on: cards, domains, facilities, and three ready machines.

These are values. `Hardware` (`hardware.py`) is made of them and changes; they do not.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from fakesys.core.text import ALL_IDS

CEX8 = 14
HIGHEST_ID = 255
DEFAULT_FIRMWARE = "7.31"


class CardMode(StrEnum):
    """What its firmware makes of a card: an accelerator, a CCA or an EP11 coprocessor."""

    ACCEL = "accel"
    CCA = "cca"
    EP11 = "ep11"


# Function bits as lszcrypt reads them (drivers/s390/crypto/ap_bus.h, v6.1).
FUNCTIONS = {
    CardMode.ACCEL: 0x6A000000,
    CardMode.CCA: 0x92000000,
    CardMode.EP11: 0x86000000,
}


# By the letter of lszcrypt: full function support, and restricted function support.
MORE_FUNCTIONS = {"F": 0x0080_0000, "R": 0x0040_0000}


class CardSpec(Struct, frozen=True):
    """One card as installed.

    `type`: raw hardware type, CEX4 is 10. `depth`: the raw field, entries of a queue less one.
    `domains`: mask of the domains in which its queues answer, None for all. `ml`: longest
    message in pages, 0 for the default of 12288 bytes. `serialnr`: "" for one made from the ID.
    `extra_functions`: function bits that a card of its mode need not have.
    """

    id: int
    type: int
    mode: CardMode
    serialnr: str = ""
    fw_version: str = DEFAULT_FIRMWARE
    api_ordinalnr: int = 4
    op_modes: str = "FIPS2009 BSI2009 FIPS2011 BSI2011"
    depth: int = 7
    ml: int = 0
    domains: int | None = None
    extra_functions: int = 0

    @property
    def functions(self) -> int:
        """The function bits, as the test of a queue answers them."""
        return FUNCTIONS[self.mode] | self.extra_functions

    @property
    def hwtype(self) -> int:
        """The type that Linux works with: a type newer than CEX8 counts as CEX8."""
        return min(self.type, CEX8)

    @property
    def serial(self) -> str:
        """Serial number: 8 characters of a CCA card, 16 of an EP11 card."""
        made = f"FAKE{self.id:04X}"
        return self.serialnr or (made if self.mode is not CardMode.EP11 else f"{made}EP110000")


class HardwareSpec(Struct, frozen=True):
    """The AP hardware at power on. `adapters`: mask of this Linux, None for all cards."""

    cards: tuple[CardSpec, ...] = ()
    domains: int = 0
    control_domains: int = 0
    adapters: int | None = None
    max_adapter_id: int = HIGHEST_ID
    max_domain_id: int = HIGHEST_ID
    interrupts: bool = True
    qci: bool = True
    reconfig: bool = True
    qci_words: tuple[str, ...] = ("APSC", "APXA", "QACT")


def mask_of(*numbers: int) -> int:
    """Return the mask that holds these IDs."""
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask


_DEFAULT_DOMAINS = mask_of(4, 0x47, 0xAB, 0xFF)
_MODES = (CardMode.CCA, CardMode.EP11, CardMode.ACCEL, CardMode.CCA)

DEFAULT = HardwareSpec(
    cards=(
        CardSpec(4, 11, CardMode.EP11),
        CardSpec(5, 11, CardMode.CCA),
        CardSpec(6, 11, CardMode.ACCEL),
    ),
    domains=_DEFAULT_DOMAINS,
    control_domains=_DEFAULT_DOMAINS,
)
EMPTY = HardwareSpec()
FULL = HardwareSpec(
    cards=tuple(CardSpec(apid, CEX8, _MODES[apid % 4]) for apid in range(256)),
    domains=ALL_IDS,
    control_domains=ALL_IDS,
)
PRESETS: dict[str, HardwareSpec] = {"default": DEFAULT, "empty": EMPTY, "full": FULL}
