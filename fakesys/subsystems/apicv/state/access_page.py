"""The APIC access page of a VM at 0xfee00000, and what it costs when AVIC goes off and on.

Like arch/x86/kvm/svm/avic.c:avic_alloc_access_page (v6.1), [v3/07] avic_update_access_page.
"""

from __future__ import annotations

from typing import Protocol

from fakesys.subsystems.apicv.chips.lapic import BASE

BASE_GFN = BASE >> 12


class GuestMemory(Protocol):
    """What the access page needs of the memory of its VM."""

    def set_private_slot(self, slot_id: int, gpa: int, *, present: bool) -> int:
        """Create or delete a memslot of KVM's own; return the number of memslot updates.

        There is one update for each address space; 0 if a memslot of the owner is in the way.
        """

    def has_private_slot(self, slot_id: int) -> bool:
        """Return whether there is a memslot of KVM's own with this id, in every address space."""

    def has_slot_at(self, gpa: int) -> bool:
        """Return whether there is a memslot at this address."""

    def zap_gfn_range(self, start: int, end: int) -> None:
        """Drop the translations of these guest frames."""


class AccessPage:
    """The memslot of the access page.

    `slot`: its id. `follows`: it is deleted and created again when the VM switches AVIC off and on;
    otherwise it stays, and only the translation of its gfn is dropped, or not even that: `stays`.
    `memslot_updates`: how
    many updates that took so far.
    """

    def __init__(
        self, memory: GuestMemory, slot: int, *, follows: bool, stays: bool = False
    ) -> None:
        self.present = False
        self.memslot_updates = 0
        self._memory = memory
        self._slot = slot
        self._follows = follows
        self._stays = stays

    def is_obstructed(self) -> bool:
        """Return whether a memslot of the VM's owner is at its address."""
        return self._memory.has_slot_at(BASE)

    def exists(self) -> bool:
        """Return whether the memory has the memslot; `present` says what it should have."""
        return self._memory.has_private_slot(self._slot)

    def create(self) -> None:
        """Create the memslot for the first vCPU that is created with AVIC active."""
        if not self.present:
            self.present = self._set(present=True) > 0

    def follow(self, *, active: bool) -> None:
        """React to the VM's switch of AVIC, which is off or on now."""
        if self._stays:
            return
        if not self._follows:
            if not active:
                self._memory.zap_gfn_range(BASE_GFN, BASE_GFN + 1)
        elif self.present != active:
            updates = self._set(present=active)
            self.memslot_updates += updates
            # [v3/07] avic_update_access_page: it stays absent if its memslot cannot be created.
            self.present = active and updates > 0

    def _set(self, *, present: bool) -> int:
        return self._memory.set_private_slot(self._slot, BASE, present=present)
