"""The two tables that AVIC hardware reads: physical APIC id to vCPU, logical id to physical id.

Like arch/x86/kvm/svm/avic.c (v6.1): avic_get_logical_id_entry, avic_ldr_write.
"""

from __future__ import annotations

from msgspec import Struct

VALID = 1 << 63
IS_RUNNING = 1 << 62
LOGICAL_VALID = 1 << 31
CLUSTER_DFR = 0x0FFFFFFF
BACKING_PAGES = 0x1_0000_0000
"""Host address of the first APIC backing page; one page for each vCPU follows."""
PAGE = 4096


def backing_page(vcpu_id: int) -> int:
    """Return the host address of a vCPU's APIC backing page."""
    return BACKING_PAGES + vcpu_id * PAGE


class PhysicalEntry(Struct, eq=False):
    """One 64-bit entry of the physical id table.

    `page`: address of the backing page of vCPU `vcpu_id`. `host_id`: APIC id of the host CPU that
    the vCPU was last loaded on. `apic_id`: the index of this entry. IsRunning of all entries is
    kept in one mask: `ApicVm.running`.
    """

    vcpu_id: int
    page: int
    host_id: int = 0
    apic_id: int = 0

    def bits(self, *, running: bool) -> int:
        """Return the entry as hardware has it."""
        return VALID | (IS_RUNNING if running else 0) | self.page | self.host_id


class PhysicalTable:
    """The physical id table: entries by guest APIC id."""

    def __init__(self) -> None:
        self.entries: dict[int, PhysicalEntry] = {}

    def add(self, apic_id: int, entry: PhysicalEntry) -> None:
        """Set the entry of this APIC id."""
        entry.apic_id = apic_id
        self.entries[apic_id] = entry

    def move(self, entry: PhysicalEntry, apic_id: int) -> None:
        """Move an entry to another APIC id; it replaces the entry that was there."""
        if self.entries.get(entry.apic_id) is entry:
            del self.entries[entry.apic_id]
        self.add(apic_id, entry)


class LogicalTable:
    """The logical id table: guest physical ids by index, flat 0-7, else cluster * 4 + bit."""

    def __init__(self) -> None:
        self.entries: dict[int, int] = {}

    def set(self, ldr: int, dfr: int, apic_id: int) -> None:
        """Make the entry for these registers valid; it points to `apic_id`."""
        index = logical_index(ldr, dfr)
        if index is not None:
            self.entries[index] = apic_id

    def clear(self, ldr: int, dfr: int) -> None:
        """Make the entry for these registers invalid."""
        index = logical_index(ldr, dfr)
        if index is not None:
            self.entries.pop(index, None)


class AvicTables:
    """Both tables of a VM. `with_entry`: mask of the vCPUs that have a physical entry."""

    def __init__(self) -> None:
        self.physical = PhysicalTable()
        self.logical = LogicalTable()
        self.with_entry = 0


def logical_index(ldr: int, dfr: int) -> int | None:
    """Return the index of a vCPU with these registers in the logical table; None for none."""
    mda = ldr >> 24
    if dfr != CLUSTER_DFR:
        return _lowest(mda) if mda else None
    cluster, bits = mda >> 4, mda & 0xF
    if not bits or cluster == 0xF:
        return None
    return cluster * 4 + _lowest(bits)


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
