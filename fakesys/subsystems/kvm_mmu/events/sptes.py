"""Events of single sptes: set, changed, split, and faults that one of them solves."""

from __future__ import annotations

from fakesys.core import c_types as c
from fakesys.core.tracepoint import Tracepoint, Variant, hashed
from fakesys.subsystems.kvm.symbols import FAULT_FLAGS, FEW_FAULT_FLAGS, OLD_FAULT_FLAGS, Flags
from fakesys.subsystems.kvm_mmu.events.features import MmuFeature

# Results of a fault: arch/x86/kvm/mmu/mmu_internal.h:RET_PF_* as 6.12 and 6.1 number them.
RET_PF_FIXED, RET_PF_SPURIOUS = 5, 6
OLD_RET_PF_FIXED, OLD_RET_PF_SPURIOUS = 4, 5
WRITABLE = 1 << 1


def _fast_fault(event: FastPageFault, flags: str, spurious: bool, fixed: bool) -> str:
    return (
        f"vcpu {event.vcpu_id} gva {event.cr2_or_gpa:x} error_code {flags}"
        f" sptep {hashed(event.sptep)} old {event.old_spte:#x} new {event.new_spte:x}"
        f" spurious {spurious:d} fixed {fixed:d}"
    )


def _fast_fault_format(flags: Flags, fixed: int, spurious: int) -> str:
    return (
        '"vcpu %d gva %llx error_code %s sptep %p old %#llx new %llx spurious %d fixed %d", '
        "REC->vcpu_id, REC->cr2_or_gpa, "
        f'__print_flags(REC->error_code, "|", {flags.listing}), '
        "REC->sptep, REC->old_spte, REC->new_spte, "
        f"REC->ret == {spurious}, REC->ret == {fixed}"
    )


class FastPageFault(Tracepoint):
    """A fault that was handled without the lock. `ret`: how it ended, RET_PF_*."""

    system = "kvmmmu"
    event = "fast_page_fault"
    print_fmt = _fast_fault_format(FAULT_FLAGS, RET_PF_FIXED, RET_PF_SPURIOUS)
    needs = MmuFeature.TRACE_TDP

    vcpu_id: c.Int
    cr2_or_gpa: c.Gpa
    error_code: c.KU64
    sptep: c.U64Pointer
    old_spte: c.KU64
    new_spte: c.KU64
    ret: c.Int

    def text(self) -> str:
        return _fast_fault(
            self,
            FAULT_FLAGS.names(self.error_code),
            self.ret == RET_PF_SPURIOUS,
            self.ret == RET_PF_FIXED,
        )

    variants = (
        Variant(
            unless=MmuFeature.TRACE_WIDE_CODE,
            fields=(
                "vcpu_id",
                "cr2_or_gpa",
                ("error_code", c.c_type(c.KU32)),
                "sptep",
                "old_spte",
                "new_spte",
                "ret",
            ),
            print_fmt=_fast_fault_format(OLD_FAULT_FLAGS, OLD_RET_PF_FIXED, OLD_RET_PF_SPURIOUS),
            text=lambda self: _fast_fault(
                self,
                OLD_FAULT_FLAGS.names(self.error_code),
                self.ret == OLD_RET_PF_SPURIOUS,
                self.ret == OLD_RET_PF_FIXED,
            ),
        ),
        Variant(
            unless=MmuFeature.TRACE_CODE_NAMES,
            print_fmt=_fast_fault_format(FEW_FAULT_FLAGS, RET_PF_FIXED, RET_PF_SPURIOUS),
            text=lambda self: _fast_fault(
                self,
                FEW_FAULT_FLAGS.names(self.error_code),
                self.ret == RET_PF_SPURIOUS,
                self.ret == RET_PF_FIXED,
            ),
        ),
    )


_RETRY = ("error_code", "sptep", "old_spte", "new_spte", "retry")


def _retry_format(address: str, conversion: str) -> str:
    return (
        f'"vcpu %d gva %{conversion} error_code %s sptep %p old %#llx new %llx'
        f' spurious %d fixed %d", REC->vcpu_id, REC->{address}, '
        f'__print_flags(REC->error_code, "|", {OLD_FAULT_FLAGS.listing}), '
        "REC->sptep, REC->old_spte, REC->new_spte, "
        "(REC->retry && is_writable_pte(REC->old_spte)), "
        "(REC->retry && is_writable_pte(REC->new_spte))"
    )


def _retried(event: FastPageFaultRetry, address: int) -> str:
    flags = OLD_FAULT_FLAGS.names(event.error_code)
    spurious = event.retry and bool(event.old_spte & WRITABLE)
    fixed = event.retry and bool(event.new_spte & WRITABLE)
    return (
        f"vcpu {event.vcpu_id} gva {address:x} error_code {flags}"
        f" sptep {hashed(event.sptep)} old {event.old_spte:#x} new {event.new_spte:x}"
        f" spurious {spurious:d} fixed {fixed:d}"
    )


class FastPageFaultRetry(Tracepoint):
    """A fault that was handled without the lock, in kernels that do not record RET_PF_*.

    `gva` and `cr2_or_gpa` are the same address; a kernel records it under one of the names.
    """

    system = "kvmmmu"
    event = "fast_page_fault"
    print_fmt = _retry_format("gva", "lx")
    unless = MmuFeature.TRACE_TDP

    vcpu_id: c.Int
    gva: c.Gva
    cr2_or_gpa: c.Gpa
    error_code: c.KU32
    sptep: c.U64Pointer
    old_spte: c.KU64
    new_spte: c.KU64
    retry: c.Bool

    def text(self) -> str:
        return _retried(self, self.gva)

    variants = (
        Variant(
            needs=MmuFeature.TRACE_FAULT_GPA,
            fields=("vcpu_id", "cr2_or_gpa", *_RETRY),
            print_fmt=_retry_format("cr2_or_gpa", "llx"),
            text=lambda self: _retried(self, self.cr2_or_gpa),
        ),
        Variant(fields=("vcpu_id", "gva", *_RETRY)),
    )


class KvmMmuSetSpte(Tracepoint):
    """An spte was set. `u`: user access, -1 where the paging mode has no such bit."""

    system = "kvmmmu"
    event = "kvm_mmu_set_spte"
    common_preempt_count = 1
    print_fmt = (
        '"gfn %llx spte %llx (%s%s%s%s) level %d at %llx", REC->gfn, REC->spte, '
        'REC->r ? "r" : "-", REC->spte & (1ULL << 1) ? "w" : "-", REC->x ? "x" : "-", '
        'REC->u == -1 ? "" : (REC->u ? "u" : "-"), REC->level, REC->sptep'
    )
    needs = MmuFeature.TRACE_SPTES

    gfn: c.KU64
    spte: c.KU64
    sptep: c.KU64
    level: c.KU8
    r: c.Bool
    x: c.Bool
    u: c.SignedChar

    def text(self) -> str:
        user = "" if self.u == -1 else "u" if self.u else "-"
        return (
            f"gfn {self.gfn:x} spte {self.spte:x} ({'r' if self.r else '-'}"
            f"{'w' if self.spte & WRITABLE else '-'}{'x' if self.x else '-'}{user})"
            f" level {self.level} at {self.sptep:x}"
        )

    variants = (
        # An unsigned char holds no -1: these kernels print a `u` for it.
        Variant(
            unless=MmuFeature.TRACE_TDP,
            fields=("gfn", "spte", "sptep", "level", "r", "x", ("u", c.c_type(c.KU8))),
        ),
    )


class KvmMmuSpteRequested(Tracepoint):
    """A fault wants this page mapped."""

    system = "kvmmmu"
    event = "kvm_mmu_spte_requested"
    common_preempt_count = 1
    print_fmt = '"gfn %llx pfn %llx level %d", REC->gfn, REC->pfn, REC->level'
    needs = MmuFeature.TRACE_SPTES

    gfn: c.KU64
    pfn: c.KU64
    level: c.KU8

    def text(self) -> str:
        return f"gfn {self.gfn:x} pfn {self.pfn:x} level {self.level}"


class KvmTdpMmuSpteChanged(Tracepoint):
    """The TDP MMU changed an spte."""

    system = "kvmmmu"
    event = "kvm_tdp_mmu_spte_changed"
    common_preempt_count = 1
    print_fmt = (
        '"as id %d gfn %llx level %d old_spte %llx new_spte %llx", REC->as_id, REC->gfn, '
        "REC->level, REC->old_spte, REC->new_spte"
    )
    needs = MmuFeature.TRACE_TDP

    gfn: c.KU64
    old_spte: c.KU64
    new_spte: c.KU64
    level: c.KU8
    as_id: c.KU8

    def text(self) -> str:
        return (
            f"as id {self.as_id} gfn {self.gfn:x} level {self.level}"
            f" old_spte {self.old_spte:x} new_spte {self.new_spte:x}"
        )


class KvmMmuSplitHugePage(Tracepoint):
    """A huge page is split for dirty logging. `errno`: 0 when it was."""

    system = "kvmmmu"
    event = "kvm_mmu_split_huge_page"
    common_preempt_count = 1
    print_fmt = (
        '"gfn %llx spte %llx level %d errno %d", REC->gfn, REC->spte, REC->level, REC->errno'
    )
    needs = MmuFeature.TRACE_TDP

    gfn: c.KU64
    spte: c.KU64
    level: c.Int
    errno: c.Int

    def text(self) -> str:
        return f"gfn {self.gfn:x} spte {self.spte:x} level {self.level} errno {self.errno}"
