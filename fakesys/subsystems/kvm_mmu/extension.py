"""The memory of every VM, as the model of virtual machines in `kvm` asks for it."""

from __future__ import annotations

from errno import EINVAL

from fakesys.core.errors import KernelError
from fakesys.core.events import Bus
from fakesys.core.scheduling.resched import might_resched
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.params import Params
from fakesys.subsystems.kvm.vcpu_run.extension import VcpuRuns
from fakesys.subsystems.kvm.vm import Irqchip, Vcpu, Vm, VmOptions
from fakesys.subsystems.kvm_mmu import params as mmu_params
from fakesys.subsystems.kvm_mmu.guest.exits import no_handler
from fakesys.subsystems.kvm_mmu.guest.race import (
    Ending,
    Race,
    RaceResult,
    RaceSetup,
    check_race,
)
from fakesys.subsystems.kvm_mmu.guest.real_code import RealModeCode
from fakesys.subsystems.kvm_mmu.guest.vcpu_run import Guest
from fakesys.subsystems.kvm_mmu.params import EAGER_PAGE_SPLIT, follows_modules, uses_tdp_mmu
from fakesys.subsystems.kvm_mmu.shadow.arch import Knobs
from fakesys.subsystems.kvm_mmu.shadow.policy import MmuPolicy, ZapFlow
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory
from fakesys.subsystems.kvm_mmu.vm.nx_huge_pages import NxHugePages
from fakesys.subsystems.kvm_mmu.vm.rmaps import rmaps_text
from fakesys.subsystems.kvm_mmu.vm.shrinker import Shrinker


class MmuExtension:
    """Memory by VM, translations and guest by vCPU.

    `policy`: the kernel that all VMs run on. `races`: the result of each VM's last race.
    `paused`: the races that are paused.
    """

    def __init__(self, kvm: Kvm, policy: MmuPolicy, runs: VcpuRuns, nx: NxHugePages) -> None:
        self.kvm = kvm
        self.policy = policy
        self._runs = runs
        self.memories: dict[Vm, VmMemory] = {}
        self.guests: dict[Vcpu, Guest] = {}
        self.mmus: dict[Vcpu, VcpuMmu] = {}
        self.races: dict[Vm, RaceResult] = {}
        self.paused: dict[Vm, Race] = {}
        self.shrinker = Shrinker()
        self.nx = nx

    @property
    def bus(self) -> Bus:
        """Where tracepoints are emitted."""
        return self.kvm.kernel.bus

    def check_vm(self, irqchip: Irqchip, options: VmOptions) -> None:
        """Accept every VM."""

    def add_vm(self, vm: Vm, options: VmOptions) -> None:
        """Give the VM a memory without slots."""
        memory = self.new_memory(vm, tdp_mmu=uses_tdp_mmu(self.kvm.params))
        self.shrinker.add(memory.arch, memory.zapper)
        self.nx.add(vm, memory)

    @property
    def can_have_tdp_mmu(self) -> bool:
        """Whether VMs of now may have the TDP MMU, as kvm.tdp_mmu may have been on."""
        return self.policy.tdp is not None and follows_modules(self.kvm.params)

    def new_memory(self, vm: Vm, *, tdp_mmu: bool) -> VmMemory:
        """Return the memory of a VM, which neither the shrinker nor `nx` knows yet."""
        chosen = _knobs(self.kvm.params, self.policy, tdp_mmu=tdp_mmu)
        memory = VmMemory(self.bus, self.policy, chosen, vm.stats)
        memory.dirty.splits_eagerly = lambda: self.kvm.params[EAGER_PAGE_SPLIT]
        self.memories[vm] = memory
        vm.rmaps_stat = lambda: rmaps_text(memory)
        return memory

    def check_irqchip(self, vm: Vm) -> None:
        """Accept every irqchip."""

    def add_irqchip(self, vm: Vm) -> None:
        """Do nothing: an irqchip does not concern memory."""

    def check_vcpu(self, vm: Vm, vcpu_id: int) -> None:
        """Accept every vCPU."""

    def add_vcpu(self, vcpu: Vcpu, *, start: bool) -> None:
        """Give the vCPU an MMU without roots, and a guest."""
        memory = self.memories[vcpu.vm]
        mmu = memory.add_vcpu(vcpu.id, vcpu.stats, vcpu.is_in_guest)
        self.mmus[vcpu] = mmu
        guest = self.guests[vcpu] = Guest(memory, mmu, self._runs.of(vcpu))
        guest.run_handler = RealModeCode(memory, mmu, guest).handle_smi

    def close_vcpu(self, vcpu: Vcpu) -> None:
        """Do nothing: the roots stay until the VM is removed."""

    def hold_vcpu(self, vcpu: Vcpu) -> None:
        """Do nothing: roots stay loaded in user space."""

    def is_in_guest(self, vcpu: Vcpu) -> bool:
        """Return False: only the interrupt model runs vCPUs."""
        return False

    def remove_vm(self, vm: Vm) -> None:
        """Zap and free all pages of the VM."""
        self.nx.remove(vm)
        memory = self.memories[vm]
        memory.lock_slots()
        del self.memories[vm]
        self.shrinker.remove(memory.arch)
        self.races.pop(vm, None)
        for vcpu in vm.vcpus.values():
            # The handler refers to the guest: both are freed now, not by a collection.
            self.guests.pop(vcpu).run_handler = no_handler
            del self.mmus[vcpu]
        memory.destroy()

    def race(self, vm: Vm, setup: RaceSetup, pause: int) -> RaceResult:
        """Delete a slot of a VM while vCPUs fault; see `Race.go_on` for `pause`.

        Raises what `check_race` raises, EBUSY while another race is paused, EINTR after a signal.
        """
        memory = self.memories[vm]
        memory.require_slots()
        slot = check_race(memory, setup)
        might_resched()
        race = Race(memory, setup, slot)
        with memory.arch.mmu_lock:
            race.start()
            return self._go_on(vm, race, pause)

    def resume(self, vm: Vm, pause: int) -> RaceResult:
        """Let a race go on. Raises EINVAL where none is paused, EINTR after a signal."""
        race = self.paused.get(vm)
        if race is None:
            raise KernelError(EINVAL, f"no race of {vm.name} is paused")
        might_resched()
        with self.memories[vm].arch.mmu_lock:
            self._forget_race(vm)
            return self._go_on(vm, race, pause)

    def _go_on(self, vm: Vm, race: Race, pause: int) -> RaceResult:
        result = self.races[vm] = race.go_on(pause)
        if result.ending is Ending.PAUSED:
            self.pause(vm, race)
        return result

    def pause(self, vm: Vm, race: Race) -> None:
        """Remember a race that is paused."""
        self.paused[vm] = race
        self.memories[vm].ends_removal = lambda: self._stop(vm)

    def _stop(self, vm: Vm) -> None:
        race = self.paused[vm]
        self._forget_race(vm)
        self.races[vm] = race.stop()

    def _forget_race(self, vm: Vm) -> None:
        del self.paused[vm]
        self.memories[vm].ends_removal = None


def _knobs(params: Params, policy: MmuPolicy, *, tdp_mmu: bool) -> Knobs:
    """Return the knobs of a VM that is made now."""
    flow = ZapFlow(params[mmu_params.ZAP_FLOW])
    return Knobs(
        tdp=mmu_params.uses_npt(params),
        tdp_mmu=tdp_mmu and policy.tdp is not None,
        preempt=params[mmu_params.PREEMPT],
        mmio_caching=params[mmu_params.MMIO_CACHING],
        mmio_gen_bits=params[mmu_params.MMIO_GEN_BITS],
        as_num=params[mmu_params.AS_NUM],
        wrap_gen=params[mmu_params.WRAP_GEN],
        delete_flow=None if flow is policy.delete_flow else flow,
    )
