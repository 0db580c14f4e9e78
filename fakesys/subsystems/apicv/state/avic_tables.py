"""The two tables that AVIC hardware reads: who has an APIC id, who is behind a logical id.

Like arch/x86/kvm/svm/avic.c (v6.1): avic_get_logical_id_entry, avic_ldr_write.
"""

from __future__ import annotations

from msgspec import Struct

VALID = 1 << 63
IS_RUNNING = 1 << 62
LOGICAL_VALID = 1 << 31
CLUSTER_DFR = 0x0FFFFFFF


class PhysicalEntry(Struct, eq=False):
    """One 64-bit entry. `vcpu_id`: whose backing page, at `page`, it points to.

    `apic_id`: its place.

    Its bit for "is running" is kept in one mask for all vCPUs: `ApicVm.running`.
    """

    vcpu_id: int
    page: int
    host_id: int = 0
    apic_id: int = 0

    def bits(self, *, running: bool) -> int:
        """As hardware has it."""
        return VALID | (IS_RUNNING if running else 0) | self.page | self.host_id


class PhysicalTable:
    """Entries by guest APIC id."""

    def __init__(self) -> None:
        self.entries: dict[int, PhysicalEntry] = {}

    def add(self, apic_id: int, entry: PhysicalEntry) -> None:
        """A vCPU was created."""
        entry.apic_id = apic_id
        self.entries[apic_id] = entry

    def move(self, entry: PhysicalEntry, apic_id: int) -> None:
        """The vCPU answers to another id now; whoever had that one loses it."""
        if self.entries.get(entry.apic_id) is entry:
            del self.entries[entry.apic_id]
        self.add(apic_id, entry)


class LogicalTable:
    """Guest physical ids by index: flat 0-7, cluster*4 + bit."""

    def __init__(self) -> None:
        self.entries: dict[int, int] = {}

    def set(self, ldr: int, dfr: int, apic_id: int) -> None:
        """Make the entry of a logical id valid."""
        index = logical_index(ldr, dfr)
        if index is not None:
            self.entries[index] = apic_id

    def clear(self, ldr: int, dfr: int) -> None:
        """Make it invalid."""
        index = logical_index(ldr, dfr)
        if index is not None:
            self.entries.pop(index, None)


def logical_index(ldr: int, dfr: int) -> int | None:
    """The index that a vCPU with these registers has; None for none."""
    mda = ldr >> 24
    if dfr != CLUSTER_DFR:
        return _lowest(mda) if mda else None
    cluster, bits = mda >> 4, mda & 0xF
    if not bits or cluster == 0xF:
        return None
    return cluster * 4 + _lowest(bits)


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
