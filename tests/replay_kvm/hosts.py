"""Recordings of ordinary hosts, and the machines that each mode of them is replayed on."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fakesys.machine.machine import Machine
from tests.replay_kvm.machines import KVM, InProcess, Recorder

HOSTS = Path(__file__).parent.parent / "oracle" / "kvm-hosts"
MODULE = "sys/module/kvm/parameters"


class Mode(NamedTuple):
    """How a host of one kernel runs KVM. `loaded`: parameters given when the modules are loaded.

    `written`: files below `sys/module/kvm/parameters` that are written then.
    """

    profile: str
    loaded: str
    written: tuple[tuple[str, str], ...] = ()


# QEMU's processor, whose AVIC is off.
MODES = {
    "6.1-tdp": Mode("6.1", "npt=1"),
    "6.1-tdpoff": Mode("6.1", "npt=1", (("tdp_mmu", "N"),)),
    "6.1-shadow": Mode("6.1", "npt=0"),
    "6.1-shadow-nommio": Mode("6.1", "npt=0"),
    "6.1-tdp-nx": Mode("6.1", "npt=1", (("nx_huge_pages", "force"),)),
    "6.12-tdp": Mode("6.12", "npt=1"),
    "6.12-shadow": Mode("6.12", "npt=0"),
}


def scenarios(mode: str) -> dict[str, dict[str, Any]]:
    """Return the recordings of a mode by name."""
    packed = (HOSTS / f"scenarios-{mode}.json.xz").read_bytes()
    found = json.loads(lzma.decompress(packed))
    return {scenario["scenario"]: scenario for scenario in found}


@contextmanager
def host(mode: str) -> Iterator[tuple[InProcess, Recorder]]:
    """A machine of its own that runs KVM as the hosts of this mode do."""
    settings = MODES[mode]
    machine = Machine(settings.profile, "empty")
    files = InProcess(machine)
    files.write(f"{KVM}/params/processor", "qemu\n")
    files.write(f"{KVM}/params/mmio_caching", "0\n" if mode.endswith("nommio") else "1\n")
    files.write(f"{KVM}/ctl", f"modprobe avic=0 {settings.loaded}\n")
    for name, value in settings.written:
        files.write(f"{MODULE}/{name}", f"{value}\n")
    yield files, Recorder(machine)
