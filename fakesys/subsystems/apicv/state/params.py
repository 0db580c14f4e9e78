"""The parameters of kvm_amd that decide about AVIC, and the options of `vm create` for the PIT."""

from __future__ import annotations

from typing import Any

from fakesys.core.commands import Option, flag
from fakesys.subsystems.apicv.state.module import Module
from fakesys.subsystems.kvm.exits import SVM
from fakesys.subsystems.kvm.params import Param, Params
from fakesys.subsystems.kvm.vcpu_run.params import processor_of
from fakesys.subsystems.kvm_mmu.params import NPT, PAGING

AVIC = Param("avic", flag, True, "kvm_amd: use AVIC, if there is nested paging.", modprobe=True)
NESTED = Param("nested", flag, True, "kvm_amd: guests may have guests.", modprobe=True)
X2AVIC = Param("x2avic", flag, False, "kvm_amd: the processor has x2AVIC.", modprobe=True)
IPIV = Param(
    "enable_ipiv",
    flag,
    True,
    "kvm_amd: the processor sends IPIs itself; 0: each of them exits (since 6.17).",
    modprobe=True,
)
ANY_IRQCHIP = Param(
    "avic_any_irqchip",
    flag,
    False,
    "Not of a kernel: AVIC works with every irqchip, as the last patch of the series allows.",
    modprobe=True,
)
STATE_FILE = Param(
    "apicv_state_file",
    flag,
    False,
    "A file apicv-state in debugfs, as the second version of the series had.",
)

PARAMS: tuple[Param[Any], ...] = (AVIC, NESTED, X2AVIC, IPIV, ANY_IRQCHIP, STATE_FILE)

PIT: Option[bool | None] = Option("pit", flag, None, "a PIT in the kernel; there is with a PIC")
REINJECT = Option("reinject", flag, True, "the PIT reinjects lost ticks")

VM_OPTIONS: tuple[Option[Any], ...] = (PIT, REINJECT)


def uses_avic(params: Params) -> bool:
    """Return what `kvm_amd.avic` reads as: AVIC needs nested paging, and a processor of AMD."""
    return params[AVIC] and uses_npt(params) and processor_of(params).isa == SVM


def uses_npt(params: Params) -> bool:
    """Return whether nested paging is used: not if the memory model is set to shadow paging."""
    return params[NPT] and params[PAGING] != "shadow"


def module_of(params: Params) -> Module:
    """Return the parameters as a VM gets them that is created now."""
    return Module(
        avic=uses_avic(params),
        nested=params[NESTED],
        x2avic=params[X2AVIC],
        ipiv=params[IPIV],
        any_irqchip=params[ANY_IRQCHIP],
    )
