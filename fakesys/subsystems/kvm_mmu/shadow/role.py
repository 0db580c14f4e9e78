"""The role word of a shadow page: what it maps, packed as the kernel packs it.

Bits as in arch/x86/include/asm/kvm_host.h:union kvm_mmu_page_role (v6.1). Kernels before 5.13
have bit 4 the other way round (gpte_is_8_bytes); `MmuPolicy.base_role` takes care of that.
"""

from __future__ import annotations

LEVEL_MASK = 0xF
PTE_SIZE = 1 << 4
QUADRANT_SHIFT = 5
DIRECT = 1 << 7
ACCESS_SHIFT = 8
INVALID = 1 << 11
EFER_NX = 1 << 12
CR0_WP = 1 << 13
SMM_SHIFT = 24
SMM = 1 << SMM_SHIFT

EXEC, WRITE, USER = 1, 2, 4
ALL_ACCESS = EXEC | WRITE | USER


def level_of(role: int) -> int:
    """Return the level: 1 for a table of 4 KiB mappings, up to 4."""
    return role & LEVEL_MASK


def as_id_of(role: int) -> int:
    """Return the address space: 1 for pages of vCPUs in SMM."""
    return role >> SMM_SHIFT & 1


def access_of(role: int) -> int:
    """Return what the guest's upper tables allow, as EXEC | WRITE | USER."""
    return role >> ACCESS_SHIFT & ALL_ACCESS


def role_word(base: int, level: int, access: int = ALL_ACCESS, *, direct: bool) -> int:
    """Return the role of a page at `level`, given the bits that all pages of a VM share."""
    return base | level | access << ACCESS_SHIFT | (DIRECT if direct else 0)
