"""The state of a mount as JSON values by key, read from its files."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.subsystems.apicv.state.inhibit_reasons import Numbers
from fakesys.view.streams import shown

CONTROL = "sys/kernel/debug/fakesys"
# What the reasons mean to someone who has not read the kernel.
WORDS = {
    "DISABLED": "switched off by the module or the irqchip",
    "HYPERV": "Hyper-V's synthetic interrupts with AutoEOI",
    "ABSENT": "no local APIC in the kernel",
    "BLOCKIRQ": "a debugger blocks interrupts",
    "PHYSICAL_ID_ALIASED": "two vCPUs have one physical APIC id",
    "APIC_ID_MODIFIED": "the guest changed an APIC id",
    "APIC_BASE_MODIFIED": "the guest moved its APIC",
    "NESTED": "a nested guest",
    "IRQWIN": "waiting for an interrupt window",
    "PIT_REINJ": "the PIT reinjects lost ticks",
    "SEV": "an encrypted guest",
    "LOGICAL_ID_ALIASED": "logical APIC ids are not unique",
    "PHYSICAL_ID_TOO_BIG": "an APIC id is too large",
}

Values = dict[str, Any]


def text_of(path: Path) -> str:
    """Return the text of a file. Raises OSError."""
    return path.read_bytes().decode("utf-8", "backslashreplace")


def head(root: Path) -> Values:
    """Return what the whole page is about. Raises OSError when this is no mount."""
    control = root / CONTROL
    profile = text_of(control / "profile")
    return {
        "mount/point": shown(os.fsencode(root)),
        "mount/version": text_of(control / "version").strip(),
        "mount/profile": _chosen(profile),
        "mount/bugs": text_of(control / "bugs").split("\n", 1)[0],
        "mount/last_error": shown((control / "last_error").read_bytes()),
        "mount/rate": text_of(control / "clock/rate").strip(),
    }


def ap(root: Path) -> Values:
    """Return the AP part: masks, cards, who has which queue, mediated devices and guests."""
    try:
        state = json.loads((root / CONTROL / "ap/state").read_bytes())
    except FileNotFoundError:
        return {}
    bus, vfio = state["bus"], state["vfio_ap"]
    hardware = state["hardware"]["cards"]
    found: Values = {
        "ap/masks": {"apmask": bus["apmask"], "aqmask": bus["aqmask"]},
        "ap/drivers": bus["drivers"],
        "ap/loaded": vfio["loaded"],
    }
    for apid, card in bus["cards"].items():
        kept = ("config", "chkstop", "queues", "checkstopped", "deconfigured", "offline", "driver")
        installed = hardware.get(apid, {})
        found[f"ap/card/{apid}"] = {
            **{name: card.get(name) for name in kept},
            "online": card.get("soft_online"),
            "type": f"CEX{installed['type'] - 6}" if "type" in installed else "",
            "mode": installed.get("mode", ""),
        }
    for uuid, mdev in vfio["mdevs"].items():
        parts = ("guest", "guest_masks", "matrix")
        found[f"ap/mdev/{uuid}"] = {name: mdev[name] for name in parts}
    for name, guest in state["guests"].items():
        found[f"ap/guest/{name}"] = guest
    return found


def kvm(root: Path) -> Values:
    """Return the VMs and the counters of all of them together."""
    control, debug = root / CONTROL / "kvm", root / "sys/kernel/debug/kvm"
    try:
        names = sorted(os.listdir(control / "vms"))
        profile = _chosen(text_of(control / "apicv_profile"))
    except FileNotFoundError:
        return {}
    numbers = APICV_KERNELS[profile].policy.numbers
    found: Values = {}
    for name in names:
        # It may be destroyed meanwhile.
        with suppress(FileNotFoundError, NotADirectoryError):
            found[f"kvm/vm/{name}"] = _vm(control / "vms" / name, numbers)
    if names:
        with suppress(FileNotFoundError):
            found["kvm/counters"] = dict(_counters(debug))
    return found


def _vm(folder: Path, numbers: Numbers) -> Values:
    state = _pairs(text_of(folder / "state"))
    bits = int(state.get("inhibits", "0"), 0)
    vcpus, counters = [], Counter[str]()
    for name in sorted(os.listdir(folder), key=lambda n: (len(n), n)):
        if name.startswith("vcpu"):
            first, *rest = text_of(folder / name).split("\n")
            words = dict(word.split("=", 1) for word in first.split() if "=" in word)
            vcpus.append([name, words.get("run", ""), words.get("apicv_active", "")])
            counters.update({k: int(v) for k, v in _pairs("\n".join(rest)).items() if v.isdigit()})
    names = [
        reason.value
        for reason, bit in sorted(numbers.items(), key=lambda p: p[1])
        if bits >> bit & 1
    ]
    return {
        "apicv": _apicv(state, bits),
        "reasons": [[name, WORDS[name]] for name in names],
        "state": state,
        "vcpus": vcpus,
        "counters": {key: count for key, count in sorted(counters.items()) if count},
        "memslots": text_of(folder / "memslots").splitlines()[:64],
        "mmu": _pairs(text_of(folder / "mmu")),
        "pages": _pages(text_of(folder / "shadow_pages")),
    }


def _apicv(state: dict[str, str], bits: int) -> str:
    """Return the state of APICv in words."""
    said = state.get("apicv_state", "-").split()[-1].lower()
    if said != "-":
        return said
    return "inhibited" if bits else "active"


def _pages(text: str) -> list[list[Any]]:
    """Return how many pages there are of each level and generation, with their flags."""
    counted = Counter[tuple[str, str, str]]()
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 5:
            counted[words[1], words[3], " ".join(words[5:])] += 1
    return [[*key, count] for key, count in sorted(counted.items(), reverse=True)]


def _counters(folder: Path) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.is_dir())
    for name in names:
        with suppress(OSError, ValueError):
            if count := int(text_of(folder / name)):
                yield name, count


def _pairs(text: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def _chosen(text: str) -> str:
    """Return the choice in brackets."""
    return text.partition("[")[2].partition("]")[0]
