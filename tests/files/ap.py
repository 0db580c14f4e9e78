"""Paths and short calls for the tests of the AP part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.tree.node import Directory, Symlink

KERNELS = ("v6", "6.1", "6.12")
PROFILES = {"v6": "seed", "6.1": "6.1", "6.12": "6.12"}

BUS = "sys/bus/ap"
ROOT = "sys/devices/ap"
MATRIX = "sys/devices/vfio_ap/matrix"
TYPE = f"{MATRIX}/mdev_supported_types/vfio_ap-passthrough"
CONTROL = "sys/kernel/debug/fakesys/ap"
FAULTS = "sys/kernel/debug/fakesys/faults"
U1 = "10000000-0000-4000-8000-000000000001"
U2 = "20000000-0000-4000-8000-000000000002"
U3 = "30000000-0000-4000-8000-000000000003"

every_kernel = pytest.mark.parametrize("kernel", KERNELS)
merged_kernels = pytest.mark.parametrize("kernel", KERNELS[1:])


def machine_of(kernel: str = "v6", scenario: str = "default") -> Machine:
    """A machine whose AP part behaves as this kernel."""
    return Machine(PROFILES[kernel], scenario)


def refusal(machine: Machine, path: str, text: str | None = None) -> str:
    """The errno of a refused write (or read, without a text) by name; "" when it succeeds."""
    try:
        if text is None:
            machine.read(path)
        else:
            machine.write(path, text)
    except KernelError as refused:
        return refused.name
    return ""


def refused(machine: Machine, path: str, text: str) -> str:
    """The errno of a write that must change nothing, but that drivers may have messages on."""
    before = _without_messages(machine)
    name = refusal(machine, path, text)
    assert name, f"{text!r} was accepted by {path}"
    assert _without_messages(machine) == before
    return name


def _without_messages(machine: Machine) -> dict[str, Any]:
    state = machine.subsystems.ap.system.state()
    del state["debug"]
    return state


def link(machine: Machine, path: str) -> str:
    """The text of a symbolic link."""
    node = machine.fs.resolve(path, follow=False)
    assert isinstance(node, Symlink)
    return node.target


def exists(machine: Machine, path: str) -> bool:
    """Is there anything at this path?"""
    try:
        machine.fs.resolve(path, follow=False)
    except KernelError:
        return False
    return True


def tree(machine: Machine, path: str) -> Iterable[str]:
    """Every name below a path with its mode or link text, sorted by path."""
    node = machine.fs.resolve(path)
    assert isinstance(node, Directory)
    for name in sorted(node.names()):
        child = node.lookup(name)
        assert child is not None
        if isinstance(child, Symlink):
            yield f"{path}/{name} -> {child.target}"
        else:
            kind = "d" if isinstance(child, Directory) else "-"
            yield f"{path}/{name} {kind}{child.mode & 0o7777:04o}"
        if isinstance(child, Directory):
            yield from tree(machine, f"{path}/{name}")


def free_all(machine: Machine) -> None:
    """All four domains of the default machine go to vfio_ap."""
    machine.write(f"{BUS}/aqmask", "-4,-0x47,-0xab,-0xff\n")


def new_mdev(machine: Machine, uuid: str = U1, adapters: str = "", domains: str = "") -> str:
    """A mediated device with these numbers assigned; its directory."""
    machine.write(f"{TYPE}/create", uuid)
    path = f"{MATRIX}/{uuid}"
    for number in adapters.split():
        machine.write(f"{path}/assign_adapter", number)
    for number in domains.split():
        machine.write(f"{path}/assign_domain", number)
    return path


def new_guest(machine: Machine, name: str, uuid: str | None = None, options: str = "") -> str:
    """A guest, with a mediated device attached if one is named; its directory."""
    machine.write(f"{CONTROL}/new_guest", f"{name} {options}\n")
    path = f"{CONTROL}/guests/{name}"
    if uuid:
        machine.write(f"{path}/attach", f"{uuid}\n")
    return path


def complaints(machine: Machine) -> list[str]:
    """The log without the lines that tell of parents and groups coming and going."""
    lines = machine.read("sys/kernel/debug/fakesys/log").splitlines()
    return [line for line in lines if "MDEV: " not in line and " iommu group " not in line]


def uevents(machine: Machine) -> list[str]:
    """One line per uevent so far: action, path, and the fields after SUBSYSTEM."""
    found = []
    for record in machine.read(f"{CONTROL}/uevents").split("\n\n"):
        fields = [line.split("=", 1) for line in record.splitlines()]
        if not fields:
            continue
        named = dict(fields)
        rest = [f"{k}={v}" for k, v in fields if k not in ("ACTION", "DEVPATH", "SEQNUM")]
        found.append(" ".join((named["ACTION"], named["DEVPATH"], *rest)))
    return found
