"""The events of system `kvmmmu`: arch/x86/kvm/mmu/mmutrace.h (v6.18, v6.1), mmutrace.h (v5.4)."""

from __future__ import annotations

from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.kvm_mmu.events.pages import (
    KvmMmuGetPage,
    KvmMmuPrepareZapPage,
    KvmMmuSyncPage,
    KvmMmuUnsyncPage,
    KvmMmuZapAllFast,
    ShadowPage,
    ShadowPageFields,
)
from fakesys.subsystems.kvm_mmu.events.sptes import (
    OLD_RET_PF_FIXED,
    OLD_RET_PF_SPURIOUS,
    RET_PF_FIXED,
    RET_PF_SPURIOUS,
    FastPageFault,
    FastPageFaultRetry,
    KvmMmuSetSpte,
    KvmMmuSplitHugePage,
    KvmMmuSpteRequested,
    KvmTdpMmuSpteChanged,
)
from fakesys.subsystems.kvm_mmu.events.walk import (
    CheckMmioSpte,
    HandleMmioPageFault,
    KvmMmuPagetableWalk,
    KvmMmuPagingElement,
    KvmMmuSetAccessedBit,
    KvmMmuSetDirtyBit,
    KvmMmuWalkerError,
    MarkMmioSpte,
)

__all__ = [
    "EVENTS",
    "OLD_RET_PF_FIXED",
    "OLD_RET_PF_SPURIOUS",
    "RET_PF_FIXED",
    "RET_PF_SPURIOUS",
    "CheckMmioSpte",
    "FastPageFault",
    "FastPageFaultRetry",
    "HandleMmioPageFault",
    "KvmMmuGetPage",
    "KvmMmuPagetableWalk",
    "KvmMmuPagingElement",
    "KvmMmuPrepareZapPage",
    "KvmMmuSetAccessedBit",
    "KvmMmuSetDirtyBit",
    "KvmMmuSetSpte",
    "KvmMmuSplitHugePage",
    "KvmMmuSpteRequested",
    "KvmMmuSyncPage",
    "KvmMmuUnsyncPage",
    "KvmMmuWalkerError",
    "KvmMmuZapAllFast",
    "KvmTdpMmuSpteChanged",
    "MarkMmioSpte",
    "ShadowPage",
    "ShadowPageFields",
]

EVENTS: tuple[type[Tracepoint], ...] = (
    KvmMmuPagetableWalk,
    KvmMmuPagingElement,
    KvmMmuSetAccessedBit,
    KvmMmuSetDirtyBit,
    KvmMmuWalkerError,
    KvmMmuGetPage,
    KvmMmuSyncPage,
    KvmMmuUnsyncPage,
    KvmMmuPrepareZapPage,
    MarkMmioSpte,
    HandleMmioPageFault,
    FastPageFault,
    FastPageFaultRetry,
    KvmMmuZapAllFast,
    CheckMmioSpte,
    KvmMmuSetSpte,
    KvmMmuSpteRequested,
    KvmTdpMmuSpteChanged,
    KvmMmuSplitHugePage,
)
