"""Events of guest memory: MMU notifiers, asynchronous page faults, dirty rings."""

from __future__ import annotations

from fakesys.core import c_types as c
from fakesys.core.tracepoint import Tracepoint, Variant
from fakesys.subsystems.kvm.features import KvmFeature
from fakesys.subsystems.kvm.symbols import unsigned32


class KvmUnmapHvaRange(Tracepoint):
    """The host unmaps a range of addresses."""

    system = "kvm"
    event = "kvm_unmap_hva_range"
    print_fmt = '"mmu notifier unmap range: %#016lx -- %#016lx", REC->start, REC->end'

    start: c.UnsignedLong
    end: c.UnsignedLong

    def text(self) -> str:
        return f"mmu notifier unmap range: {self.start:#016x} -- {self.end:#016x}"


class KvmAgeHva(Tracepoint):
    """The host asks whether a range was accessed, and clears the accessed bits."""

    system = "kvm"
    event = "kvm_age_hva"
    print_fmt = '"mmu notifier age hva: %#016lx -- %#016lx", REC->start, REC->end'

    start: c.UnsignedLong
    end: c.UnsignedLong

    def text(self) -> str:
        return f"mmu notifier age hva: {self.start:#016x} -- {self.end:#016x}"


class KvmTestAgeHva(Tracepoint):
    """The host asks whether an address was accessed."""

    system = "kvm"
    event = "kvm_test_age_hva"
    print_fmt = '"mmu notifier test age hva: %#016lx", REC->hva'

    hva: c.UnsignedLong

    def text(self) -> str:
        return f"mmu notifier test age hva: {self.hva:#016x}"


class KvmSetSpteHva(Tracepoint):
    """The host mapped another page at an address."""

    system = "kvm"
    event = "kvm_set_spte_hva"
    common_preempt_count = 1
    print_fmt = '"mmu notifier set pte hva: %#016lx", REC->hva'
    unless = KvmFeature.TRACE_NO_CHANGE_PTE

    hva: c.UnsignedLong

    def text(self) -> str:
        return f"mmu notifier set pte hva: {self.hva:#016x}"


class KvmAgePage(Tracepoint):
    """A page was found accessed or not, before 6.0."""

    system = "kvm"
    event = "kvm_age_page"
    print_fmt = (
        '"hva %llx gfn %llx level %u %s", REC->hva, REC->gfn, REC->level, '
        'REC->referenced ? "YOUNG" : "OLD"'
    )
    unless = KvmFeature.TRACE_FAULT_VCPU

    hva: c.KU64
    gfn: c.KU64
    level: c.KU8
    referenced: c.KU8

    def text(self) -> str:
        age = "YOUNG" if self.referenced else "OLD"
        return f"hva {self.hva:x} gfn {self.gfn:x} level {self.level} {age}"


class KvmTryAsyncGetPage(Tracepoint):
    """A page must be read in; the guest may continue meanwhile."""

    system = "kvm"
    event = "kvm_try_async_get_page"
    print_fmt = '"gva = %#llx, gfn = %#llx", REC->gva, REC->gfn'

    gva: c.U64
    gfn: c.KU64

    def text(self) -> str:
        return f"gva = {self.gva:#x}, gfn = {self.gfn:#x}"


class KvmAsyncPfRepeatedFault(Tracepoint):
    """The guest accessed a page again that is being read in."""

    system = "kvm"
    event = "kvm_async_pf_repeated_fault"
    print_fmt = '"gva = %#llx, gfn = %#llx", REC->gva, REC->gfn'

    gva: c.U64
    gfn: c.KU64

    def text(self) -> str:
        return f"gva = {self.gva:#x}, gfn = {self.gfn:#x}"

    variants = (
        Variant(
            unless=KvmFeature.TRACE_FAULT_VCPU,
            event="kvm_async_pf_doublefault",
        ),
    )


class KvmAsyncPfNotPresent(Tracepoint):
    """KVM tells the guest to wait for a page."""

    system = "kvm"
    event = "kvm_async_pf_not_present"
    print_fmt = '"token %#llx gva %#llx", REC->token, REC->gva'

    token: c.U64
    gva: c.U64

    def text(self) -> str:
        return f"token {self.token:#x} gva {self.gva:#x}"


class KvmAsyncPfReady(Tracepoint):
    """KVM tells the guest that a page was read in."""

    system = "kvm"
    event = "kvm_async_pf_ready"
    print_fmt = '"token %#llx gva %#llx", REC->token, REC->gva'

    token: c.U64
    gva: c.U64

    def text(self) -> str:
        return f"token {self.token:#x} gva {self.gva:#x}"


class KvmAsyncPfCompleted(Tracepoint):
    """A page was read in."""

    system = "kvm"
    event = "kvm_async_pf_completed"
    print_fmt = '"gva %#llx address %#lx", REC->gva, REC->address'

    address: c.UnsignedLong
    gva: c.KU64

    def text(self) -> str:
        return f"gva {self.gva:#x} address {self.address:#x}"


class KvmDirtyRingPush(Tracepoint):
    """A dirty page was entered into a vCPU's ring. `locked`: while mmu_lock was held."""

    system = "kvm"
    event = "kvm_dirty_ring_push"
    print_fmt = (
        '"ring %d: dirty 0x%x reset 0x%x slot %u offset 0x%llx (used %u)", REC->index, '
        "REC->dirty_index, REC->reset_index, REC->slot, REC->offset, "
        "REC->dirty_index - REC->reset_index"
    )
    needs = KvmFeature.TRACE_DIRTY_RING

    index: c.Int
    dirty_index: c.KU32
    reset_index: c.KU32
    slot: c.KU32
    offset: c.KU64
    locked: c.Bool

    def context(self) -> tuple[int, int]:
        """Return flags and preempt count, which holds the lock; a fast page fault takes none."""
        return 0, int(self.locked)

    def text(self) -> str:
        used = unsigned32(self.dirty_index - self.reset_index)
        return (
            f"ring {self.index}: dirty 0x{self.dirty_index:x} reset 0x{self.reset_index:x}"
            f" slot {self.slot} offset 0x{self.offset:x} (used {used})"
        )

    variants = (Variant(fields=("index", "dirty_index", "reset_index", "slot", "offset")),)


class KvmDirtyRingReset(Tracepoint):
    """The pages of a vCPU's ring were harvested."""

    system = "kvm"
    event = "kvm_dirty_ring_reset"
    print_fmt = (
        '"ring %d: dirty 0x%x reset 0x%x (used %u)", REC->index, REC->dirty_index, '
        "REC->reset_index, REC->dirty_index - REC->reset_index"
    )
    needs = KvmFeature.TRACE_DIRTY_RING

    index: c.Int
    dirty_index: c.KU32
    reset_index: c.KU32

    def text(self) -> str:
        used = unsigned32(self.dirty_index - self.reset_index)
        indexes = f"dirty 0x{self.dirty_index:x} reset 0x{self.reset_index:x}"
        return f"ring {self.index}: {indexes} (used {used})"


class KvmDirtyRingExit(Tracepoint):
    """A vCPU's ring is full."""

    system = "kvm"
    event = "kvm_dirty_ring_exit"
    print_fmt = '"vcpu %d", REC->vcpu_id'
    needs = KvmFeature.TRACE_DIRTY_RING

    vcpu_id: c.Int

    def text(self) -> str:
        return f"vcpu {self.vcpu_id}"


EVENTS: tuple[type[Tracepoint], ...] = (
    KvmUnmapHvaRange,
    KvmAgeHva,
    KvmTestAgeHva,
    KvmSetSpteHva,
    KvmAgePage,
    KvmTryAsyncGetPage,
    KvmAsyncPfRepeatedFault,
    KvmAsyncPfNotPresent,
    KvmAsyncPfReady,
    KvmAsyncPfCompleted,
    KvmDirtyRingPush,
    KvmDirtyRingReset,
    KvmDirtyRingExit,
)
