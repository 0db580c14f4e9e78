"""What the machine has installed and gives to this Linux: cards, LPAR masks, queue answers.

This is the side of the support element (SE). The bus learns of a change when it scans, not
before. Knows no bus: `Hardware.on_change` stands for the machine's notification.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from errno import EBUSY, EEXIST, EINVAL, EIO, ENODEV, EOPNOTSUPP
from typing import Any, NamedTuple

from msgspec import Struct, field

from fakesys.core.errors import KernelError
from fakesys.core.events import Bus, Changed
from fakesys.core.text import ALL_IDS, format_mask
from fakesys.subsystems.ap_bus.apqn import Apqn, BitCounter
from fakesys.subsystems.ap_bus.hardware_spec import HIGHEST_ID, CardSpec, HardwareSpec, mask_of
from fakesys.subsystems.ap_bus.policy import Answers
from fakesys.subsystems.ap_bus.queues.answers import (
    ANSWERS,
    BUSY,
    CHECKSTOPPED,
    DECONFIGURED,
    NORMAL,
    NOT_AVAILABLE,
    RESET_IN_PROGRESS,
)
from fakesys.subsystems.ap_bus.queues.master_keys import MasterKeys

# The highest IDs without PQAP(QCI).
MAX_ADAPTER_ID = 63
MAX_DOMAIN_ID = 15


class Lpar(NamedTuple):
    """What the machine gives to this Linux, as masks: the answer of PQAP(QCI)."""

    adapters: int
    domains: int
    control_domains: int


class InstalledCard(Struct, eq=False):
    """A card in the machine, with the switches that the support element has for it.

    `rcs`: domain -> answer of its queue, where it is not normal. `irq`: the domains whose queues
    have interrupts on, for the host or for a guest.
    """

    spec: CardSpec
    config: bool = True
    checkstop: bool = False
    rcs: dict[int, int] = field(default_factory=dict)
    irq: int = 0


class Hardware:
    """The installed AP hardware. Every change calls `on_change`, the machine's notification.

    A change of what Linux learns at boot calls `on_facilities` instead.

    `reset_answers` and `configure_errors` are set by the fault files: what ZAPQ of a queue
    answers, and the errno with which the configuration of a card fails. `shown_in`: the model of
    the directories that list cards and queues as installed.

        hardware = Hardware(DEFAULT, bus)
        hardware.switch_config(4, False)
        hardware.by_answer(4, 1 << 0x47)      # {DECONFIGURED: 1 << 0x47}
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
        self.keys = MasterKeys()
        # Resets that the queues of each adapter answered, by ZAPQ and by RAPQ, and those by ZAPQ
        # that were tried. They stay when a card is taken out.
        self.counters: dict[int, BitCounter] = {}
        self.rapq_counters: dict[int, BitCounter] = {}
        self.attempts: dict[int, BitCounter] = {}
        self.on_change: Callable[[], None] = lambda: None
        self.on_facilities: Callable[[], None] = lambda: None

    @property
    def highest_adapter(self) -> int:
        """The highest adapter ID that Linux uses: without PQAP(QCI) it does not know of more.

        Like ap_bus.c:ap_init_qci_info (v6.1).
        """
        return self.max_adapter_id if self.qci else MAX_ADAPTER_ID

    @property
    def highest_domain(self) -> int:
        """The highest domain ID that Linux uses."""
        return self.max_domain_id if self.qci else MAX_DOMAIN_ID

    def card(self, apid: int) -> InstalledCard:
        """Return an installed card. Raises ENODEV."""
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
        """Give other adapters and domains to this Linux. Raises ENODEV for new ones too high."""
        limits = (self.max_adapter_id, self.max_domain_id, self.max_domain_id)
        for mask, old, highest in zip(lpar, self.lpar, limits, strict=True):
            if (mask & ~old) >> (highest + 1):
                raise KernelError(ENODEV, f"an ID is above the maximum of {highest}")
        self.lpar = lpar
        self._changed()

    def set_max_adapter_id(self, highest: int) -> None:
        """Set the highest adapter ID. Raises EINVAL, and EBUSY while a card is above it."""
        _check_id(highest)
        if any(apid > highest for apid in self.cards):
            raise KernelError(EBUSY, f"a card above {highest} is installed")
        self.max_adapter_id = highest
        self._facilities_changed()

    def set_max_domain_id(self, highest: int) -> None:
        """Set the highest domain ID; domains above it have no queues. Raises EINVAL."""
        _check_id(highest)
        self.max_domain_id = highest
        self._facilities_changed()

    def set_interrupts(self, installed: bool) -> None:
        """Install or remove AP interrupts."""
        self.interrupts = installed
        self._facilities_changed()

    def set_qci(self, installed: bool) -> None:
        """Install or remove PQAP(QCI)."""
        self.qci = installed
        self._facilities_changed()

    def set_reconfig(self, installed: bool) -> None:
        """Allow or forbid this Linux to configure cards by SCLP."""
        self.reconfig = installed
        self._facilities_changed()

    def switch_config(self, apid: int, config: bool) -> None:
        """Configure a card on or off at the support element. Raises ENODEV."""
        _configure(self.card(apid), config)
        self._changed()

    def switch_checkstop(self, apid: int, checkstop: bool) -> None:
        """Checkstop a card, or let it recover. Raises ENODEV."""
        card = self.card(apid)
        card.checkstop = checkstop
        if checkstop:
            card.irq = 0
        self._changed()

    def configure(self, apid: int, config: bool) -> None:
        """Configure a card as Linux does, by SCLP. Raises EOPNOTSUPP, EIO, or the errno of a fault.

        The caller sends the notification: it follows even where nothing changes.

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
        _configure(card, config)

    def rc(self, apqn: Apqn) -> int:
        """Return the answer that was set for a queue. Raises ENODEV."""
        return self.card(apqn.apid).rcs.get(apqn.apqi, NORMAL)

    def set_rc(self, apqn: Apqn, rc: int) -> None:
        """Set what a queue answers. Raises ENODEV without the card, EINVAL for no such answer."""
        card = self.card(apqn.apid)
        if rc not in ANSWERS:
            raise KernelError(EINVAL, f"{rc:#04x} is no answer of a queue")
        card.rcs[apqn.apqi] = rc
        if rc == NORMAL:
            del card.rcs[apqn.apqi]
        self._changed()

    def by_answer(self, apid: int, mask: int) -> dict[int, int]:
        """Return how these queues answer now: answer -> mask of domains, for answers that occur.

        The answer that was set for a queue wins, then that the card is configured off, then its
        checkstop.
        """
        card = self.cards.get(apid)
        there = 0
        given = self.lpar.adapters >> apid & 1 and apid <= self.highest_adapter
        if card is not None and given:
            there = mask & self.lpar.domains & _up_to(self.highest_domain)
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
        """Test every queue of a card by PQAP(TAPQ). Like ap_bus.c:ap_queue_info (v6.1)."""
        answers = self.by_answer(apid, ALL_IDS)
        absent = answers.get(NOT_AVAILABLE, 0)
        return Answers(
            ALL_IDS & ~absent, answers.get(DECONFIGURED, 0), answers.get(CHECKSTOPPED, 0)
        )

    def zeroize(self, apid: int, mask: int, attempts: int = 1) -> dict[int, int]:
        """Reset these queues by PQAP(ZAPQ); return answer -> mask.

        A reset that is answered normally is counted, and turns the queue's interrupts off. A queue
        that answers with a reset in progress or busy is tried as often as `attempts` says.
        """
        answers = self.by_answer(apid, mask)
        for apqn, rc in self.reset_answers.items():
            if apqn.apid == apid and mask >> apqn.apqi & 1:
                bit = 1 << apqn.apqi
                answers = {answer: queues & ~bit for answer, queues in answers.items()}
                answers[rc] = answers.get(rc, 0) | bit
        tried = self.attempts.setdefault(apid, BitCounter())
        tried.add(mask)
        for _ in range(attempts - 1):
            tried.add(answers.get(RESET_IN_PROGRESS, 0) | answers.get(BUSY, 0))
        done = answers.get(NORMAL, 0)
        if done:
            self.counters.setdefault(apid, BitCounter()).add(done)
            self.set_irq(apid, done, on=False)
        return answers

    def reset(self, apid: int, mask: int) -> None:
        """Reset these queues by PQAP(RAPQ), which turns their interrupts off.

        A reset that is answered normally is counted.
        """
        done = self.by_answer(apid, mask).get(NORMAL, 0)
        if done:
            self.rapq_counters.setdefault(apid, BitCounter()).add(done)
        self.set_irq(apid, mask, on=False)

    def irq(self, apid: int) -> int:
        """Return the domains of an adapter whose queues have interrupts on."""
        card = self.cards.get(apid)
        return card.irq if card else 0

    def set_irq(self, apid: int, mask: int, *, on: bool) -> None:
        """Turn the interrupts of these queues on or off by PQAP(AQIC)."""
        card = self.cards.get(apid)
        if card is not None:
            card.irq = card.irq | mask if on else card.irq & ~mask

    def is_busy(self, apqn: Apqn) -> bool:
        """Return whether a queue takes no request at the moment."""
        answers = self.by_answer(apqn.apid, 1 << apqn.apqi)
        return BUSY in answers or RESET_IN_PROGRESS in answers

    def is_resetting(self, apqn: Apqn) -> bool:
        """Return whether a reset of a queue is in progress."""
        return RESET_IN_PROGRESS in self.by_answer(apqn.apid, 1 << apqn.apqi)

    def resets(self, apqn: Apqn) -> int:
        """Return how many resets by PQAP(ZAPQ) a queue has answered since power on."""
        return _count(self.counters, apqn)

    def rapq(self, apqn: Apqn) -> int:
        """Return how many resets by PQAP(RAPQ) a queue has answered since power on."""
        return _count(self.rapq_counters, apqn)

    def reset_attempts(self, apqn: Apqn) -> int:
        """Return how many resets a queue was asked for since power on."""
        return _count(self.attempts, apqn)

    def state(self) -> dict[str, Any]:
        """Return the hardware as plain data, without the faults."""
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
            "rapq": _counter_state(self.rapq_counters),
            "reconfig": self.reconfig,
            "resets": _counter_state(self.counters),
        }

    def known_queues(self, apid: int) -> int:
        """Return the domains in which a card can have a queue, or had one that was reset."""
        counter = self.counters.get(apid)
        counted = 0 if counter is None else counter.nonzero
        return counted | (self.lpar.domains if apid in self.cards else 0)

    def _facilities_changed(self) -> None:
        self._bus.emit(Changed((self._shown_in,)))
        self.on_facilities()

    def _changed(self) -> None:
        self._bus.emit(Changed((self._shown_in,)))
        self.on_change()


def _configure(card: InstalledCard, config: bool) -> None:
    card.config = config
    if not config:
        # A queue that is configured off forgets the registration of its interrupts.
        card.irq = 0


def _count(counters: Mapping[int, BitCounter], apqn: Apqn) -> int:
    counter = counters.get(apqn.apid)
    return 0 if counter is None else counter.count(apqn.apqi)


def _counter_state(counters: Mapping[int, BitCounter]) -> dict[str, list[str]]:
    return {f"{apid:02x}": count.state() for apid, count in counters.items()}


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
        "serialnr": spec.serial,
        "type": spec.type,
    }


def _up_to(highest: int) -> int:
    return (1 << (highest + 1)) - 1


def _check_id(highest: int) -> None:
    if not 0 <= highest <= HIGHEST_ID:
        raise KernelError(EINVAL, f"{highest} is not within 0-{HIGHEST_ID}")
