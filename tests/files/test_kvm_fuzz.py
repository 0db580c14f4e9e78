"""Random commands in the grammar of `kvm/ctl`: no internal error, a refusal changes nothing."""

from __future__ import annotations

import os
import random
import re

import pytest

from fakesys.core.errors import Blocked, KernelError
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.machine.machine import Machine
from fakesys.tree.node import Directory, File

KVM = "sys/kernel/debug/fakesys/kvm"
COUNTERS = "sys/kernel/debug/kvm"
TRACING = "sys/kernel/tracing"
COMMANDS = int(os.environ.get("FAKESYS_FUZZ_COMMANDS", "200"))

NUMBERS = ("0", "1", "2", "3", "5", "8", "31", "48", "63", "64", "255", "256", "511", "4096", "-1")
HUGE = ("0xffffffff", "0x100000000", "0xffffffffffffffff", "0x10000000000000000", "x", "", "1T")
SIZES = ("0", "4096", "8192", "2M", "4M", "64M", "4095", "1G", "0x200000")
ADDRESSES = ("0", "0x1000", "0x10000", "0x200000", "0x3e00000", "0xfee00000", "0xfee000b0", "1G")
ITEMS = ("r=0x2000", "w=0x3000", "x=0x1000", "w64=0x20000,0", "rloop=0x40000,4", "wloop=0,3,8192")
VALUES: dict[str, tuple[str, ...]] = {
    "VM": ("a", "b", "a", "a", "nobody"),
    "NAME": ("a", "b", "vm", "../x"),
    "K": ("0", "1", "2", "3", "9"),
    "MEM": ("ram", "low", "none"),
    "SLOT": ("0", "1", "2", "509", "32763", "0x10000"),
    "mem": ("ram", "low", "none"),
    "slot": ("0", "1", "7"),
    "size": SIZES,
    "ws": SIZES,
    "gpa": ADDRESSES,
    "ADDR": (*ADDRESSES, "off", "x2apic"),
    "ADDR|off|x2apic": ("off", "x2apic", "0xfee00000", "0xfed00000"),
    "off": ("0", "0x1000", "2M", "1"),
    "ua": ("0x7f0000000000", "0x1001"),
    "hex": ("00", "f4", "0f0b", "zz", "90" * 64),
    "flags": ("0", "1", "2", "log_dirty", "readonly", "log_dirty,readonly", "64", "what"),
    "irqchip": ("kernel", "split", "none", "half"),
    "flow": ("zap_all", "fast", "slow"),
    "max_rounds": ("50",),
    "max_time": ("1",),
    "vcpus": ("0", "1", "2", "4"),
    "count": ("1", "2", "3", "5000"),
    "prot": ("r", "rw", "w"),
    "large": ("0", "1,2", "x"),
    "ITEM...": ITEMS,
    "VALUE": ("0x10000", "0x10018", "0"),
    "OFF": ("0x20", "0x80", "0xb0", "0xd0", "0xe0", "0x300", "0x350", "0x380", "0x390", "0x1"),
    "VAL": ("0", "0x700", "0x10000", "0x02000000", "0xffffffff", "1"),
    "MASK": ("0", "1", "128", "0xffffffffffffffff"),
    "mode": ("phys", "logical", "remapped"),
    "sh": ("none", "self", "all", "others", "both"),
    "dm": ("fixed", "lowest", "nmi", "init", "init-deassert", "sipi", "extint"),
    "trig": ("edge", "level", "slope"),
    "status": ("status",),
    "D": ("nic", "disk"),
    "name": ("a", "b", "c"),
    "n": ("0", "1", "2", "32", "300"),
    "pid": ("1", "4711"),
    "fd": ("10", "11", "-1"),
}


class Speaker:
    """Makes commands out of the usage lines of `help`, with values that mostly fit."""

    def __init__(self, usages: list[str], seed: int) -> None:
        self._usages = usages
        self._chance = random.Random(seed)

    def command(self) -> str:
        """One command."""
        words = [self._word(part) for part in self._chance.choice(self._usages).split()]
        if self._chance.random() < 0.02:
            self._chance.shuffle(words)
        return " ".join(word for word in words if word is not None)

    def _word(self, part: str) -> str | None:
        chance = self._chance
        optional = part.startswith("[")
        if optional and chance.random() < 0.5:
            return None
        name = part.strip("[]")
        if name.endswith("="):
            return name + self._value(name[:-1])
        if name == "status" or name in VALUES or name.isupper():
            return self._value(name)
        return chance.choice(name.split("|"))

    def _value(self, name: str) -> str:
        chance = self._chance
        if chance.random() < 0.05:
            return chance.choice(HUGE)
        return chance.choice(VALUES.get(name, NUMBERS))


def contents(machine: Machine) -> dict[str, str]:
    """The texts of all views and counters."""
    found: dict[str, str] = {}
    for top in (f"{KVM}/vms", COUNTERS):
        _collect(machine, machine.fs.resolve(top), found)
    return found


def _collect(machine: Machine, node: object, found: dict[str, str]) -> None:
    assert isinstance(node, Directory)
    for _, entry in list(node.entries()):
        if isinstance(entry, Directory):
            _collect(machine, entry, found)
        elif isinstance(entry, File) and entry.mode & 0o444:
            try:
                found[entry.path] = machine.read(entry.path)
            except KernelError as refusal:
                found[entry.path] = refusal.name


def usages(machine: Machine) -> list[str]:
    """The commands of ctl; a race of default length would take the test's time."""
    text = machine.read(f"{KVM}/help")
    lines = [line for line in text.splitlines() if not line.startswith(" ")]
    return [re.sub(r"\[(max_\w+=)\]", r"\1", line) for line in lines if "-boot" not in line]


MMU, APICV = MMU_KERNELS.names(), APICV_KERNELS.names()
# Each kernel at least once, and levels without one of their patches.
PAIRS = [
    *(
        (MMU[index % len(MMU)], APICV[index % len(APICV)])
        for index in range(max(len(MMU), len(APICV)))
    ),
    ("series-11-08", "v3-16-11"),
    ("series-11-09", "v3-16-15"),
]


@pytest.mark.parametrize(("mmu", "apicv"), PAIRS, ids=lambda name: name)
def test_random_commands(mmu: str, apicv: str) -> None:
    machine = Machine()
    machine.write(f"{KVM}/mmu_profile", mmu)
    machine.write(f"{KVM}/apicv_profile", apicv)
    speaker = Speaker(usages(machine), seed=len(mmu) + 1000 * len(apicv))
    machine.write(f"{TRACING}/set_event", "kvm:*")
    taken = refused = 0
    for turn in range(COMMANDS):
        if turn % 25 == 0:
            for name in machine.listdir(f"{KVM}/vms"):
                machine.write(f"{KVM}/ctl", f"vm destroy {name}")
            chip = ("kernel", "split", "kernel", "none")[turn // 25 % 4]
            for command in (
                f"vm create a irqchip={chip}",
                "a mem ram size=64M",
                "a slot 0 gpa=0 size=64M mem=ram",
                "a vcpu add count=2",
                "a guest_tables",
                "vm create b",
            ):
                machine.write(f"{KVM}/ctl", command)
        command = speaker.command()
        before = contents(machine) if turn % 4 == 0 else None
        try:
            machine.write(f"{KVM}/ctl", command)
        except (KernelError, Blocked):
            refused += 1
            assert machine.control.bugs == [], command
            if before is not None:
                assert contents(machine) == before, command
            continue
        taken += 1
    assert machine.control.bugs == []
    assert min(taken, refused) > COMMANDS // 20
