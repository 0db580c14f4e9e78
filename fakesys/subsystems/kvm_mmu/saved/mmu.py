"""The memory of all VMs in a snapshot: what `MmuExtension` owns."""

from __future__ import annotations

from fakesys.core.saved import Natural, Saved, check
from fakesys.core.scheduling.resched import cond_resched_killable
from fakesys.subsystems.kvm.vm import Vm
from fakesys.subsystems.kvm_mmu.extension import MmuExtension
from fakesys.subsystems.kvm_mmu.saved.memory import (
    SavedVmMemory,
    check_roots,
    restore_memory,
    save_memory,
)
from fakesys.subsystems.kvm_mmu.saved.nx import (
    SavedNx,
    SavedThread,
    restore_nx,
    restore_thread,
    save_nx,
    save_thread,
)
from fakesys.subsystems.kvm_mmu.saved.races import (
    SavedPausedRace,
    SavedRace,
    restore_race,
    restore_result,
    save_race,
    save_result,
)
from fakesys.subsystems.kvm_mmu.saved.vcpus import SavedMmuVcpu, restore_vcpu, save_vcpu


class SavedMmuVm(Saved, frozen=True):
    """One VM, with its vCPUs in the order of their creation."""

    memory: SavedVmMemory
    vcpus: list[SavedMmuVcpu]
    nx_thread: SavedThread | None
    race: SavedRace | None
    paused: SavedPausedRace | None


class SavedMmu(Saved, frozen=True):
    """All VMs in the order of their creation. `shrink`: their places as the shrinker asks them."""

    nx: SavedNx
    shrink: list[Natural]
    vms: list[SavedMmuVm]


def save(mmu: MmuExtension) -> SavedMmu:
    """Return what a snapshot holds of the memory of all VMs."""
    places = {id(mmu.memories[vm].arch): place for place, vm in enumerate(mmu.kvm.vms)}
    return SavedMmu(
        nx=save_nx(mmu.nx),
        shrink=[places[id(arch)] for arch in mmu.shrinker.order],
        vms=[_save_vm(mmu, vm) for vm in mmu.kvm.vms],
    )


def restore(saved: SavedMmu, mmu: MmuExtension) -> None:
    """Fill the memory of VMs that the register of VMs has restored. Raises BadSnapshotError."""
    vms = mmu.kvm.vms
    check(len(saved.vms) == len(vms), f"memory of {len(saved.vms)} VMs, not of {len(vms)}")
    check(sorted(saved.shrink) == list(range(len(vms))), "the order of the shrinker")
    restore_nx(saved.nx, mmu.nx)
    for found, vm in zip(saved.vms, vms, strict=True):
        cond_resched_killable()
        _restore_vm(found, mmu, vm)
    # A new VM is asked first.
    for place in reversed(saved.shrink):
        memory = mmu.memories[vms[place]]
        mmu.shrinker.add(memory.arch, memory.zapper)


def _save_vm(mmu: MmuExtension, vm: Vm) -> SavedMmuVm:
    race, paused = mmu.races.get(vm), mmu.paused.get(vm)
    return SavedMmuVm(
        memory=save_memory(mmu.memories[vm]),
        vcpus=[save_vcpu(mmu.mmus[vcpu], mmu.guests[vcpu]) for vcpu in vm.vcpus.values()],
        nx_thread=save_thread(mmu.nx, vm),
        race=None if race is None else save_result(race),
        paused=None if paused is None else save_race(paused),
    )


def _restore_vm(saved: SavedMmuVm, mmu: MmuExtension, vm: Vm) -> None:
    has_tdp_mmu = saved.memory.tdp is not None
    check(not has_tdp_mmu or mmu.can_have_tdp_mmu, f"VM {vm.name} cannot have the TDP MMU")
    memory = mmu.new_memory(vm, tdp_mmu=has_tdp_mmu)
    zapping = saved.paused is not None
    used = restore_memory(saved.memory, memory, zapping=zapping)
    check(len(saved.vcpus) == len(vm.vcpus), f"vCPUs of {vm.name}")
    for found, vcpu in zip(saved.vcpus, vm.vcpus.values(), strict=True):
        mmu.add_vcpu(vcpu, start=False)
        own, guest = mmu.mmus[vcpu], mmu.guests[vcpu]
        restore_vcpu(found, own, guest, memory.arch, used, memory.tdp, zapping=zapping)
    unfreed: list[int] = []
    if saved.paused is not None:
        paused = restore_race(saved.paused, memory, used)
        unfreed = paused.flow.unfreed
        mmu.pause(vm, paused)
    check_roots(memory.arch, used, unfreed)
    restore_thread(saved.nx_thread, mmu.nx, vm, memory)
    if saved.race is not None:
        mmu.races[vm] = restore_result(saved.race)
