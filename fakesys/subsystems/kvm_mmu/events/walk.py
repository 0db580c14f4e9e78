"""Events of walks through the guest's tables, and of sptes for emulated pages."""

from __future__ import annotations

from fakesys.core import c_types as c
from fakesys.core.tracepoint import Tracepoint, Variant, hashed
from fakesys.subsystems.kvm.symbols import FAULT_FLAGS, FEW_FAULT_FLAGS, OLD_FAULT_FLAGS, Flags
from fakesys.subsystems.kvm_mmu.events.features import MmuFeature


def _walk_format(flags: Flags) -> str:
    return (
        '"addr %llx pferr %x %s", REC->addr, REC->pferr, '
        f'__print_flags(REC->pferr, "|", {flags.listing})'
    )


def _walk(event: KvmMmuPagetableWalk, flags: Flags) -> str:
    return f"addr {event.addr:x} pferr {event.pferr:x} {flags.names(event.pferr)}"


def _error_format(flags: Flags) -> str:
    return f'"pferr %x %s", REC->pferr, __print_flags(REC->pferr, "|", {flags.listing})'


def _error(event: KvmMmuWalkerError, flags: Flags) -> str:
    return f"pferr {event.pferr:x} {flags.names(event.pferr)}"


class KvmMmuPagetableWalk(Tracepoint):
    """A walk through the guest's tables begins."""

    system = "kvmmmu"
    event = "kvm_mmu_pagetable_walk"
    print_fmt = _walk_format(FAULT_FLAGS)

    addr: c.U64
    pferr: c.U32

    def text(self) -> str:
        return _walk(self, FAULT_FLAGS)

    variants = (
        Variant(
            unless=MmuFeature.TRACE_WIDE_CODE,
            print_fmt=_walk_format(OLD_FAULT_FLAGS),
            text=lambda self: _walk(self, OLD_FAULT_FLAGS),
        ),
        Variant(
            unless=MmuFeature.TRACE_CODE_NAMES,
            print_fmt=_walk_format(FEW_FAULT_FLAGS),
            text=lambda self: _walk(self, FEW_FAULT_FLAGS),
        ),
    )


class KvmMmuPagingElement(Tracepoint):
    """One entry of the guest's tables was read in a walk."""

    system = "kvmmmu"
    event = "kvm_mmu_paging_element"
    print_fmt = '"pte %llx level %u", REC->pte, REC->level'

    pte: c.U64
    level: c.U32

    def text(self) -> str:
        return f"pte {self.pte:x} level {self.level}"


class KvmMmuSetAccessedBit(Tracepoint):
    """A walk set the accessed bit of a guest's entry."""

    system = "kvmmmu"
    event = "kvm_mmu_set_accessed_bit"
    print_fmt = '"gpa %llx", REC->gpa'

    gpa: c.U64

    def text(self) -> str:
        return f"gpa {self.gpa:x}"


class KvmMmuSetDirtyBit(Tracepoint):
    """A walk set the dirty bit of a guest's entry."""

    system = "kvmmmu"
    event = "kvm_mmu_set_dirty_bit"
    print_fmt = '"gpa %llx", REC->gpa'

    gpa: c.U64

    def text(self) -> str:
        return f"gpa {self.gpa:x}"


class KvmMmuWalkerError(Tracepoint):
    """A walk found that the guest may not do this."""

    system = "kvmmmu"
    event = "kvm_mmu_walker_error"
    print_fmt = _error_format(FAULT_FLAGS)

    pferr: c.U32

    def text(self) -> str:
        return _error(self, FAULT_FLAGS)

    variants = (
        Variant(
            unless=MmuFeature.TRACE_WIDE_CODE,
            print_fmt=_error_format(OLD_FAULT_FLAGS),
            text=lambda self: _error(self, OLD_FAULT_FLAGS),
        ),
        Variant(
            unless=MmuFeature.TRACE_CODE_NAMES,
            print_fmt=_error_format(FEW_FAULT_FLAGS),
            text=lambda self: _error(self, FEW_FAULT_FLAGS),
        ),
    )


class MarkMmioSpte(Tracepoint):
    """An spte now says that its page is emulated."""

    system = "kvmmmu"
    event = "mark_mmio_spte"
    common_preempt_count = 1
    print_fmt = '"sptep:%p gfn %llx access %x gen %x", REC->sptep, REC->gfn, REC->access, REC->gen'

    sptep: c.VoidPointer
    gfn: c.Gfn
    access: c.Unsigned
    gen: c.UnsignedInt

    def text(self) -> str:
        return (
            f"sptep:{hashed(self.sptep)} gfn {self.gfn:x} access {self.access:x} gen {self.gen:x}"
        )


class HandleMmioPageFault(Tracepoint):
    """A fault on a page that is emulated, known from its spte."""

    system = "kvmmmu"
    event = "handle_mmio_page_fault"
    print_fmt = '"addr:%llx gfn %llx access %x", REC->addr, REC->gfn, REC->access'

    addr: c.KU64
    gfn: c.Gfn
    access: c.Unsigned

    def text(self) -> str:
        return f"addr:{self.addr:x} gfn {self.gfn:x} access {self.access:x}"


class CheckMmioSpte(Tracepoint):
    """Is the generation in an spte of an emulated page still the present one?"""

    system = "kvmmmu"
    event = "check_mmio_spte"
    print_fmt = (
        '"spte %llx kvm_gen %x spte-gen %x valid %d", REC->spte, REC->kvm_gen, REC->spte_gen, '
        "REC->kvm_gen == REC->spte_gen"
    )

    kvm_gen: c.UnsignedInt
    spte_gen: c.UnsignedInt
    spte: c.KU64

    def text(self) -> str:
        return (
            f"spte {self.spte:x} kvm_gen {self.kvm_gen:x} spte-gen {self.spte_gen:x}"
            f" valid {self.kvm_gen == self.spte_gen:d}"
        )
