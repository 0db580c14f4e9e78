"""A VM that is gone is freed at once, not by a collection, which may come late under load."""

from __future__ import annotations

import gc

import pytest

from fakesys.machine.machine import Machine
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.vm import Vcpu, Vm
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

CONTROL = "sys/kernel/debug/fakesys/kvm"
CTL, PRESET = f"{CONTROL}/ctl", f"{CONTROL}/preset"
COMMANDS = (
    "vm create g",
    "g vcpu add count=4",
    "g slot 0 gpa=0 size=64M",
    "g vcpu 0 access w 0x1000 n=100",
    "vm destroy g",
)
PARTS = (Vm, Vcpu, VmMemory, MmuArch, ApicVm)


def living() -> list[str]:
    """The types of what there is of VMs, with their number."""
    return sorted(type(each).__name__ for each in gc.get_objects() if isinstance(each, PARTS))


@pytest.mark.parametrize("profile", ["seed", "6.1", "6.12", "6.18"])
def test_a_destroyed_vm_leaves_nothing_to_collect(profile: str) -> None:
    machine = Machine(profile)
    # What the other tests have left would only take time.
    gc.freeze()
    gc.disable()
    before = living()
    try:
        for command in COMMANDS:
            machine.write(CTL, command)
            assert command == COMMANDS[-1] or living() != before
        machine.write(PRESET, "linux-boot vcpus=4 name=boot")
        machine.write(CTL, "vm destroy boot")
        assert living() == before
    finally:
        gc.enable()
        gc.unfreeze()
