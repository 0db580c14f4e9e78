"""The files of a queue: /sys/devices/ap/cardXX/XX.YYYY.

Source: ap_queue.c, zcrypt_queue.c, zcrypt_cex4.c (v6.1).
"""

from __future__ import annotations

from errno import EINVAL, ENODEV

from fakesys.core.devices import Devices
from fakesys.subsystems.ap_bus.files.card_info import Info, queue_rows
from fakesys.subsystems.ap_bus.files.modules import anything, switch
from fakesys.subsystems.ap_bus.policy import ApFeature
from fakesys.subsystems.ap_bus.queue import ApQueue
from fakesys.subsystems.driver_core.files import device_rows
from fakesys.tree.attr import Attr, Layout, Row


def _request_count(queue: ApQueue) -> str:
    count = queue.request_count
    return "-\n" if count is None else f"{count}\n"


def _reset_state(queue: ApQueue) -> str:
    if queue.resetting:
        return "Reset in progress.\n"
    return "Reset Timer armed.\n" if queue.waiting else "No Reset Timer set.\n"


def _interrupt(queue: ApQueue) -> str:
    if queue.enabling:
        return "Enable Interrupt pending.\n"
    return f"Interrupts {'enabled' if queue.interrupts else 'disabled'}.\n"


def _host(queue: ApQueue) -> bool:
    return queue.is_host


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
        show=_interrupt,
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
)


def queue_layout(devices: Devices, info: Info, rows: tuple[Row, ...]) -> Layout[ApQueue]:
    """Return a queue's directory.

    `info`: what asks cards. `rows`: what other drivers add while they have the queue.
    """
    own = (*QUEUE, *ZCRYPT_QUEUE, *queue_rows(info))
    return Layout((*own, *rows, *device_rows(devices, power=False)))
