"""The parameters of a VM's memory, as files below `fakesys/kvm/params`."""

from __future__ import annotations

from typing import Any

from fakesys.core.commands import flag, number, number_within, words_of
from fakesys.subsystems.kvm.params import Param, Params
from fakesys.subsystems.kvm_mmu.shadow.policy import ZapFlow

ZAP_FLOW = Param(
    "zap_flow",
    words_of(*(flow.value for flow in ZapFlow)),
    ZapFlow.FAST.value,
    "what the deletion or move of a memslot calls",
)
PAGING = Param(
    "paging",
    words_of("modules", "tdp", "shadow"),
    "tdp",
    "modules: as kvm_amd.npt and kvm.tdp_mmu say; tdp: direct pages of the shadow MMU;"
    " shadow: KVM shadows the guest's tables",
)
NPT = Param("npt", flag, True, "kvm_amd: use nested paging.", modprobe=True)
TDP_MMU = Param("tdp_mmu", flag, True, "kvm: VMs with nested paging have the TDP MMU.")
EAGER_PAGE_SPLIT = Param(
    "eager_page_split", flag, True, "kvm: large pages are split when a log begins."
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
    NPT,
    TDP_MMU,
    EAGER_PAGE_SPLIT,
    PREEMPT,
    MMIO_CACHING,
    MMIO_GEN_BITS,
    AS_NUM,
    WRAP_GEN,
)


def uses_npt(params: Params) -> bool:
    """Return whether a VM that is made now has nested paging."""
    return params[PAGING] == "tdp" or (params[PAGING] == "modules" and params[NPT])


def uses_tdp_mmu(params: Params) -> bool:
    """Return whether the parameters of the modules choose the TDP MMU."""
    return follows_modules(params) and params[TDP_MMU]


def follows_modules(params: Params) -> bool:
    """Return whether kvm.tdp_mmu decides, as there is nested paging."""
    return params[PAGING] == "modules" and params[NPT]
