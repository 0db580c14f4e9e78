"""A VM's memory alone, with what it tells; no machine, no files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from fakesys.core.events import Bus
from fakesys.subsystems.kvm.stats import VcpuStats, VmStats
from fakesys.subsystems.kvm_mmu.events.catalog import EVENTS
from fakesys.subsystems.kvm_mmu.guest.bulk_access import BulkResult, bulk_access
from fakesys.subsystems.kvm_mmu.guest.page_tables import write_guest_tables
from fakesys.subsystems.kvm_mmu.guest.programs import GuestOp
from fakesys.subsystems.kvm_mmu.guest.vcpu_run import Guest
from fakesys.subsystems.kvm_mmu.saved.memory import (
    SavedVmMemory,
    check_roots,
    restore_memory,
    save_memory,
)
from fakesys.subsystems.kvm_mmu.saved.vcpus import SavedMmuVcpu, restore_vcpu, save_vcpu
from fakesys.subsystems.kvm_mmu.shadow.arch import Knobs
from fakesys.subsystems.kvm_mmu.shadow.policy import K5_4, MmuPolicy
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.walk import PF_WRITE
from fakesys.subsystems.kvm_mmu.slots.memslots import Region
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory, Zapped

MIB = 1 << 20
PAGE = 4096
# Where `guest_tables` puts the tables of level 1, one for each 2 MiB.
FIRST_TABLE = 0x20000


class Rig:
    """One VM. `events`: every event of kvmmmu, in order."""

    def __init__(self, policy: MmuPolicy = K5_4, *, quiet: bool = False, **knobs: Any) -> None:
        self.bus = Bus()
        self.stats = VmStats()
        self.memory = VmMemory(self.bus, policy, replace(Knobs(), **knobs), self.stats)
        self.events: list[Any] = []
        self.guests: dict[int, Guest] = {}
        if not quiet:
            for cls in EVENTS:
                self.bus.subscribe(cls, self.events.append)

    @property
    def pages(self) -> Any:
        """The rows of shadow pages."""
        return self.memory.arch.pages

    def slot(
        self,
        number: int = 0,
        gpa: int = 0,
        size: int = 2 * MIB,
        *,
        name: str = "",
        flags: int = 0,
        thp: bool = False,
    ) -> Zapped | None:
        """Create, move or change a slot, with memory of its own."""
        name = name or f"m{number}"
        try:
            host = self.memory.host.named(name)
        except OSError:
            host = self.memory.host.add(name, size, thp=thp)
        return self.memory.set_region(Region(number, flags, gpa, size, host.hva))

    def delete(self, number: int) -> Zapped | None:
        """Delete a slot."""
        return self.memory.set_region(Region(number, 0, 0, 0, 0))

    def vcpu(self, number: int = 0) -> VcpuMmu:
        """Add a vCPU."""
        vcpu = self.memory.add_vcpu(number, VcpuStats())
        self.guests[number] = Guest(self.memory, vcpu)
        return vcpu

    def shadowed(self, tables: int = 12, *, unsync: bool = True) -> VcpuMmu:
        """A vCPU in 64-bit mode that read a page in each of `tables` regions of 2 MiB.

        `unsync`: then it wrote to the guest's table of each. The knob `tdp` must be off; slot 0
        is made, with guest tables in it.
        """
        # The doorbell of programs lies just behind the slot.
        self.slot(0, 0, 62 * MIB)
        write_guest_tables(self.memory)
        vcpu = self.vcpu()
        guest = self.guests[vcpu.id]
        guest.set_up(real_mode=False)
        guest.run([GuestOp("rloop", 2 * MIB, times=tables, stride=2 * MIB)])
        if unsync:
            guest.run([GuestOp("wloop", FIRST_TABLE + PAGE, times=tables)])
        return vcpu

    def write(self, vcpu: VcpuMmu, gpa: int, times: int = 1, stride: int = PAGE) -> BulkResult:
        """The guest writes."""
        guest = self.guests[vcpu.id]
        return bulk_access(self.memory, vcpu, guest, "w", gpa, times=times, stride=stride)

    def read(self, vcpu: VcpuMmu, gpa: int, times: int = 1, stride: int = PAGE) -> BulkResult:
        """The guest reads."""
        guest = self.guests[vcpu.id]
        return bulk_access(self.memory, vcpu, guest, "r", gpa, times=times, stride=stride)

    def fetch(self, vcpu: VcpuMmu, gpa: int, times: int = 1, stride: int = PAGE) -> BulkResult:
        """The guest fetches from there."""
        guest = self.guests[vcpu.id]
        return bulk_access(self.memory, vcpu, guest, "x", gpa, times=times, stride=stride)

    def fault(self, vcpu: VcpuMmu, gpa: int) -> None:
        """One write that may fault, without entry to the guest."""
        if not self.memory.shadow_walker.allows(vcpu, gpa, PF_WRITE):
            self.memory.faults.page_fault(vcpu, gpa, PF_WRITE)

    def reload(self) -> None:
        """Go on with a memory that was made from what this one saves."""
        data = self.saved()
        found = msgspec.json.decode(data, type=tuple[SavedVmMemory, dict[int, SavedMmuVcpu]])
        old, arch = self.memory, self.memory.arch
        self.memory = VmMemory(self.bus, arch.policy, arch.knobs, self.stats)
        used = restore_memory(found[0], self.memory)
        for number, saved in found[1].items():
            vcpu = self.memory.add_vcpu(number, old.vcpus[number].stats)
            self.guests[number] = Guest(self.memory, vcpu)
            restore_vcpu(saved, vcpu, self.guests[number], self.memory.arch, used, None)
        check_roots(self.memory.arch, used)
        assert self.saved() == data

    def saved(self) -> bytes:
        """What a snapshot holds of the memory and of its vCPUs."""
        vcpus = {n: save_vcpu(vcpu, self.guests[n]) for n, vcpu in self.memory.vcpus.items()}
        return msgspec.json.encode((save_memory(self.memory), vcpus))

    def told(self, cls: type) -> list[Any]:
        """The events of one class since the last call of `forget`."""
        return [event for event in self.events if type(event) is cls]

    def forget(self) -> None:
        """Forget what was told."""
        self.events.clear()

    def listed(self) -> list[int]:
        """Rows on the list, oldest first."""
        return list(self.pages.oldest_first())


def gfns(events: Iterable[Any]) -> list[int]:
    """What pages events speak of."""
    return [event.gfn for event in events]
