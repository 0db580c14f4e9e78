"""A second machine whose KVM was made from what a first one saves."""

from __future__ import annotations

from typing import Any

import msgspec

from fakesys.core.saved import Saved
from fakesys.machine.machine import Machine
from fakesys.subsystems.apicv.saved import apicv as apicv_saved
from fakesys.subsystems.kvm import saved as kvm_saved
from fakesys.subsystems.kvm.vcpu_run import saved as runs_saved
from fakesys.subsystems.kvm_mmu.saved import mmu as mmu_saved
from fakesys.subsystems.kvm_module import saved as module_saved
from fakesys.tree.node import Directory
from tests.whole_machine import CONTROL, below

CHOICES = tuple(f"{CONTROL}/kvm/{name}_profile" for name in ("mmu", "apicv"))
SHOWN = ("sys/kernel/debug/kvm", f"{CONTROL}/kvm", "sys/module/kvm", "sys/module/kvm_amd")


class Document(Saved, frozen=True):
    """KVM as a snapshot has it."""

    kvm: kvm_saved.SavedKvm
    runs: runs_saved.SavedRuns
    memory: mmu_saved.SavedMmu
    interrupts: apicv_saved.SavedApicv
    module: module_saved.SavedModule


def document(machine: Machine) -> Document:
    """What a machine saves of its KVM."""
    models = machine.subsystems.kvm
    return Document(
        kvm=kvm_saved.save(models.kvm),
        runs=runs_saved.save(models.runs),
        memory=mmu_saved.save(models.memory),
        interrupts=apicv_saved.save(models.apicv),
        module=module_saved.save(models.apicv),
    )


def encoded(machine: Machine) -> bytes:
    """The same as the bytes of a file."""
    return msgspec.json.encode(document(machine))


def fresh(machine: Machine) -> Machine:
    """A machine of the same kernels at the same time, without VMs."""
    copy = Machine(machine.profile_name, "empty")
    for path in CHOICES:
        names = machine.read(path).split()
        copy.write(path, next(name for name in names if name.startswith("[")).strip("[]"))
    copy.clock.restore(machine.clock.saved())
    return copy


def restore(data: bytes, copy: Machine) -> None:
    """Fill a machine without VMs. Raises BadSnapshotError, msgspec.ValidationError."""
    found = msgspec.json.decode(data, type=Document)
    models = copy.subsystems.kvm
    kvm_saved.restore(found.kvm, models.kvm)
    runs_saved.restore(found.runs, models.runs)
    mmu_saved.restore(found.memory, models.memory)
    apicv_saved.restore(found.interrupts, models.apicv)
    module_saved.restore(found.module, models.apicv)
    models.kvm.drop_unheld()
    copy.rebind()


def copied(machine: Machine) -> Machine:
    """A machine whose KVM is that of another one."""
    copy = fresh(machine)
    restore(encoded(machine), copy)
    return copy


def shown(machine: Machine) -> dict[str, object]:
    """Every file of KVM."""
    found: dict[str, object] = {}
    for path in SHOWN:
        directory = machine.fs.resolve(path)
        assert isinstance(directory, Directory)
        found.update(below(machine, directory))
    return found


def differing(one: Machine, other: Machine) -> list[tuple[str, object, object]]:
    """Path and both texts of each file of KVM that reads differently."""
    left, right = shown(one), shown(other)
    names = sorted(left.keys() | right.keys())
    return [
        (name, left.get(name), right.get(name))
        for name in names
        if left.get(name) != right.get(name)
    ]


def plain(data: bytes) -> Any:
    """A document as JSON has it."""
    return msgspec.json.decode(data)
