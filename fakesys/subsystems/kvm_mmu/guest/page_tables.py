"""Page tables of a guest: an identity map in slot 0."""

from __future__ import annotations

from collections.abc import Iterable
from errno import EINVAL

from fakesys.core.errors import KernelError
from fakesys.core.scheduling.resched import cond_resched, might_resched
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

CR3 = 0x10000
MAX_REGIONS = 512
# More are written in slices.
FEW_REGIONS = 4
_PAGE_DIRECTORY_POINTERS = 0x11000
_PAGE_DIRECTORY = 0x12000
_PAGE_TABLES = 0x20000
# P, RW, US; and with PSE.
_TABLE, _LARGE = 0x7, 0x87


def write_guest_tables(memory: VmMemory, *, regions: int = 32, large: Iterable[int] = ()) -> None:
    """Write an identity map of `regions` times 2 MiB into slot 0, the top table at CR3.

    The regions in `large` are mapped by one entry of 2 MiB each; their page tables are written too.
    Raises EINVAL without memory at gpa 0 in slot 0, or where its memory does not suffice.
    """
    slot = memory.slots.by_id.get(0)
    if slot is None or slot.memory is None or slot.base_gfn:
        raise KernelError(EINVAL, "slot 0 has no memory at gpa 0")
    last = _PAGE_TABLES + regions * 4096
    if not 0 < regions <= MAX_REGIONS or last > slot.npages << 12:
        raise KernelError(EINVAL, f"no room for {regions} page tables")
    big = set(large)
    base = slot.page(0) << 12

    def put(gpa: int, entry: int) -> None:
        assert slot.memory is not None
        slot.memory.write(base + gpa, entry.to_bytes(8, "little"))

    if regions > FEW_REGIONS:
        might_resched()
    put(CR3, _PAGE_DIRECTORY_POINTERS | _TABLE)
    put(_PAGE_DIRECTORY_POINTERS, _PAGE_DIRECTORY | _TABLE)
    for region in range(regions):
        cond_resched()
        start, table = region << 21, _PAGE_TABLES + region * 4096
        put(_PAGE_DIRECTORY + region * 8, start | _LARGE if region in big else table | _TABLE)
        for index in range(512):
            put(table + index * 8, start + index * 4096 | _TABLE)
