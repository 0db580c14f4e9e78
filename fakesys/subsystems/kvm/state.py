"""KVM as plain data, for the JSON of `state`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.stats import VcpuStats, VmStats
from fakesys.subsystems.kvm.vm import Vcpu, Vm


def state(kvm: Kvm) -> dict[str, Any]:
    """Return all VMs that have a name, parameters and warnings, without counters that are 0."""
    return {
        "created": kvm.created,
        "params": kvm.params.state(),
        "vms": {name: _vm(kvm.vm(name)) for name in kvm.names},
        "warnings": dict(kvm.warnings),
    }


def _vm(vm: Vm) -> dict[str, Any]:
    vm.book()
    return {
        "fd": vm.fd,
        "irqchip": vm.irqchip.value,
        "pid": vm.pid,
        "stats": _counted(vm.stats),
        "vcpu_stats": _counted(vm.group),
        "vcpus": {str(vcpu.id): _vcpu(vcpu) for vcpu in vm.vcpus.values()},
    }


def _vcpu(vcpu: Vcpu) -> dict[str, Any]:
    return {
        "closed": vcpu.closed,
        "cpu": vcpu.cpu,
        "stats": _counted(vcpu.stats),
        "thread": vcpu.task.pid,
    }


def _counted(stats: VmStats | VcpuStats) -> dict[str, Any]:
    return {
        name: value
        for name, value in asdict(stats).items()
        if (any(value) if isinstance(value, list) else value)
    }
