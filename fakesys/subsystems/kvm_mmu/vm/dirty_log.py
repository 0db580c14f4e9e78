"""Dirty logging: which pages of a slot were written since the log was read last."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from errno import EINVAL, ENOENT

from fakesys.core.errors import KernelError
from fakesys.core.scheduling.resched import cond_resched
from fakesys.subsystems.kvm.events.memory import KvmDirtyRingReset
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.dirty_ring import DirtyRing
from fakesys.subsystems.kvm_mmu.slots.memslots import LOG_DIRTY_PAGES, AddressSpaces, Memslot
from fakesys.subsystems.kvm_mmu.tdp.dirty import TdpDirty
from fakesys.subsystems.kvm_mmu.tdp.mmu import TdpMmu

# KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 and its arguments.
CAP_MANUAL_PROTECT = 168
MANUAL = 1
INITIALLY_SET = 2
# Pages per word of the bitmap: what CLEAR_DIRTY_LOG must be a multiple of.
WORD = 64
_CHUNK = 4096
_CLEAN = bytes(_CHUNK)
_LARGE_CHUNK = 1 << 20


class DirtyLog:
    """The dirty logs of a VM's slots.

    By default KVM_GET_DIRTY_LOG clears the log and write-protects its pages. With the manual
    capability it only reads, and KVM_CLEAR_DIRTY_LOG does the rest.
    """

    def __init__(self, arch: MmuArch, spaces: AddressSpaces, tdp: TdpMmu | None) -> None:
        self._arch = arch
        self._spaces = spaces
        self._tdp = None if tdp is None else tdp.dirty
        # kvm.eager_page_split, asked for at the time of the ioctl.
        self.splits_eagerly: Callable[[], bool] = lambda: True
        self.manual = 0
        # Of each vCPU's ring of dirty pages; 0: there are bitmaps.
        self.ring_entries = 0

    def set_manual(self, argument: int) -> None:
        """Enable or disable the manual capability. Raises EINVAL for an argument the kernel lacks.

        Like kvm_main.c:kvm_vm_ioctl_enable_cap_generic (v6.1).
        """
        allowed = self._arch.policy.manual_dirty_caps if argument & MANUAL else MANUAL
        if argument & ~allowed:
            raise KernelError(EINVAL, f"{argument} is not within {allowed:#x}")
        self.manual = argument

    def reset_ring(self, ring: DirtyRing | None) -> int:
        """Protect what was harvested from a ring; return how many entries.

        Like dirty_ring.c:kvm_dirty_ring_reset (v6.1).
        """
        if ring is None:
            return 0
        entries = ring.harvest()
        with self._arch.mmu_lock:
            for number, offset in entries:
                slot = self._spaces.slot(number)
                if slot is not None and slot.logs_dirty and offset < slot.npages:
                    self._protect(slot, offset, 1)
        if entries and KvmDirtyRingReset in self._arch.bus.wanted:
            self._arch.bus.emit(
                KvmDirtyRingReset(
                    index=ring.index, dirty_index=ring.dirty_index, reset_index=ring.reset_index
                )
            )
        return len(entries)

    @property
    def initially_set(self) -> bool:
        """Whether all pages of a new log are dirty at first."""
        return self.manual == MANUAL | INITIALLY_SET

    def prepare(self, slot: Memslot) -> None:
        """Add or remove the slot's bitmap after a change of its flags."""
        if not slot.flags & LOG_DIRTY_PAGES or self.ring_entries:
            slot.dirty = None
        elif slot.dirty is None:
            slot.dirty = bytearray(bitmap_bytes(slot.npages))
            if self.initially_set:
                _set_all(slot.dirty, slot.npages)

    def commit(self, slot: Memslot) -> None:
        """Write-protect a slot that is logged now; let large pages come back to one that is not.

        Precondition: `prepare` was called. Like x86.c:kvm_mmu_slot_apply_flags (v6.1).
        """
        if slot.read_only:
            return
        with self._arch.mmu_lock:
            if not slot.logs_dirty:
                if self._tdp is not None:
                    self._tdp.zap_collapsible(slot)
                elif self._zap_collapsible(slot):
                    self._arch.flush_remote_tlbs()
            elif not self.initially_set:
                self._protect_all(slot)

    def _protect_all(self, slot: Memslot) -> None:
        if self._tdp is not None:
            if self.splits_eagerly():
                self._tdp.split(slot, 0, slot.npages)
            self._tdp.protect(slot)
            self._arch.flush_remote_tlbs()
            return
        changed = False
        tables = self._tables(slot)
        while tables:
            cond_resched()
            row, mask = tables.popleft()
            changed |= self._arch.sptes.protect(row, mask, pt_protect=False)
        if changed or self._arch.policy.log_dirty_always_flushes:
            self._arch.flush_remote_tlbs()

    def get(self, number: int) -> list[tuple[int, int]]:
        """Return ranges of dirty page offsets: KVM_GET_DIRTY_LOG.

        Raises EINVAL for a number that no slot can have and ENOENT for a slot that is not logged.
        Like kvm_main.c:kvm_get_dirty_log_protect (v6.1).
        """
        slot = self._logged(number)
        assert slot.dirty is not None
        dirty = list(self.ranges(slot))
        if self.manual or not dirty:
            return dirty
        with self._arch.mmu_lock:
            for first, words in _dirty_words(slot.dirty):
                self._protect(slot, first, words)
            _set_clean(slot.dirty, 0, len(slot.dirty))
            self._arch.flush_remote_tlbs()
        return dirty

    def clear(self, number: int, first: int, npages: int) -> None:
        """Clear all pages in a range: KVM_CLEAR_DIRTY_LOG.

        Raises EINVAL for a range that is not made of whole words of the slot, and ENOENT for a slot
        that is not logged. Like kvm_main.c:kvm_clear_dirty_log_protect (v6.1).
        """
        if first % WORD:
            self._spaces.slot(number)
            raise KernelError(EINVAL, f"{first} is no multiple of {WORD}")
        slot = self._logged(number)
        assert slot.dirty is not None
        left = slot.npages - first
        if first > slot.npages or npages > left or (npages < left and npages % WORD):
            raise KernelError(
                EINVAL, f"{npages} pages from {first} are not whole words of the slot"
            )
        low, high = first // 8, -(-(first + npages) // 8)
        cleared = False
        with self._arch.mmu_lock:
            for offset, mask in _dirty_words(slot.dirty, low, high):
                self._protect(slot, offset, mask)
                cleared = True
            _set_clean(slot.dirty, low, high)
            if cleared:
                self._arch.flush_remote_tlbs()

    @staticmethod
    def ranges(slot: Memslot) -> Iterator[tuple[int, int]]:
        """Yield first and last page offset of each run of dirty pages.

        Precondition: it is logged.
        """
        assert slot.dirty is not None
        start = last = -2
        for first, mask in _dirty_words(slot.dirty):
            for low, high in _runs(mask):
                if first + low != last + 1:
                    if last >= 0:
                        yield start, last
                    start = first + low
                last = first + high
        if last >= 0:
            yield start, last

    def _tables(self, slot: Memslot) -> deque[tuple[int, int]]:
        """Return tables and masks of the sptes that map the slot, to be freed one by one."""
        return deque(self._arch.sptes.tables(slot.base_gfn, slot.npages, slot.as_id))

    def _protect(self, slot: Memslot, first: int, mask: int) -> None:
        """Take W from page `first` + N of a slot for each bit N.

        Like mmu.c:kvm_arch_mmu_enable_log_dirty_pt_masked (v6.1).
        """
        if self._tdp is not None:
            if self.initially_set:
                self._split_words(self._tdp, slot, first, mask)
            self._tdp.protect_pages(slot, first, mask)
            return
        self._arch.sptes.protect_pages(slot.base_gfn + first, mask, slot.as_id)

    def _split_words(self, tdp: TdpDirty, slot: Memslot, first: int, mask: int) -> None:
        """Split, or protect for good, the large leaves that map what is cleared of a word."""
        for start in range(0, mask.bit_length(), WORD):
            word = mask >> start & (1 << WORD) - 1
            if not word:
                continue
            low = first + start + (word & -word).bit_length() - 1
            high = first + start + word.bit_length() - 1
            if self.splits_eagerly():
                tdp.split(slot, low, high - low + 1)
            tdp.protect_large(slot, low)
            if (slot.base_gfn + low) >> 9 != (slot.base_gfn + high) >> 9:
                tdp.protect_large(slot, high)

    def _logged(self, number: int) -> Memslot:
        slot = self._spaces.slot(number)
        if slot is None or slot.dirty is None:
            raise KernelError(ENOENT, f"slot {number} has no dirty log")
        return slot

    def _zap_collapsible(self, slot: Memslot) -> bool:
        """Drop small sptes that a large one could replace; return whether there were any.

        Like mmu.c:kvm_mmu_zap_collapsible_spte (v6.1).
        """
        if slot.memory is None or not slot.memory.has_large:
            return False
        dropped = 0
        tables = self._tables(slot)
        while tables:
            cond_resched()
            row, mask = tables.popleft()
            gfn = self._arch.pages.gfn[row]
            if not self._arch.sptes.is_direct(row, 1, slot.as_id) or not slot.fits_large(gfn):
                continue
            if slot.memory.is_large(slot.page(gfn)):
                dropped += self._arch.sptes.drop(row, mask)
        return dropped > 0


def bitmap_bytes(npages: int) -> int:
    """Return the length of the log of a slot: whole words of 64 pages."""
    return -(-npages // WORD) * 8


def _set_all(bitmap: bytearray, npages: int) -> None:
    bitmap[: npages // 8] = b"\xff" * (npages // 8)
    if npages % 8:
        bitmap[npages // 8] = (1 << npages % 8) - 1


def _set_clean(bitmap: bytearray, low: int, high: int) -> None:
    for start in range(low, high, _LARGE_CHUNK):
        cond_resched()
        end = min(start + _LARGE_CHUNK, high)
        bitmap[start:end] = bytes(end - start)


def _dirty_words(
    bitmap: bytearray, low: int = 0, high: int | None = None
) -> Iterator[tuple[int, int]]:
    """Yield page offset and mask of each 64 bytes from `low` to `high` that are not clean."""
    stop = len(bitmap) if high is None else high
    for start in range(low, stop, _CHUNK):
        cond_resched()
        chunk = bytes(bitmap[start : min(start + _CHUNK, stop)])
        if chunk == _CLEAN[: len(chunk)]:
            continue
        for at in range(0, len(chunk), WORD):
            mask = int.from_bytes(chunk[at : at + WORD], "little")
            if mask:
                yield (start + at) * 8, mask


def _runs(mask: int) -> Iterator[tuple[int, int]]:
    """Yield first and last bit of each run of ones, ascending."""
    at = 0
    while mask:
        gap = (mask & -mask).bit_length() - 1
        mask >>= gap
        at += gap
        length = (~mask & mask + 1).bit_length() - 1
        yield at, at + length - 1
        mask >>= length
        at += length
