"""What the machine has installed and gives to this Linux: cards, LPAR masks, queue answers.

The side of the support element (HMC). The bus learns of it in a scan only.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from errno import EBUSY, EEXIST, EINVAL, EIO, ENODEV, EOPNOTSUPP
from typing import Any, NamedTuple

from msgspec import Struct, field

from fakesys.core.errors import KernelError
from fakesys.core.events import Bus, Changed
from fakesys.core.text import ALL_IDS, format_mask, ids
from fakesys.subsystems.ap_bus.apqn import Apqn, BitCounter
from fakesys.subsystems.ap_bus.policy import Answers

# Answers of a queue (AP status word, arch/s390/include/asm/ap.h, v6.1).
NORMAL = 0x00
NOT_AVAILABLE = 0x01
RESET_IN_PROGRESS = 0x02
DECONFIGURED = 0x03
CHECKSTOPPED = 0x04
BUSY = 0x05
ANSWERS = (NORMAL, NOT_AVAILABLE, RESET_IN_PROGRESS, DECONFIGURED, CHECKSTOPPED, BUSY)

CEX4 = 10
CEX8 = 14
HIGHEST_ID = 255
DEFAULT_FIRMWARE = "7.31"


class CardMode(StrEnum):
    """What a card was made by its firmware: accelerator, CCA or EP11 coprocessor."""

    ACCEL = "accel"
    CCA = "cca"
    EP11 = "ep11"


# Function bits as lszcrypt reads them (drivers/s390/crypto/ap_bus.h, v6.1).
FUNCTIONS = {
    CardMode.ACCEL: 0x6A000000,
    CardMode.CCA: 0x92000000,
    CardMode.EP11: 0x86000000,
}


class CardSpec(Struct, frozen=True):
    """One card as installed.

    `type`: raw hardware type, CEX4 is 10. `depth`: the raw field, entries of a queue less one.
    `domains`: mask of the domains in which its queues answer, None for all. `ml`: longest
    message in pages, 0 for the default of 12288 bytes. `serialnr` "": made from the ID.
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

    @property
    def functions(self) -> int:
        """The function bits."""
        return FUNCTIONS[self.mode]

    @property
    def hwtype(self) -> int:
        """The type that Linux works with: one newer than it knows counts as the newest."""
        return min(self.type, CEX8)

    @property
    def serial(self) -> str:
        """Serial number: 8 characters of a CCA card, 16 of an EP11 card."""
        made = f"FAKE{self.id:04X}"
        return self.serialnr or (made if self.mode is not CardMode.EP11 else f"{made}EP110000")


class HardwareSpec(Struct, frozen=True):
    """The AP hardware at power on. `adapters` None: those of the cards."""

    cards: tuple[CardSpec, ...] = ()
    domains: int = 0
    control_domains: int = 0
    adapters: int | None = None
    max_adapter_id: int = HIGHEST_ID
    max_domain_id: int = HIGHEST_ID
    interrupts: bool = True
    qci: bool = True
    reconfig: bool = True
    qci_words: tuple[str, ...] = ("APSC", "APXA", "QACT", "RC8A")


def mask_of(*numbers: int) -> int:
    """The mask that holds these IDs."""
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


class Lpar(NamedTuple):
    """What the machine gives to this Linux, as masks; the answer of PQAP(QCI)."""

    adapters: int
    domains: int
    control_domains: int


class InstalledCard(Struct, eq=False):
    """A card in the machine and the switches of the support element."""

    spec: CardSpec
    config: bool = True
    checkstop: bool = False
    rcs: dict[int, int] = field(default_factory=dict)
    resets: BitCounter = field(default_factory=BitCounter)
    # Domains whose queues have interrupts on, for the host or for a guest.
    irq: int = 0


class Hardware:
    """The installed AP hardware. Every change calls `on_change`, the machine's notification.

    `reset_answers` and `configure_errors` are the hooks of the fault files: what ZAPQ of a queue
    answers, with which errno the configuration of a card fails. `shown_in`: the model of the
    directories that list cards and queues as installed.
    """

    def __init__(self, spec: HardwareSpec, bus: Bus, shown_in: object = None) -> None:
        self._bus = bus
        self._shown_in = shown_in
        self.cards = {card.id: InstalledCard(card) for card in spec.cards}
        adapters = mask_of(*self.cards) if spec.adapters is None else spec.adapters
        self.lpar = Lpar(adapters, spec.domains, spec.control_domains)
        self.max_adapter_id = spec.max_adapter_id
        self.max_domain_id = spec.max_domain_id
        self.interrupts = spec.interrupts
        self.qci = spec.qci
        self.reconfig = spec.reconfig
        self.qci_words = spec.qci_words
        self.reset_answers: dict[Apqn, int] = {}
        self.configure_errors: dict[int, int] = {}
        self.on_change: Callable[[], None] = lambda: None

    def card(self, apid: int) -> InstalledCard:
        """An installed card. Raises ENODEV."""
        card = self.cards.get(apid)
        if card is None:
            raise KernelError(ENODEV, f"no card {apid:02x} is installed")
        return card

    def install(self, spec: CardSpec) -> None:
        """Put a card in and give it to this Linux. Raises ENODEV, EEXIST."""
        if spec.id > self.max_adapter_id:
            raise KernelError(ENODEV, f"{spec.id} is above the highest adapter ID")
        if spec.id in self.cards:
            raise KernelError(EEXIST, f"card {spec.id:02x} is installed")
        self.cards[spec.id] = InstalledCard(spec)
        self.lpar = self.lpar._replace(adapters=self.lpar.adapters | 1 << spec.id)
        self._changed()

    def pull(self, apid: int) -> None:
        """Take a card out, and from this Linux. Raises ENODEV."""
        self.card(apid)
        del self.cards[apid]
        self.lpar = self.lpar._replace(adapters=self.lpar.adapters & ~(1 << apid))
        self._changed()

    def set_lpar(self, lpar: Lpar) -> None:
        """Give other adapters and domains to this Linux. Raises ENODEV above the maxima."""
        limits = (self.max_adapter_id, self.max_domain_id, self.max_domain_id)
        for mask, highest in zip(lpar, limits, strict=True):
            if mask >> (highest + 1):
                raise KernelError(ENODEV, f"an ID is above the maximum of {highest}")
        self.lpar = lpar
        self._changed()

    def set_max_adapter_id(self, highest: int) -> None:
        """The highest adapter ID. Raises EINVAL, EBUSY while a card lies beyond it."""
        _check_id(highest)
        if any(apid > highest for apid in self.cards):
            raise KernelError(EBUSY, f"a card above {highest} is installed")
        self.max_adapter_id = highest
        self.lpar = self.lpar._replace(adapters=self.lpar.adapters & _up_to(highest))
        self._changed()

    def set_max_domain_id(self, highest: int) -> None:
        """The highest domain ID. Raises EINVAL; domains beyond it leave this Linux."""
        _check_id(highest)
        self.max_domain_id = highest
        mask = _up_to(highest)
        self.lpar = self.lpar._replace(
            domains=self.lpar.domains & mask, control_domains=self.lpar.control_domains & mask
        )
        self._changed()

    def set_interrupts(self, installed: bool) -> None:
        """Are AP interrupts there?"""
        self.interrupts = installed
        self._changed()

    def set_qci(self, installed: bool) -> None:
        """Is PQAP(QCI) there?"""
        self.qci = installed
        self._changed()

    def set_reconfig(self, installed: bool) -> None:
        """May this Linux configure cards by SCLP?"""
        self.reconfig = installed
        self._changed()

    def switch_config(self, apid: int, config: bool) -> None:
        """Configure a card on or off at the support element. Raises ENODEV."""
        self.card(apid).config = config
        self._changed()

    def switch_checkstop(self, apid: int, checkstop: bool) -> None:
        """A card stops or recovers. Raises ENODEV."""
        self.card(apid).checkstop = checkstop
        self._changed()

    def configure(self, apid: int, config: bool) -> None:
        """Configure a card as Linux does, by SCLP. Raises EOPNOTSUPP, EIO; tells nobody.

        Like drivers/s390/char/sclp_ap.c:do_ap_configure (v6.1).
        """
        if not self.reconfig:
            raise KernelError(EOPNOTSUPP, "the machine has no AP reconfiguration by SCLP")
        error = self.configure_errors.get(apid)
        if error:
            raise KernelError(error, f"SCLP refuses to configure card {apid:02x}")
        card = self.cards.get(apid)
        if card is None:
            raise KernelError(EIO, f"SCLP knows no card {apid:02x}")
        card.config = config

    def rc(self, apqn: Apqn) -> int:
        """The answer that was set for a queue. Raises ENODEV."""
        return self.card(apqn.apid).rcs.get(apqn.apqi, NORMAL)

    def set_rc(self, apqn: Apqn, rc: int) -> None:
        """Set what a queue answers. Raises EINVAL, ENODEV."""
        card = self.card(apqn.apid)
        if rc not in ANSWERS:
            raise KernelError(EINVAL, f"{rc:#04x} is no answer of a queue")
        card.rcs[apqn.apqi] = rc
        if rc == NORMAL:
            del card.rcs[apqn.apqi]
        self._changed()

    def by_answer(self, apid: int, mask: int) -> dict[int, int]:
        """How these queues answer now: answer -> mask; only answers that occur."""
        card = self.cards.get(apid)
        there = 0
        if card is not None and self.lpar.adapters >> apid & 1:
            there = mask & self.lpar.domains
            there &= ALL_IDS if card.spec.domains is None else card.spec.domains
        answers = {NOT_AVAILABLE: mask & ~there}
        if card is not None:
            for apqi, rc in card.rcs.items():
                bit = there & 1 << apqi
                answers[rc] = answers.get(rc, 0) | bit
                there &= ~bit
            rest = CHECKSTOPPED if card.checkstop else NORMAL
            rest = rest if card.config else DECONFIGURED
            answers[rest] = answers.get(rest, 0) | there
        return {rc: queues for rc, queues in answers.items() if queues}

    def test(self, apid: int) -> Answers:
        """PQAP(TAPQ) of every queue of a card. Like ap_bus.c:ap_queue_info (v6.1)."""
        answers = self.by_answer(apid, ALL_IDS)
        absent = answers.get(NOT_AVAILABLE, 0)
        return Answers(
            ALL_IDS & ~absent, answers.get(DECONFIGURED, 0), answers.get(CHECKSTOPPED, 0)
        )

    def zeroize(self, apid: int, mask: int) -> dict[int, int]:
        """PQAP(ZAPQ) of these queues: answer -> mask. Done resets are counted."""
        answers = self.by_answer(apid, mask)
        for apqn, rc in self.reset_answers.items():
            if apqn.apid == apid and mask >> apqn.apqi & 1:
                bit = 1 << apqn.apqi
                answers = {answer: queues & ~bit for answer, queues in answers.items()}
                answers[rc] = answers.get(rc, 0) | bit
        done = answers.get(NORMAL, 0)
        if done:
            self.cards[apid].resets.add(done)
            self.set_irq(apid, done, on=False)
        return answers

    def irq(self, apid: int) -> int:
        """The domains in which interrupts of an adapter's queues are on."""
        card = self.cards.get(apid)
        return card.irq if card else 0

    def set_irq(self, apid: int, mask: int, *, on: bool) -> None:
        """PQAP(AQIC) of these queues."""
        card = self.cards.get(apid)
        if card is not None:
            card.irq = card.irq | mask if on else card.irq & ~mask

    def is_busy(self, apqn: Apqn) -> bool:
        """Does a queue take no request for the moment?"""
        answers = self.by_answer(apqn.apid, 1 << apqn.apqi)
        return BUSY in answers or RESET_IN_PROGRESS in answers

    def is_resetting(self, apqn: Apqn) -> bool:
        """Is a reset of a queue under way?"""
        return RESET_IN_PROGRESS in self.by_answer(apqn.apid, 1 << apqn.apqi)

    def resets(self, apqn: Apqn) -> int:
        """How many resets a queue has answered. Raises ENODEV."""
        return self.card(apqn.apid).resets.count(apqn.apqi)

    def state(self) -> dict[str, Any]:
        """Everything that is not as it was built, as plain data."""
        return {
            "adapters": format_mask(self.lpar.adapters),
            "cards": {f"{apid:02x}": _card_state(self.cards[apid]) for apid in sorted(self.cards)},
            "control_domains": format_mask(self.lpar.control_domains),
            "domains": format_mask(self.lpar.domains),
            "interrupts": self.interrupts,
            "max_adapter_id": self.max_adapter_id,
            "max_domain_id": self.max_domain_id,
            "qci": self.qci,
            "qci_words": list(self.qci_words),
            "reconfig": self.reconfig,
        }

    def queues_of(self, apid: int) -> list[int]:
        """The domains in which an installed card can have a queue, ascending."""
        return ids(self.lpar.domains) if apid in self.cards else []

    def _changed(self) -> None:
        self._bus.emit(Changed((self._shown_in,)))
        self.on_change()


def _card_state(card: InstalledCard) -> dict[str, Any]:
    spec = card.spec
    return {
        "api_ordinalnr": spec.api_ordinalnr,
        "checkstop": card.checkstop,
        "config": card.config,
        "depth": spec.depth,
        "domains": None if spec.domains is None else format_mask(spec.domains),
        "fw_version": spec.fw_version,
        "irq": format_mask(card.irq),
        "ml": spec.ml,
        "mode": str(spec.mode),
        "op_modes": spec.op_modes,
        "rc": {f"{apqi:04x}": card.rcs[apqi] for apqi in sorted(card.rcs)},
        "resets": card.resets.state(),
        "serialnr": spec.serial,
        "type": spec.type,
    }


def _up_to(highest: int) -> int:
    return (1 << (highest + 1)) - 1


def _check_id(highest: int) -> None:
    if not 0 <= highest <= HIGHEST_ID:
        raise KernelError(EINVAL, f"{highest} is not within 0-{HIGHEST_ID}")
