"""The worked example as a table of shell commands and what they print, for three kernels.

Guest 1: cards 5 and 6 with domains 4 and 0xab. Guest 2: card 5 with 0x47 and 0xff. Guest 3:
card 6 with 0x47 and 0xff. The same table runs in process and through a real bash on the mount.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

KERNELS = ("v6", "6.1", "6.12")

VARIABLES: dict[str, str] = {
    "A": "sys/bus/ap",
    "X": "sys/devices/vfio_ap/matrix",
    "T": "sys/devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough",
    "F": "sys/kernel/debug/fakesys/ap",
    "U1": "10000000-0000-4000-8000-000000000001",
    "U2": "20000000-0000-4000-8000-000000000002",
    "U3": "30000000-0000-4000-8000-000000000003",
}

OK = ""
NO_DEVICE = "No such device"
IN_USE = "Address already in use"
BUSY = "Device or resource busy"
REFUSALS = (NO_DEVICE, IN_USE, BUSY)


class Step(NamedTuple):
    """A command, and its output or refusal: one for all kernels, or one for each."""

    command: str
    result: str | Mapping[str, str]

    def expected(self, kernel: str) -> str:
        """What this kernel answers."""
        return self.result if isinstance(self.result, str) else self.result[kernel]


def lines(*words: str) -> str:
    """The words, each on its line."""
    return "".join(f"{word}\n" for word in words)


def v6_else(v6: str, merged: str) -> dict[str, str]:
    """One answer of the series, another one of what was merged."""
    return {"v6": v6, "6.1": merged, "6.12": merged}


QUEUES = [
    f"{card}.{domain}" for card in ("04", "05", "06") for domain in ("0004", "0047", "00ab", "00ff")
]
GUEST_1 = lines("05.0004", "05.00ab", "06.0004", "06.00ab")

STEPS: tuple[Step, ...] = (
    Step("cat $A/bindings", lines("12/12 (complete)")),
    Step(
        "cat $A/ap_usage_domain_mask",
        lines("0x0800000000000000010000000000000000000000001000000000000000000001"),
    ),
    Step("echo -4,-0x47,-0xab,-0xff > $A/aqmask", OK),
    Step(
        "cat $A/aqmask",
        lines("0xf7fffffffffffffffeffffffffffffffffffffffffeffffffffffffffffffffe"),
    ),
    Step(
        "ls $A/drivers/vfio_ap",
        v6_else(
            lines(*QUEUES, "module", "uevent"), lines(*QUEUES, "bind", "module", "uevent", "unbind")
        ),
    ),
    Step("cat $A/devices/05.0004/status", lines("unassigned")),
    Step("cat $T/available_instances", lines("65536")),
    Step("echo $U1 > $T/create", OK),
    Step("echo $U2 > $T/create", OK),
    Step("echo $U3 > $T/create", OK),
    Step("cat $T/available_instances", lines("65533")),
    Step("echo 5 > $X/$U1/assign_adapter", OK),
    Step("cat $X/$U1/matrix", lines("05.")),
    Step("echo 6 > $X/$U1/assign_adapter", OK),
    Step("echo 4 > $X/$U1/assign_domain", OK),
    Step("echo 0xab > $X/$U1/assign_domain", OK),
    Step("cat $X/$U1/matrix", GUEST_1),
    Step("cat $X/$U1/guest_matrix", v6_else(NO_DEVICE, GUEST_1)),
    Step("echo 5 > $X/$U2/assign_adapter", OK),
    Step("echo 0x47 > $X/$U2/assign_domain", OK),
    Step("echo 0xff > $X/$U2/assign_domain", OK),
    Step("echo 6 > $X/$U3/assign_adapter", OK),
    Step("echo 0x47 > $X/$U3/assign_domain", OK),
    Step("echo 0xff > $X/$U3/assign_domain", OK),
    Step("cat $A/devices/05.0004/status", lines("assigned")),
    Step("echo guest1 > $F/new_guest", OK),
    Step("echo guest2 > $F/new_guest", OK),
    Step("echo guest3 > $F/new_guest", OK),
    Step("echo $U1 > $F/guests/guest1/attach", OK),
    Step("echo $U2 > $F/guests/guest2/attach", OK),
    Step("echo $U3 > $F/guests/guest3/attach", OK),
    Step("cat $X/$U1/guest_matrix", GUEST_1),
    Step("cat $A/devices/05.0004/status", lines("in use")),
    Step(
        "cat $F/guests/guest1/apm",
        lines("0x0600000000000000000000000000000000000000000000000000000000000000"),
    ),
    Step(
        "cat $F/guests/guest1/aqm",
        lines("0x0800000000000000000000000000000000000000001000000000000000000000"),
    ),
    Step(
        "cat $F/guests/guest2/devices",
        lines("05 CEX5C CCA-Coproc", "05.0047 CEX5C CCA-Coproc", "05.00ff CEX5C CCA-Coproc"),
    ),
    Step("echo 4 > $X/$U2/assign_domain", IN_USE),
    Step("echo +4 > $A/aqmask", v6_else(IN_USE, BUSY)),
    Step("echo +1 > $A/aqmask", OK),
    Step("echo ebusy > $F/remove_policy", OK),
    Step("echo 1 > $X/$U1/remove", BUSY),
    Step("echo 0xab > $X/$U1/unassign_domain", OK),
    Step("cat $X/$U1/guest_matrix", lines("05.0004", "06.0004")),
    Step("echo 7 > $X/$U1/assign_adapter", OK),
    Step("cat $X/$U1/matrix", lines("05.0004", "06.0004", "07.0004")),
    Step("cat $X/$U1/guest_matrix", lines("05.0004", "06.0004")),
    Step("echo 7 CEX6 cca > $F/new_card", OK),
    Step("cat $X/$U1/guest_matrix", lines("05.0004", "06.0004", "07.0004")),
    Step("echo 0 > $A/devices/card05/config", OK),
    Step(
        "cat $X/$U1/guest_matrix",
        v6_else(lines("06.0004", "07.0004"), lines("05.0004", "06.0004", "07.0004")),
    ),
    Step(
        "cat $X/$U2/guest_matrix",
        v6_else(lines(".0047", ".00ff"), lines("05.0047", "05.00ff")),
    ),
    Step("cat $F/guests/guest2/devices", ""),
    Step("echo 1 > $A/devices/card05/config", OK),
    Step("cat $X/$U2/guest_matrix", lines("05.0047", "05.00ff")),
    Step("echo guest1 > $F/del_guest", OK),
    Step(
        "cat $X/$U1/guest_matrix",
        v6_else(NO_DEVICE, lines("05.0004", "06.0004", "07.0004")),
    ),
    Step("echo 1 > $X/$U1/remove", OK),
    Step("cat $T/available_instances", lines("65534")),
    Step("echo +4 > $A/aqmask", OK),
    Step(
        "ls $A/drivers/cex4queue",
        lines("04.0004", "05.0004", "06.0004", "07.0004", "bind", "module", "uevent", "unbind"),
    ),
    Step(
        "cat $F/guests/guest3/devices",
        lines("06 CEX5A Accelerator", "06.0047 CEX5A Accelerator", "06.00ff CEX5A Accelerator"),
    ),
)
