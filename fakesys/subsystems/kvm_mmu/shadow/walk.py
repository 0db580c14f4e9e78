"""Walks through the shadow tables, as the processor and the page fault handler do them.

Follows mmu.h:for_each_shadow_entry and `struct kvm_shadow_walk_iterator` (mmu.c, v6.1).
"""

from __future__ import annotations

from typing import NamedTuple

from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.links import ShadowLinks
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE
from fakesys.subsystems.kvm_mmu.shadow.sptes import EMPTY, FULL_RW, MIXED
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu

# Bits of a page fault's error code.
PF_PRESENT, PF_WRITE, PF_USER, PF_RSVD, PF_FETCH = 1, 2, 4, 8, 16


class ShadowEntry(NamedTuple):
    """An entry of a shadow table that a walk has reached."""

    row: int
    spte_index: int
    level: int


class ShadowWalker:
    """Walks from the roots of a vCPU to the last entry for an address."""

    def __init__(self, arch: MmuArch, links: ShadowLinks) -> None:
        self._sptes = arch.sptes
        self._pages = arch.pages
        self._links = links

    def first(self, vcpu: VcpuMmu, address: int) -> ShadowEntry:
        """Return the root's entry for an address. Precondition: the vCPU has roots loaded."""
        if len(vcpu.roots) == 1:
            return ShadowEntry(vcpu.roots[0], address >> 39 & 511, 4)
        return ShadowEntry(vcpu.roots[address >> 30 & 3], address >> 21 & 511, 2)

    def last(self, vcpu: VcpuMmu, address: int) -> ShadowEntry:
        """Return the last entry for an address: a leaf spte, or one that is not present.

        Precondition: the vCPU has roots loaded.
        """
        roots = vcpu.roots
        if len(roots) == 1:
            row, level = roots[0], 4
        else:
            row, level = roots[address >> 30 & 3], 2
        children = self._links.children
        shift = 3 + 9 * level
        while True:
            index = address >> shift & 511
            below = children.get(row)
            if below is None or below[index] == NONE:
                return ShadowEntry(row, index, level)
            row = below[index]
            level -= 1
            shift -= 9

    def allows(self, vcpu: VcpuMmu, address: int, error: int) -> bool:
        """Access memory as the processor does: return whether the tables allow it, else it faults.

        `error`: the kind of access as PF_WRITE, PF_FETCH, PF_USER. Sets the A bit of the spte.
        Without roots there is the one that maps nothing.
        """
        if not vcpu.roots:
            return False
        row, index, _ = self.last(vcpu, address)
        state = self._pages.leaf_state[row]
        if state != MIXED:
            return state == FULL_RW or (state != EMPTY and not error & PF_WRITE)
        leaf = self._sptes.leaves[row]
        bit = 1 << index
        if not leaf.present & bit:
            return False
        if error & PF_WRITE and not leaf.writable & bit:
            return False
        if (error & PF_FETCH and leaf.no_exec & bit) or (error & PF_USER and leaf.no_user & bit):
            return False
        if not leaf.accessed & bit:
            leaf.accessed |= bit
            self._sptes.pack(row)
        return True

    def error_code(self, vcpu: VcpuMmu, address: int, error: int) -> int:
        """Return the error code of a fault at an address: `error` with P and RSVD added."""
        if not vcpu.roots:
            return error
        row, index, _ = self.last(vcpu, address)
        if self._sptes.present(row) >> index & 1:
            return error | PF_PRESENT
        if self._sptes.is_mmio_spte(row, index):
            return error | PF_PRESENT | PF_RSVD
        return error
