"""The messages of the drivers for `debug/s390dbf`, made of the uevents that they send.

Like the calls of AP_DBF_* and ZCRYPT_DBF_* in ap_bus.c and zcrypt_api.c (v6.1). Differs: drivers
have more messages, on failures that do not happen here; vfio_ap has none on what happens here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fakesys.core.events import Bus, Uevent, UeventBatch
from fakesys.subsystems.ap_bus.apqn import apid_of, apqn_of
from fakesys.subsystems.ap_bus.state import BusState
from fakesys.subsystems.s390dbf.model import DebugFeatures, Level

SWITCHED = {"0": "off", "1": "on"}


class DebugWriter:
    """Hears the uevents of one machine. `bus`: the AP bus of now; `features`: those of now."""

    def __init__(
        self, events: Bus, bus: Callable[[], BusState], features: Callable[[], DebugFeatures]
    ) -> None:
        self._bus = bus
        self._features = features
        events.subscribe(Uevent, self._on_uevent)
        events.subscribe(UeventBatch, self._on_batch)

    def _on_uevent(self, event: Uevent) -> None:
        if event.subsystem == "module" and not _synthetic(event):
            self._features().module_changed(event.devpath.rpartition("/")[2])
        self._write((event,))

    def _on_batch(self, batch: UeventBatch) -> None:
        # Messages on queues are of these levels: without a reader no event is made.
        if self._features().wants("ap", Level.INFO):
            self._write(batch.make())

    def _write(self, events: Iterable[Uevent]) -> None:
        features = self._features()
        for event in events:
            for level, text in self._messages(event):
                feature = "zcrypt" if event.subsystem == "zcrypt" else "ap"
                features.write(feature, level, text)

    def _messages(self, event: Uevent) -> Iterator[tuple[Level, str]]:
        if event.subsystem == "zcrypt":
            yield from _node_messages(event)
        elif event.subsystem == "ap":
            name = event.devpath.rpartition("/")[2]
            apid, apqn = apid_of(name), apqn_of(name)
            if apqn is not None:
                yield from self._queue_messages(event, *apqn)
            elif apid is not None:
                yield from self._card_messages(event, apid)
            else:
                yield from _bus_messages(event)

    def _card_messages(self, event: Uevent, apid: int) -> Iterator[tuple[Level, str]]:
        where = f"ap_scan_adapter({apid})"
        card = self._bus().cards.get(apid)
        if event.action == "add" and card is not None and not _synthetic(event):
            kind = _state(card.config, card.chkstop)
            what = f"type={card.hwtype} func=0x{card.spec.functions:08x}"
            yield Level.INFO, f"{where} new {kind}card dev {what} created"
        elif event.action == "remove":
            why = "ap not in config any more, rm card and queue devs"
            yield Level.INFO, f"{where} {why}"
        elif event.env.get("CONFIG") in SWITCHED:
            yield Level.INFO, f"{where} card dev config {SWITCHED[event.env['CONFIG']]}"

    def _queue_messages(self, event: Uevent, apid: int, apqi: int) -> Iterator[tuple[Level, str]]:
        where = f"ap_scan_domains({apid},{apqi})"
        card = self._bus().cards.get(apid)
        if event.action == "add" and card is not None and not _synthetic(event):
            bit = 1 << apqi
            kind = _state(not card.deconfigured & bit, bool(card.checkstopped & bit))
            yield Level.INFO, f"{where} new {kind}queue dev created"
        elif event.action == "remove" and card is not None:
            yield Level.INFO, f"{where} not in config anymore, rm queue dev"
        elif event.env.get("CONFIG") in SWITCHED:
            yield Level.DEBUG, f"{where} queue dev config {SWITCHED[event.env['CONFIG']]}"


def _synthetic(event: Uevent) -> bool:
    return "SYNTH_UUID" in event.env


def _state(config: bool, checkstop: bool) -> str:
    return "" if config and not checkstop else "(chkstop) " if config else "(decfg) "


def _bus_messages(event: Uevent) -> Iterator[tuple[Level, str]]:
    if "INITSCAN" in event.env:
        yield Level.DEBUG, "ap_scan_bus init scan complete"
    elif event.env.get("COMPLETECOUNT") == "1":
        yield Level.INFO, "ap_check_bindings_complete complete"


def _node_messages(event: Uevent) -> Iterator[tuple[Level, str]]:
    if _synthetic(event):
        return
    number = f"{event.env.get('MAJOR')}:{event.env.get('MINOR')}"
    if event.action == "add":
        yield Level.INFO, f"zcdn_create created zcdn device {number}"
    elif event.action == "remove":
        yield Level.INFO, f"zcdn_device_release releasing zcdn device {number}"
