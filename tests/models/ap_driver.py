"""The rules of vfio_ap in plain words: sets, and one queue at a time, as vfio_ap_ops.c has them.

Written from the driver's source alone (v6.1 and v6.12), to be compared with the models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

Queue = tuple[int, int]
Ids = set[int]


class Refused(Exception):
    """The name of an errno."""


@dataclass
class Matrix:
    """Adapters, domains and control domains."""

    apm: Ids = field(default_factory=set)
    aqm: Ids = field(default_factory=set)
    adm: Ids = field(default_factory=set)

    def queues(self) -> set[Queue]:
        return {(a, d) for a in self.apm for d in self.aqm}

    def __contains__(self, queue: Queue) -> bool:
        return queue[0] in self.apm and queue[1] in self.aqm


@dataclass
class Device:
    """A mediated device: what is assigned, what its guest gets, what a scan has just added."""

    matrix: Matrix = field(default_factory=Matrix)
    shadow: Matrix = field(default_factory=Matrix)
    added: Matrix = field(default_factory=Matrix)
    open: bool = False


@dataclass
class Card:
    """An installed card; `rcs`: answers of queues that were set by hand."""

    config: bool = True
    checkstop: bool = False
    rcs: dict[int, int] = field(default_factory=dict)


class Driver:
    """The AP bus and vfio_ap. `later`: with what 6.12 does otherwise."""

    def __init__(self, cards: Iterable[int], lpar: Matrix, *, later: bool) -> None:
        self.later = later
        self.cards = {apid: Card() for apid in cards}
        self.lpar = lpar
        self.seen = Matrix()
        self.info = Matrix(set(lpar.apm), set(lpar.aqm), set(lpar.adm))
        self.host = Matrix(set(range(256)), set(range(256)))
        # In the order of registration; the driver of each queue.
        self.queues: dict[Queue, str | None] = {}
        self.reset_rc: dict[Queue, int] = {}
        # The newest first.
        self.devices: dict[str, Device] = {}
        self.scan()

    def answer(self, queue: Queue) -> int:
        """What TAPQ and ZAPQ say."""
        apid, apqi = queue
        card = self.cards.get(apid)
        if card is None or queue not in self.lpar:
            return 1
        return card.rcs.get(apqi) or (0 if card.config and not card.checkstop else 4 - card.config)

    def passable(self, queue: Queue) -> bool:
        good = (0, 3, 4) if self.later else (0,)
        return self.queues.get(queue) == "vfio_ap" and self.reset_rc[queue] in good

    def reset(self, queues: Iterable[Queue]) -> None:
        """ZAPQ of those of these queues that the driver has."""
        for queue in queues:
            if self.queues.get(queue) == "vfio_ap":
                self.reset_rc[queue] = self.answer(queue)

    def filter(self, device: Device) -> None:
        before = set(device.shadow.apm)
        device.shadow.apm = device.matrix.apm & self.info.apm
        device.shadow.aqm = device.matrix.aqm & self.info.aqm
        filtered = []
        for apid in sorted(device.shadow.apm):
            if not all(self.passable((apid, apqi)) for apqi in device.shadow.aqm):
                device.shadow.apm.discard(apid)
                filtered += [apid] if apid in before else []
        if self.later:
            self.reset((apid, apqi) for apid in filtered for apqi in device.shadow.aqm)

    def filter_control_domains(self, device: Device) -> None:
        device.shadow.adm = device.matrix.adm & self.info.adm

    def validate(self, device: Device, new: Matrix) -> None:
        if new.queues() & self.host.queues():
            raise Refused("EADDRNOTAVAIL")
        for other in self.devices.values():
            if other is not device and new.queues() & other.matrix.queues():
                raise Refused("EADDRINUSE")

    def assign(self, device: Device, kind: str, number: int) -> None:
        ids = getattr(device.matrix, kind)
        if number in ids:
            return
        if kind == "adm":
            ids.add(number)
            self.filter_control_domains(device)
            return
        new = Matrix(set(device.matrix.apm), set(device.matrix.aqm), device.matrix.adm)
        getattr(new, kind).add(number)
        self.validate(device, new)
        ids.add(number)
        self.filter(device)

    def unassign(self, device: Device, kind: str, number: int) -> None:
        matrix, shadow = device.matrix, device.shadow
        if number not in getattr(matrix, kind):
            return
        index = {"apm": 0, "aqm": 1}.get(kind)
        lost = [q for q in matrix.queues() if q in shadow and index is not None]
        lost = [q for q in lost if q[index or 0] == number]
        getattr(matrix, kind).discard(number)
        getattr(shadow, kind).discard(number)
        self.reset(lost)

    def configure(self, device: Device, new: Matrix) -> None:
        """A write to `ap_config`."""
        self.validate(device, new)
        for kind in ("apm", "aqm"):
            for number in getattr(device.matrix, kind) - getattr(new, kind):
                self.unassign(device, kind, number)
        device.matrix = new
        self.filter(device)
        self.filter_control_domains(device)

    def holder(self, queue: Queue) -> Device | None:
        return next((d for d in self.devices.values() if queue in d.matrix), None)

    def bind(self, queue: Queue, driver: str) -> None:
        self.queues[queue] = driver
        if driver != "vfio_ap":
            return
        self.reset_rc[queue] = 0
        device = self.holder(queue)
        if device is not None and not (device.added.apm or device.added.aqm):
            self.filter(device)

    def unbind(self, queue: Queue) -> None:
        if self.queues[queue] == "vfio_ap":
            self._leave(queue)
            del self.reset_rc[queue]
        self.queues[queue] = None

    def _leave(self, queue: Queue) -> None:
        device, apid = self.holder(queue), queue[0]
        if device is not None and queue in device.shadow:
            device.shadow.apm.discard(apid)
            if self.later:
                self.reset((apid, apqi) for apqi in device.shadow.aqm if apqi in device.matrix.aqm)
                return
        if not self.later or queue in self.info:
            self.reset([queue])

    def probe(self, queue: Queue) -> None:
        self.bind(queue, "cex4queue" if queue in self.host else "vfio_ap")

    def set_mask(self, kind: str, new: Ids) -> None:
        masks = Matrix(set(self.host.apm), set(self.host.aqm))
        setattr(masks, kind, new)
        if new - getattr(self.host, kind):
            for device in self.devices.values():
                if device.matrix.queues() & masks.queues():
                    raise Refused("EBUSY")
        if new == getattr(self.host, kind):
            return
        self.host = masks
        for queue, driver in list(self.queues.items()):
            # No driver counts as one that takes no queues of the host.
            if (queue in self.host) != (driver == "cex4queue"):
                self.unbind(queue)
                self.probe(queue)

    def scan(self) -> None:
        new, old = self.lpar, self.seen
        self.seen = Matrix(set(new.apm), set(new.aqm), set(new.adm))
        changed = (new.apm, new.aqm, new.adm) != (old.apm, old.aqm, old.adm)
        if changed:
            self._config_changed(old)
        for apid in range(256):
            self._scan_adapter(apid)
        if changed:
            self._scan_complete()

    def _config_changed(self, old: Matrix) -> None:
        new = self.seen
        apm, aqm, adm = new.apm - old.apm, new.aqm - old.aqm, new.adm - old.adm
        apm = {a for a in apm if all(self.answer((a, d)) != 1 for d in aqm)}
        for device in self.devices.values():
            shadow, matrix = device.shadow, device.matrix
            shadow.apm -= old.apm - new.apm
            shadow.aqm -= old.aqm - new.aqm
            shadow.adm -= old.adm - new.adm
            device.added = Matrix(matrix.apm & apm, matrix.aqm & aqm, matrix.adm & adm)
        self.info = Matrix(set(new.apm), set(new.aqm), set(new.adm))

    def _scan_adapter(self, apid: int) -> None:
        there = [q for q in self.queues if q[0] == apid]
        if apid not in self.cards and not there:
            return
        present = {d for d in self.lpar.aqm if self.answer((apid, d)) != 1}
        # Without any queue the card goes, its queues in the order of registration.
        order = sorted(present | {q[1] for q in there}) if present else [q[1] for q in there]
        for apqi in order:
            queue = (apid, apqi)
            if apqi not in present:
                self.unbind(queue)
                del self.queues[queue]
            elif queue not in self.queues:
                self.queues[queue] = None
                self.probe(queue)

    def _scan_complete(self) -> None:
        for device in self.devices.values():
            added, device.added = device.added, Matrix()
            if added.apm or added.aqm:
                self.filter(device)
            if added.adm:
                self.filter_control_domains(device)
