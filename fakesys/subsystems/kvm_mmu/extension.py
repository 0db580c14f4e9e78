"""The memory of every VM, as KVM's model of virtual machines joins it in."""

from __future__ import annotations

from fakesys.core.events import Bus
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.vm import Irqchip, Vcpu, Vm, VmOptions
from fakesys.subsystems.kvm_mmu.guest.programs import Guest
from fakesys.subsystems.kvm_mmu.guest.race import RaceResult
from fakesys.subsystems.kvm_mmu.ops.roots import VcpuMmu
from fakesys.subsystems.kvm_mmu.ops.shrinker import Shrinker
from fakesys.subsystems.kvm_mmu.params import knobs
from fakesys.subsystems.kvm_mmu.shadow.policy import MmuPolicy
from fakesys.subsystems.kvm_mmu.slots.host import PAGE
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory
from fakesys.subsystems.kvm_mmu.vm.nx import NxHugePages
from fakesys.subsystems.kvm_mmu.vm.rmaps import rmaps_text


class MmuExtension:
    """Memory by VM, translations and guest by vCPU. `policy`: the kernel that all VMs run on."""

    def __init__(self, kvm: Kvm, policy: MmuPolicy) -> None:
        self.kvm = kvm
        self.policy = policy
        self.memories: dict[Vm, VmMemory] = {}
        self.guests: dict[Vcpu, Guest] = {}
        self.mmus: dict[Vcpu, VcpuMmu] = {}
        self.races: dict[Vm, RaceResult] = {}
        self.shrinker = Shrinker()
        self.nx = NxHugePages(kvm, policy.nx)

    @property
    def bus(self) -> Bus:
        """Where events go."""
        return self.kvm.kernel.bus

    def check_vm(self, irqchip: Irqchip, options: VmOptions) -> None:
        """Memory refuses no VM."""

    def add_vm(self, vm: Vm, options: VmOptions) -> None:
        """The VM has no memory at first."""
        memory = VmMemory(self.bus, self.policy, knobs(self.kvm.params, self.policy), vm.stats)
        self.memories[vm] = memory
        self.shrinker.add(memory.kit, memory.zapper)
        self.nx.add(vm, memory)
        vm.rmaps_stat = lambda: rmaps_text(memory)

    def set_private_slot(self, vm: Vm, slot_id: int, gpa: int, *, present: bool) -> int:
        """A page of KVM's own comes or goes; how many memslot updates that took, 0 if it cannot."""
        return self.memories[vm].set_private_slot(slot_id, gpa, present=present)

    def has_slot_at(self, vm: Vm, gpa: int) -> bool:
        """Is there guest memory at this address?"""
        return self.memories[vm].has_slot_at(gpa)

    def zap(self, vm: Vm, gpa: int, size: int) -> None:
        """Drop what is mapped there."""
        self.memories[vm].zap_gfn_range(gpa // PAGE, (gpa + size) // PAGE)

    def check_irqchip(self, vm: Vm) -> None:
        """Not a matter of memory."""

    def add_irqchip(self, vm: Vm) -> None:
        """Not a matter of memory."""

    def check_vcpu(self, vm: Vm, vcpu_id: int) -> None:
        """Memory refuses no vCPU."""

    def add_vcpu(self, vcpu: Vcpu) -> None:
        """The vCPU has nothing loaded."""
        memory = self.memories[vcpu.vm]
        mmu = memory.add_vcpu(vcpu.id, vcpu.stats, vcpu.is_in_guest)
        self.mmus[vcpu] = mmu
        self.guests[vcpu] = Guest(memory, mmu)

    def close_vcpu(self, vcpu: Vcpu) -> None:
        """Its roots stay until the VM goes."""

    def hold_vcpu(self, vcpu: Vcpu) -> None:
        """Where it stands does not matter to memory."""

    def is_in_guest(self, vcpu: Vcpu) -> bool:
        """Memory does not know."""
        return False

    def remove_vm(self, vm: Vm) -> None:
        """All is zapped and freed."""
        self.nx.remove(vm)
        memory = self.memories.pop(vm)
        memory.destroy()
        self.shrinker.remove(memory.kit)
        self.races.pop(vm, None)
        for vcpu in vm.vcpus.values():
            del self.guests[vcpu]
            del self.mmus[vcpu]
