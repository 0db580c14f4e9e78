"""Where the threads of vCPUs are, in a snapshot."""

from __future__ import annotations

from msgspec.structs import replace

from fakesys.core.errors import KernelError
from fakesys.core.saved import U32, Natural, Saved, Word, check, check_range, refuse
from fakesys.subsystems.kvm.vcpu_run.extension import VcpuRuns
from fakesys.subsystems.kvm.vcpu_run.params import processor_named
from fakesys.subsystems.kvm.vcpu_run.run import VcpuRun
from fakesys.subsystems.kvm.vm import Vm


class SavedRun(Saved, frozen=True):
    """See `VcpuRun`."""

    rip: Natural
    l1_rip: Natural
    in_guest: bool
    in_kvm_run: bool
    clock_request: bool
    pvclock_version: U32
    halt_poll_ns: U32
    ple_window: U32


class SavedVmRuns(Saved, frozen=True):
    """The vCPUs of a VM in the order of their creation.

    `processor`: the name of its kind; `next_rip`: of `Processor`, which `nrips=0` switches off.
    """

    processor: Word
    next_rip: bool
    vcpus: list[SavedRun]


class SavedRuns(Saved, frozen=True):
    """All VMs in the order of their creation."""

    vms: list[SavedVmRuns]


def save(runs: VcpuRuns) -> SavedRuns:
    """Return what a snapshot holds of entries and exits."""
    return SavedRuns(
        vms=[
            SavedVmRuns(
                processor=runs.processors[vm].name,
                next_rip=runs.processors[vm].next_rip,
                vcpus=[_save_run(runs.of(vcpu)) for vcpu in vm.vcpus.values()],
            )
            for vm in runs.kvm.vms
        ]
    )


def restore(saved: SavedRuns, runs: VcpuRuns) -> None:
    """Make the runs of VMs whose register was restored. Raises BadSnapshotError."""
    vms = runs.kvm.vms
    check(len(saved.vms) == len(vms), f"exits of {len(saved.vms)} VMs, not of {len(vms)}")
    for found, vm in zip(saved.vms, vms, strict=True):
        _restore_vm(found, runs, vm)


def _save_run(run: VcpuRun) -> SavedRun:
    return SavedRun(
        rip=run.rip,
        l1_rip=run.l1_rip,
        in_guest=run.in_guest,
        in_kvm_run=run.in_kvm_run,
        clock_request=run.clock_request,
        pvclock_version=run.pvclock_version,
        halt_poll_ns=run.halt_poll_ns,
        ple_window=run.ple_window,
    )


def _restore_vm(saved: SavedVmRuns, runs: VcpuRuns, vm: Vm) -> None:
    try:
        processor = processor_named(saved.processor)
        runs.processors[vm] = replace(processor, next_rip=saved.next_rip)
    except KernelError as error:
        refuse(f"VM {vm.name}: {error.why}")
    check(len(saved.vcpus) == len(vm.vcpus), f"exits of the vCPUs of {vm.name}")
    for found, vcpu in zip(saved.vcpus, vm.vcpus.values(), strict=True):
        run = runs.new_run(vcpu)
        what = f"vCPU {vcpu.id} of {vm.name}"
        run.rip = check_range(found.rip, 1 << 64, f"{what}: rip")
        run.halt_poll_ns, run.ple_window = found.halt_poll_ns, found.ple_window
        run.l1_rip = check_range(found.l1_rip, 1 << 64, f"{what}: rip")
        check(found.in_kvm_run or not found.in_guest, f"{what} is in the guest, not in KVM_RUN")
        run.clock_request, run.pvclock_version = found.clock_request, found.pvclock_version
        run.in_guest, run.in_kvm_run = found.in_guest, found.in_kvm_run
