"""The parameters of a VM's memory, as files below `fakesys/kvm/params`."""

from __future__ import annotations

from typing import Any

from fakesys.core.commands import flag, number, number_within, words_of
from fakesys.subsystems.kvm.params import Param, Params
from fakesys.subsystems.kvm_mmu.shadow.arch import Knobs
from fakesys.subsystems.kvm_mmu.shadow.policy import MmuPolicy, ZapFlow

ZAP_FLOW = Param(
    "zap_flow",
    words_of(*(flow.value for flow in ZapFlow)),
    ZapFlow.FAST.value,
    "what the deletion or move of a memslot calls",
)
PAGING = Param(
    "paging",
    words_of("tdp", "shadow"),
    "tdp",
    "tdp: the processor walks the guest's tables; shadow: KVM shadows them",
)
PREEMPT = Param("preempt", flag, True, "0: a lock is dropped only when the time slice is used up")
MMIO_CACHING = Param("mmio_caching", flag, True, "0: there are no MMIO sptes")
MMIO_GEN_BITS = Param(
    "mmio_gen_bits", number_within(18, 19), 19, "bits of the generation in an MMIO spte"
)
AS_NUM = Param("as_num", number_within(1, 2), 2, "address spaces; 2: with SMM")
WRAP_GEN = Param(
    "wrap_gen", number, 0, "the memslot generation of a new VM, to reach the wrap quickly"
)

PARAMS: tuple[Param[Any], ...] = (
    ZAP_FLOW,
    PAGING,
    PREEMPT,
    MMIO_CACHING,
    MMIO_GEN_BITS,
    AS_NUM,
    WRAP_GEN,
)


def knobs(params: Params, policy: MmuPolicy) -> Knobs:
    """Return the knobs of a VM that is made now."""
    flow = ZapFlow(params[ZAP_FLOW])
    return Knobs(
        tdp=params[PAGING] == "tdp",
        preempt=params[PREEMPT],
        mmio_caching=params[MMIO_CACHING],
        mmio_gen_bits=params[MMIO_GEN_BITS],
        as_num=params[AS_NUM],
        wrap_gen=params[WRAP_GEN],
        delete_flow=None if flow is policy.delete_flow else flow,
    )
