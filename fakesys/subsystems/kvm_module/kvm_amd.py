"""`sys/module/kvm_amd/parameters`, and the file apicv-state of the second version of the series.

Sources: [5.3] arch/x86/kvm/svm.c, x86.c; arch/x86/kvm/svm/svm.c, avic.c (v6.1) module_param calls;
permissions there: 0444, so they cannot be opened for writing.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EACCES

from fakesys.core.features import Features
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.state.params import NESTED, STATE_FILE, uses_avic, uses_npt
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.params import Params
from fakesys.subsystems.kvm.vm import Vm
from fakesys.subsystems.kvm_mmu.extension import MmuExtension
from fakesys.subsystems.kvm_module.features import ParamFeature
from fakesys.subsystems.kvm_module.kvm import KVM, READ_ONLY, KvmModule
from fakesys.tree.attr import Attr, Layout, Mount
from fakesys.tree.kinds import SYSFS

Show = Callable[[Params], str]


def _number(get: Callable[[Params], bool]) -> Show:
    return lambda params: f"{get(params):d}\n"


def _boolean(get: Callable[[Params], bool]) -> Show:
    return lambda params: "Y\n" if get(params) else "N\n"


def _always(text: str) -> Show:
    return lambda _params: text


def _row(name: str, show: Show, doc: str, needs: Features = (), unless: Features = ()) -> Attr[Kvm]:
    return Attr(
        name=name,
        mode=0o444,
        doc=doc,
        show=lambda kvm: show(kvm.params),
        errors=READ_ONLY,
        needs=needs,
        unless=unless,
    )


_AVIC_DOC = "Use AVIC; reads as off without nested paging."

KVM_AMD: Layout[Kvm] = Layout(
    (
        _row("avic", _number(uses_avic), _AVIC_DOC, unless=ParamFeature.BOOLEAN_AVIC),
        _row("avic", _boolean(uses_avic), _AVIC_DOC, needs=ParamFeature.BOOLEAN_AVIC),
        _row("npt", _boolean(uses_npt), "Use nested paging."),
        _row("nested", _number(lambda params: params[NESTED]), "Guests may have guests."),
        _row("nrips", _number(lambda _params: True), "The processor tells the next instruction."),
        _row("vgif", _number(lambda _params: True), "Virtual global interrupt flag."),
        _row("vls", _number(lambda _params: True), "Virtual VMLOAD and VMSAVE."),
        _row("sev", _always("0\n"), "Encrypted guests.", unless=ParamFeature.BOOLEAN_AVIC),
        _row("sev", _always("N\n"), "Encrypted guests.", needs=ParamFeature.BOOLEAN_AVIC),
        _row("force_avic", _always("N\n"), "Use AVIC unasked for.", needs=ParamFeature.FORCE_AVIC),
        _row(
            "enable_ipiv",
            _boolean(uses_avic),
            "Virtualise IPIs too.",
            needs=ParamFeature.ENABLE_IPIV,
        ),
    ),
    kind=SYSFS,
)


def state_row(apicv: Apicv) -> Attr[Vm]:
    """Return the row of `apicv-state` in a VM's debugfs directory.

    The second version of the series had it; the parameter `apicv_state_file` enables it.
    """
    return Attr(
        name="apicv-state",
        mode=0o444,
        doc="The enum of the VM-wide state: 0 disabled, 1 suspended, 2 activated.",
        show=lambda vm: f"{apicv.of(vm).inhibit.state.value}\n",
        errors={EACCES: "it has no setter"},
        present=lambda vm: bool(apicv.kvm.params[STATE_FILE]) and apicv.of(vm).module.avic,
        hold=Vm.hold,
    )


def mounts(apicv: Apicv, mmu: MmuExtension) -> tuple[Mount, ...]:
    """Return the directories of the parameters of both modules."""
    module = KvmModule(apicv, mmu)
    return (
        Mount("sys/module/kvm_amd/parameters", KVM_AMD, lambda: apicv.kvm),
        Mount("sys/module/kvm/parameters", KVM, lambda: module),
    )
