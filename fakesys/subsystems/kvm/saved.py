"""The register of VMs in a snapshot: VMs, vCPUs, their threads and counters, parameters.

The VMs are in the order of their creation, and so are the vCPUs of each; what memory and interrupts
save of them follows the same order. A VM has no open stat file and no owner that is watched after a
load: both belong to the process that saved it.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

from msgspec import Meta

from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.core.saved import Line, Natural, Saved, Word, check, check_range, refuse
from fakesys.core.scheduling.resched import cond_resched_killable
from fakesys.subsystems.kvm.model import PID_MAX, Kvm
from fakesys.subsystems.kvm.params import Params
from fakesys.subsystems.kvm.stats import HIST_BUCKETS, VcpuStats, VmStats
from fakesys.subsystems.kvm.vm import Irqchip, Vcpu, Vm

Pid = Annotated[int, Meta(ge=0, le=PID_MAX)]
Fd = Annotated[int, Meta(ge=1, le=1 << 20)]
HostCpu = Annotated[int, Meta(ge=0, lt=4096)]
Signed64 = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
# The counters that are not 0, by name; of a histogram all buckets. A gauge that was cleared in an
# older kernel can be below 0.
Counters = dict[str, Signed64 | list[Signed64]]


class SavedVcpu(Saved, frozen=True):
    """A vCPU. `thread`, `group`, `cpu`: of its thread. `last_thread`: the one that last ran it."""

    id: Natural
    thread: Pid
    group: Pid
    cpu: HostCpu
    last_thread: Pid
    closed: bool
    tsc_offset: Signed64
    stats: Counters


class SavedVm(Saved, frozen=True):
    """A VM. `named`: commands know its name. `directory`: it has one under `debug/kvm`.

    `group`: counts of all its vCPUs together.
    """

    name: Word
    pid: Pid
    fd: Fd
    irqchip: Irqchip
    named: bool
    directory: bool
    fd_open: bool
    vcpus: list[SavedVcpu]
    stats: Counters
    group: Counters


class SavedKvm(Saved, frozen=True):
    """All VMs. `created`: how many there ever were. `last`: result of the last command.

    `params`: the parameters that were chosen, as their files show them. `warnings`: how often each
    was raised. `last_threads`: see `Kvm`, by owner.
    """

    created: Natural
    last: str
    params: dict[Word, Line]
    warnings: dict[Line, Annotated[int, Meta(ge=1)]]
    last_threads: dict[Pid, Natural]
    vms: list[SavedVm]


def save(kvm: Kvm) -> SavedKvm:
    """Return what a snapshot holds of the register."""
    named = {id(kvm.vm(name)) for name in kvm.names}
    return SavedKvm(
        created=kvm.created,
        last=kvm.last,
        params=kvm.params.chosen(),
        warnings=dict(kvm.warnings),
        last_threads=dict(kvm.last_threads),
        vms=[_save_vm(vm, named=id(vm) in named) for vm in kvm.vms],
    )


def restore(saved: SavedKvm, kvm: Kvm) -> None:
    """Fill a register without VMs. Its extensions restore what is theirs of each VM afterwards.

    Raises BadSnapshotError.
    """
    kvm.created, kvm.last = saved.created, saved.last
    kvm.warnings.update(saved.warnings)
    kvm.last_threads.update(saved.last_threads)
    _restore_params(saved.params, kvm.params)
    descriptors = [(vm.pid, vm.fd) for vm in saved.vms if vm.fd_open]
    check(len(set(descriptors)) == len(descriptors), "a descriptor belongs to two VMs")
    for found in saved.vms:
        cond_resched_killable()
        _restore_vm(found, kvm)


def _save_vm(vm: Vm, *, named: bool) -> SavedVm:
    vm.book()
    return SavedVm(
        name=vm.name,
        pid=vm.pid,
        fd=vm.fd,
        irqchip=vm.irqchip,
        named=named,
        directory=vm.directory is not None,
        fd_open=vm.fd_open,
        vcpus=[_save_vcpu(vcpu) for vcpu in vm.vcpus.values()],
        stats=_save_stats(vm.stats),
        group=_save_stats(vm.group),
    )


def _save_vcpu(vcpu: Vcpu) -> SavedVcpu:
    return SavedVcpu(
        id=vcpu.id,
        thread=vcpu.task.pid,
        group=vcpu.task.group,
        cpu=vcpu.cpu,
        last_thread=vcpu.last_pid,
        closed=vcpu.closed,
        tsc_offset=vcpu.tsc_offset,
        stats=_save_stats(vcpu.stats),
    )


def _save_stats(stats: VmStats | VcpuStats) -> Counters:
    found: Counters = {}
    for name in _names(type(stats)):
        value = getattr(stats, name)
        if isinstance(value, list):
            if any(value):
                found[name] = list(value)
        elif value:
            found[name] = value
    return found


def _restore_params(saved: dict[str, str], params: Params) -> None:
    for name, text in saved.items():
        try:
            row = params.row(name)
            params.choose(row, row.parse(text))
        except KernelError as error:
            refuse(f"parameter {name}: {error.why}")


def _restore_vm(saved: SavedVm, kvm: Kvm) -> None:
    name = saved.name
    check(kvm.is_name(name), f"{name!r} cannot be the name of a VM")
    check(not saved.named or kvm.find(name) is None, f"there are two VMs {name!r}")
    vm = Vm(kvm, name, saved.pid, saved.fd, saved.irqchip)
    if saved.directory:
        vm.directory = f"{vm.pid}-{vm.fd}"
        check(vm.directory not in kvm.directories, f"two VMs have the directory {vm.directory}")
    check(len(saved.vcpus) <= kvm.limits.count, f"VM {name} has too many vCPUs")
    for vcpu in saved.vcpus:
        check_range(vcpu.id, kvm.limits.ids, f"the id of a vCPU of {name}")
        check(vcpu.id not in vm.vcpus, f"VM {name} has two vCPUs {vcpu.id}")
        vm.vcpus[vcpu.id] = _restore_vcpu(vcpu, vm)
    vm.fd_open = saved.fd_open
    vm.count_references()
    _restore_stats(saved.stats, vm.stats)
    _restore_stats(saved.group, vm.group)
    kvm.restore(vm, named=saved.named)


def _restore_vcpu(saved: SavedVcpu, vm: Vm) -> Vcpu:
    vcpu = Vcpu(vm, saved.id, saved.thread, cpus=1)
    vcpu.task = Task(saved.thread, vcpu.task.comm, saved.cpu, saved.group)
    vcpu.closed, vcpu.last_pid = saved.closed, saved.last_thread
    vcpu.tsc_offset = saved.tsc_offset
    _restore_stats(saved.stats, vcpu.stats)
    return vcpu


def _restore_stats(saved: Counters, stats: VmStats | VcpuStats) -> None:
    known = _names(type(stats))
    for name, value in saved.items():
        check(name in known, f"there is no counter {name}")
        buckets = getattr(stats, name)
        check(isinstance(value, list) == isinstance(buckets, list), f"counter {name} is {value}")
        check(isinstance(value, int) or len(value) == HIST_BUCKETS, f"buckets of {name}")
        setattr(stats, name, value)


def _names(stats: type[VmStats] | type[VcpuStats]) -> tuple[str, ...]:
    """Return the names of all counters, which are those of the kernel."""
    return tuple(column.name for column in fields(stats))
