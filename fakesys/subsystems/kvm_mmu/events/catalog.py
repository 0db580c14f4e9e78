"""The events of system `kvmmmu`: arch/x86/kvm/mmu/mmutrace.h (v6.18, v6.1), mmutrace.h (v5.4)."""

from __future__ import annotations

from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.kvm_mmu.events.pages import (
    KvmMmuGetPage,
    KvmMmuPrepareZapPage,
    KvmMmuSyncPage,
    KvmMmuUnsyncPage,
    KvmMmuZapAllFast,
)
from fakesys.subsystems.kvm_mmu.events.sptes import (
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
