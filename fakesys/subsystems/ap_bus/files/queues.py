"""The files of a queue: /sys/devices/ap/cardXX/XX.YYYY.

Source: ap_queue.c, zcrypt_queue.c, zcrypt_cex4.c (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, ENODEV

from fakesys.core.devices import Devices
from fakesys.subsystems.ap_bus.files.modules import anything, switch
from fakesys.subsystems.ap_bus.hardware_spec import CardMode
from fakesys.subsystems.ap_bus.policy import ApFeature
from fakesys.subsystems.ap_bus.queue import ApQueue
from fakesys.subsystems.driver_core.files import device_rows
from fakesys.tree.attr import Attr, Layout, Row

_CCA_KEYS = (("AES", 16), ("APKA", 16), ("ASYM", 32))


def _request_count(queue: ApQueue) -> str:
    count = queue.request_count
    return "-\n" if count is None else f"{count}\n"


def _reset_state(queue: ApQueue) -> str:
    if queue.resetting:
        return "Reset in progress.\n"
    return "Reset Timer armed.\n" if queue.waiting else "No Reset Timer set.\n"


def _pattern(queue: ApQueue, digits: int) -> str:
    # All queues of a card show the same pattern, as if they had the same master key.
    return f"{0x9E3779B97F4A7C15 * (queue.card.apid + 1) % (1 << 64):016x}" * (digits // 16)


def _cca_keys(queue: ApQueue) -> str:
    lines = []
    for key, digits in _CCA_KEYS:
        for register, state in (("NEW", "empty"), ("CUR", "valid"), ("OLD", "invalid")):
            pattern = _pattern(queue, digits) if state == "valid" else "0" * digits
            lines.append(f"{key} {register}: {f'{state} 0x{pattern}' if queue.online else '- -'}\n")
    return "".join(lines)


def _ep11_keys(queue: ApQueue) -> str:
    if not queue.online:
        return "WK CUR: - -\nWK NEW: - -\n"
    return f"WK CUR: valid 0x{_pattern(queue, 64)}\nWK NEW: empty -\n"


def _op_modes(queue: ApQueue) -> str:
    return f"{queue.card.spec.op_modes if queue.online else ''}\n"


def _host(queue: ApQueue) -> bool:
    return queue.is_host


def _host_of_mode(mode: CardMode) -> Callable[[ApQueue], bool]:
    return lambda queue: queue.card.mode is mode and _host(queue)


QUEUE: tuple[Attr[ApQueue], ...] = (
    Attr(
        name="request_count",
        mode=0o644,
        doc="Requests of the host, `-` while it has not initialised the queue; a write sets 0.",
        show=_request_count,
        store=anything(ApQueue.clear_requests),
    ),
    Attr(
        name="requestq_count",
        mode=0o444,
        doc="Requests that wait to be sent.",
        show=lambda queue: f"{queue.waiting}\n",
    ),
    Attr(
        name="pendingq_count",
        mode=0o444,
        doc="Requests that were sent and not answered; answers come at once.",
        show=lambda _queue: "0\n",
    ),
    Attr(
        name="reset",
        mode=0o644,
        doc="State of a reset; any write flushes and resets the queue.",
        show=_reset_state,
        store=anything(ApQueue.reset),
    ),
    Attr(
        name="interrupt",
        mode=0o444,
        doc="Whether interrupts of the queue are on.",
        show=lambda queue: f"Interrupts {'enabled' if queue.interrupts else 'disabled'}.\n",
    ),
    Attr(
        name="config",
        mode=0o444,
        doc="1: configured.",
        show=lambda queue: f"{queue.config:d}\n",
    ),
    Attr(
        name="chkstop",
        mode=0o444,
        doc="1: checkstopped.",
        show=lambda queue: f"{queue.chkstop:d}\n",
    ),
    Attr(
        name="ap_functions",
        mode=0o444,
        doc="Function bits, asked from the queue; 0 when it is not available.",
        show=lambda queue: f"0x{queue.functions():08X}\n",
        needs=ApFeature.QUEUE_FUNCTIONS,
    ),
)

ZCRYPT_QUEUE: tuple[Attr[ApQueue], ...] = (
    Attr(
        name="online",
        mode=0o644,
        doc="1: takes requests of the host; write 0 or 1.",
        show=lambda queue: f"{queue.online:d}\n",
        store=switch(ApQueue.set_online),
        errors={
            ENODEV: "card or queue is configured off (6.12: or checkstopped)",
            EINVAL: "neither 0 nor 1, or the card is offline",
        },
        present=_host,
    ),
    Attr(
        name="load",
        mode=0o444,
        doc="Load that zcrypt sees on the queue.",
        show=lambda queue: f"{queue.waiting}\n",
        present=_host,
    ),
    Attr(
        name="mkvps",
        mode=0o444,
        doc="Master key verification patterns of a CCA queue.",
        show=_cca_keys,
        present=_host_of_mode(CardMode.CCA),
    ),
    Attr(
        name="mkvps",
        mode=0o444,
        doc="Wrapping key verification patterns of an EP11 queue.",
        show=_ep11_keys,
        present=_host_of_mode(CardMode.EP11),
    ),
    Attr(
        name="op_modes",
        mode=0o444,
        doc="Operation modes of an EP11 queue; empty while offline.",
        show=_op_modes,
        present=_host_of_mode(CardMode.EP11),
    ),
)


def queue_layout(devices: Devices, rows: tuple[Row, ...]) -> Layout[ApQueue]:
    """Return a queue's directory. `rows`: what other drivers add while they have the queue."""
    return Layout((*QUEUE, *ZCRYPT_QUEUE, *rows, *device_rows(devices)))
