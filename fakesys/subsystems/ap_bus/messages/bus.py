"""The messages of ap_bus.c and ap_queue.c."""

from __future__ import annotations

from collections.abc import Mapping

from fakesys.core.text import ids
from fakesys.subsystems.s390dbf.model import DebugFeatures, Level

_SWITCHED = {False: "off", True: "on"}


class BusMessages:
    """What the bus says; masks are domains of one adapter."""

    def __init__(self, features: DebugFeatures) -> None:
        self._features = features

    def rescan_forced(self) -> None:
        """Say that a user wants a scan (ap_bus.c:scans_store)."""
        self._info("scans_store force AP bus rescan")

    def config_changed(self) -> None:
        """Say that the machine has notified the bus (ap_bus.c:ap_bus_cfg_chg)."""
        self._debug("ap_bus_cfg_chg config change, forcing bus rescan")

    def scanning(self) -> None:
        """Say that a scan begins (ap_bus.c:ap_scan_bus)."""
        self._debug("ap_scan_bus running")

    def no_default_queue(self, domain: int) -> None:
        """Say that no queue has the default domain, at the end of a scan."""
        self._info(f"ap_scan_bus no queue device with default domain {domain} available")

    def first_scan_done(self) -> None:
        """Say that the first scan is over."""
        self._debug("ap_scan_bus init scan complete")

    def bindings_complete(self) -> None:
        """Say that all queues have a driver for the first time."""
        if self._features.policy.debug_messages:
            self._info("ap_check_bindings_complete complete")

    def domain_selected(self, domain: int) -> None:
        """Say that the bus chose a default domain (ap_bus.c:ap_select_domain)."""
        self._info(f"ap_select_domain new default domain is {domain}")

    def domain_stored(self, domain: int) -> None:
        """Say that a user chose a default domain (ap_bus.c:ap_domain_store)."""
        self._info(f"ap_domain_store stored new default domain={domain}")

    def reprobing(self, apid: int, mask: int) -> None:
        """Say that queues are offered to other drivers (ap_bus.c:__ap_revise_reserved)."""
        for apqi in ids(mask) if self.wants_debug else ():
            self._debug(f"__ap_revise_reserved reprobing queue={apid:02x}.{apqi:04x}")

    def adapter_ignored(self, apid: int) -> None:
        """Say that no queue of an adapter answers, which has no card device."""
        self._adapter_debug(apid, "no type info (no APQN found), ignored")

    def adapter_removed(self, apid: int) -> None:
        """Say that a card device goes because the machine took the adapter away."""
        self._adapter(apid, "ap not in config any more, rm card and queue devs")

    def no_queue_found(self, apid: int) -> None:
        """Say that a card device goes because no queue of it answers."""
        self._adapter(apid, "no type info (no APQN found), rm card and queue devs")

    def type_changed(self, apid: int, kind: int) -> None:
        """Say that a card device goes because there is a card of another type now."""
        self._adapter(apid, f"hwtype {kind} changed, rm card and queue devs")

    def functions_changed(self, apid: int, kind: int, functions: int) -> None:
        """Say that a card device goes because the card has other functions now.

        The message of 6.1 gives the type in their place.
        """
        shown = kind if self._features.policy.debug_messages else functions
        self._adapter(apid, f"functions 0x{shown:08x} changed, rm card and queue devs")

    def unsupported_type(self, apid: int, apqi: int, kind: int) -> None:
        """Say that a card is too old for a device (ap_bus.c:ap_get_compatible_type)."""
        where = f"queue={apid:02x}.{apqi:04x}"
        self._warn(f"ap_get_compatible_type {where} unsupported type {kind}")
        self._warn(f"ap_scan_adapter({apid}) type {kind}, can't get compatibility type")

    def type_mapped(self, apid: int, apqi: int, kind: int, known: int) -> None:
        """Say that a card counts as one of another type (ap_bus.c:ap_get_compatible_type)."""
        where = f"queue={apid:02x}.{apqi:04x}"
        self._info(f"ap_get_compatible_type {where} map type {kind} to {known}")

    def card_created(
        self, apid: int, kind: int, functions: int, *, config: bool, chkstop: bool
    ) -> None:
        """Say that there is a new card device."""
        state = _state(config=config, chkstop=chkstop)
        what = f"type={kind} func=0x{functions:08x}"
        self._adapter(apid, f"new {state}card dev {what} created")

    def card_stopped(self, apid: int, *, stopped: bool) -> None:
        """Say that the checkstop of a card changed."""
        self._adapter(apid, f"card dev checkstop {_SWITCHED[stopped]}")

    def card_configured(self, apid: int, *, config: bool) -> None:
        """Say that the machine configured a card on or off."""
        self._adapter(apid, f"card dev config {_SWITCHED[config]}")

    def queues_created(self, apid: int, mask: int, *, config: bool, chkstop: bool) -> None:
        """Say that there are new queue devices in this state."""
        kind = _state(config=config, chkstop=chkstop)
        self._queues(Level.INFO, apid, mask, f"new {kind}queue dev created")

    def queues_removed(self, apid: int, mask: int) -> None:
        """Say that queue devices go because the machine took their domains away."""
        self._queues(Level.INFO, apid, mask, "not in config anymore, rm queue dev")

    def queues_lost(self, apid: int, mask: int) -> None:
        """Say that queue devices go because they do not answer."""
        self._queues(Level.INFO, apid, mask, "queue_info() failed, rm queue dev")

    def queues_stopped(self, apid: int, mask: int, *, stopped: bool) -> None:
        """Say that the checkstop of queues changed."""
        self._queues(Level.DEBUG, apid, mask, f"queue dev checkstop {_SWITCHED[stopped]}")

    def queues_configured(self, apid: int, mask: int, *, config: bool) -> None:
        """Say that queues were configured on or off."""
        self._queues(Level.DEBUG, apid, mask, f"queue dev config {_SWITCHED[config]}")

    def queues_initiated_again(self, apid: int, mask: int) -> None:
        """Say that queues in error begin again."""
        self._queues(Level.INFO, apid, mask, "queue dev reinit enforced")

    def queue_reset(self, apid: int, apqi: int) -> None:
        """Say that a user resets a queue (ap_queue.c:reset_store)."""
        self._info(f"reset_store reset queue={apid:02x}.{apqi:04x} triggered by user")

    def failed(self, function: str, apid: int, mask: int, answers: Mapping[int, int]) -> None:
        """Say that these queues are in error; `function`: of ap_queue.c, which saw the answer."""
        if not mask or not self._features.wants("ap", Level.WARN):
            return
        for apqi in ids(mask):
            rc = next(rc for rc, queues in answers.items() if queues >> apqi & 1)
            what = f"RC 0x{rc:02x} on 0x{apid:02x}.{apqi:04x} -> AP_DEV_STATE_ERROR"
            self._warn(f"{function} {what}")

    @property
    def wants_debug(self) -> bool:
        """Whether messages of the level DEBUG are kept."""
        return self._features.wants("ap", Level.DEBUG)

    def _warn(self, text: str) -> None:
        self._features.write("ap", Level.WARN, text)

    def _info(self, text: str) -> None:
        self._features.write("ap", Level.INFO, text)

    def _debug(self, text: str) -> None:
        self._features.write("ap", Level.DEBUG, text)

    def _adapter(self, apid: int, text: str) -> None:
        self._info(f"ap_scan_adapter({apid}) {text}")

    def _adapter_debug(self, apid: int, text: str) -> None:
        self._debug(f"ap_scan_adapter({apid}) {text}")

    def _queues(self, level: Level, apid: int, mask: int, text: str) -> None:
        if self._features.wants("ap", level):
            for apqi in ids(mask):
                self._features.write("ap", level, f"ap_scan_domains({apid},{apqi}) {text}")


def _state(*, config: bool, chkstop: bool) -> str:
    return "" if config and not chkstop else "(chkstop) " if config else "(decfg) "
