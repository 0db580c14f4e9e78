"""What the processor does with an access of the guest: it translates, or it faults.

With nested paging it walks the guest's tables through the tables of KVM, so that each page of them
can fault too. Like the pseudo code in AMD's manual, volume 2, 15.25.
"""

from __future__ import annotations

from typing import NamedTuple

from fakesys.subsystems.kvm_mmu.guest.programs import Access
from fakesys.subsystems.kvm_mmu.mmu.guest_walker import (
    ACCESSED,
    ADDRESS,
    DIRTY,
    NX,
    PRESENT,
    PSE,
    RW,
    TOP,
    US,
)
from fakesys.subsystems.kvm_mmu.shadow.vcpu import Paging, VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.walk import (
    PF_FETCH,
    PF_USER,
    PF_WRITE,
)
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

# Bits of a nested page fault's error code: PFERR_GUEST_FINAL_MASK, PFERR_GUEST_PAGE_MASK.
FINAL, TABLE = 1 << 32, 1 << 33


class Fault(NamedTuple):
    """A fault that KVM handles. `address`: guest physical with nested paging, else virtual."""

    address: int
    code: int


class GuestFault(Exception):
    """The guest's own tables do not allow the access."""


class Translation:
    """How one vCPU translates. `gpa`: where the last access that was allowed went."""

    def __init__(self, memory: VmMemory, vcpu: VcpuMmu, *, nested: bool) -> None:
        self._memory = memory
        self._vcpu = vcpu
        self._nested = nested
        # Whether the guest has paging on; only nested paging asks.
        self.paged = False
        self.gpa = 0
        # Whether that went through tables of the guest, which stores may change.
        self.has_walked = False

    def try_access(self, access: Access) -> Fault | None:
        """Make an access, or return the fault that keeps it from going on. Raises GuestFault.

        Differs: with nested paging, a guest that has written no tables sees physical addresses.
        """
        if not self._nested:
            user = PF_USER if self._vcpu.paging is not Paging.NONE else 0
            return self._check(access.address, access.error | user, 0)
        self.gpa = access.address
        self.has_walked = self.walks
        if self.has_walked:
            fault = self._walk(access.address, access.error)
            if fault is not None:
                return fault
        return self._check(self.gpa, access.error | PF_USER, FINAL)

    @property
    def walks(self) -> bool:
        """Whether an access goes through tables of the guest and those of KVM."""
        if not self._nested or not self.paged:
            return False
        return self._memory.guest_memory_of(self._vcpu).is_written(self._vcpu.cr3)

    def _check(self, address: int, error: int, kind: int) -> Fault | None:
        memory, vcpu = self._memory, self._vcpu
        if memory.walker.allows(vcpu, address, error):
            return None
        code = memory.walker.error_code(vcpu, address, error)
        return Fault(address, code | kind)

    def _walk(self, address: int, error: int) -> Fault | None:
        """Walk the guest's tables, and set A and D bits in them."""
        table, level = self._vcpu.cr3 & ADDRESS, TOP
        while True:
            place = table + (address >> 12 + 9 * (level - 1) & 511) * 8
            # The processor may write A and D bits: each access to a table counts as a write.
            fault = self._check(place, PF_WRITE | PF_USER, TABLE)
            if fault is not None:
                return fault
            entry = self._memory.guest_memory_of(self._vcpu).entry(place) or 0
            last = level == 1 or bool(entry & PSE and level < TOP)
            self._require(entry, error)
            new = entry | ACCESSED | (DIRTY if last and error & PF_WRITE else 0)
            if new != entry:
                memory = self._memory.guest_memory_of(self._vcpu)
                memory.store(place, new.to_bytes(8, "little"))
            if last:
                break
            table = entry & ADDRESS
            level -= 1
        size = 1 << 9 * (level - 1) + 12
        self.gpa = entry & ADDRESS & -size | address & size - 1
        return None

    @staticmethod
    def _require(entry: int, error: int) -> None:
        denied = not entry & PRESENT or not entry & US
        denied |= bool(error & PF_WRITE) and not entry & RW
        if denied or (error & PF_FETCH and entry & NX):
            raise GuestFault
