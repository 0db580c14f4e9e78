"""The names of a VM's vCPUs in directories: `vcpu0`, `vcpu1`, as `debug/kvm/PID-FD/` has them.

The names follow virt/kvm/kvm_main.c:kvm_create_vcpu_debugfs (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.kvm.vm import Vcpu, Vm


def vcpu_names(vm: Vm) -> list[str]:
    """Return the name of each vCPU, in the order of their creation."""
    return [f"vcpu{vcpu_id}" for vcpu_id in vm.vcpus]


def vcpu_named(vm: Vm, name: str) -> Vcpu | None:
    """Return the vCPU of this name; None for any other spelling of its id, such as `vcpu00`."""
    number = name.removeprefix("vcpu")
    if number == name or not number.isdecimal() or str(int(number)) != number:
        return None
    return vm.vcpus.get(int(number))
