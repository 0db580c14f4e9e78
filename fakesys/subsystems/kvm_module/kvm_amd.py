"""`sys/module/kvm_amd/parameters`, and the file apicv-state of the second version of the series.

Sources: [5.3] arch/x86/kvm/svm.c, x86.c; arch/x86/kvm/svm/svm.c, avic.c (v6.1) module_param calls;
permissions there: 0444, so they cannot be opened for writing.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EACCES
from typing import TYPE_CHECKING

from fakesys.core.features import Features
from fakesys.subsystems.apicv.state.params import IPIV, NESTED, STATE_FILE, uses_avic, uses_npt
from fakesys.subsystems.kvm.params import Params
from fakesys.subsystems.kvm.vm import Vm
from fakesys.subsystems.kvm_module.features import ParamFeature
from fakesys.subsystems.kvm_module.kvm import (
    KVM,
    NO_TRUTH,
    READ_ONLY,
    KvmModule,
    Parse,
    integer,
    natural,
    truth,
)
from fakesys.tree.attr import Attr, Layout, Mount
from fakesys.tree.kinds import SYSFS

if TYPE_CHECKING:
    from fakesys.subsystems.apicv.model import Apicv

Show = Callable[[Params], str]
# How the parameters that no model depends on are parsed, by name; filled by the rows below.
AMD_SETTINGS: dict[str, Parse] = {}


def _number(get: Callable[[Params], bool]) -> Show:
    return lambda params: f"{get(params):d}\n"


def _boolean(get: Callable[[Params], bool]) -> Show:
    return lambda params: "Y\n" if get(params) else "N\n"


def _row(
    name: str, show: Show, doc: str, needs: Features = (), unless: Features = ()
) -> Attr[KvmModule]:
    """Return the row of a parameter that decides about AVIC."""
    return Attr(
        name=name,
        mode=0o444,
        doc=doc,
        show=lambda module: show(module.kvm.params),
        errors=READ_ONLY,
        needs=needs,
        unless=unless,
    )


def _given(
    name: str,
    text: str,
    parse: Parse,
    doc: str,
    needs: Features = (),
    unless: Features = (),
) -> Attr[KvmModule]:
    """Return the row of a parameter that is as it was given at the load."""
    AMD_SETTINGS[name] = parse
    return Attr(
        name=name,
        mode=0o444,
        doc=doc,
        show=lambda module: f"{module.settings.get(name, text)}\n",
        errors=READ_ONLY,
        needs=needs,
        unless=unless,
    )


def _dump(module: KvmModule, text: str) -> None:
    module.settings[DUMP] = truth(text)


def _shows_ipiv(module: KvmModule) -> str:
    params = module.kvm.params
    return "Y\n" if params[IPIV] and uses_avic(params) else "N\n"


DUMP = "dump_invalid_vmcb"
AMD_SETTINGS[DUMP] = truth
_AVIC_DOC = "Use AVIC; reads as off without nested paging."
_NEWER = ParamFeature.BOOLEAN_AVIC

_PAUSES = (
    _given("pause_filter_count", "3000", natural, "PAUSEs until an exit.", _NEWER),
    _given("pause_filter_count_grow", "2", natural, "Factor by which these grow.", _NEWER),
    _given("pause_filter_count_max", "65535", natural, "The most of these.", _NEWER),
    _given("pause_filter_count_shrink", "0", natural, "Factor by which these shrink.", _NEWER),
    _given("pause_filter_thresh", "128", natural, "Cycles between two PAUSEs of a loop.", _NEWER),
)
_SEV = (
    _given("sev", "0", integer, "Encrypted guests.", unless=_NEWER),
    _given("sev", "N", truth, "Encrypted guests.", _NEWER),
    _given("sev_es", "N", truth, "Guests with encrypted registers.", _NEWER),
    _given("sev_snp", "N", truth, "Guests with protected tables.", ParamFeature.SEV_SNP),
    _given("debug_swap", "N", truth, "Debug registers of such guests.", ParamFeature.SEV_SNP),
)
KVM_AMD: Layout[KvmModule] = Layout(
    (
        _row("avic", _number(uses_avic), _AVIC_DOC, unless=ParamFeature.BOOLEAN_AVIC),
        _row("avic", _boolean(uses_avic), _AVIC_DOC, needs=ParamFeature.BOOLEAN_AVIC),
        _row("npt", _boolean(uses_npt), "Use nested paging."),
        _row("nested", _number(lambda params: params[NESTED]), "Guests may have guests."),
        _given("nrips", "1", integer, "The processor tells the next instruction."),
        _given("vgif", "1", integer, "Virtual global interrupt flag."),
        _given("vls", "1", integer, "Virtual VMLOAD and VMSAVE."),
        *_SEV,
        _given("force_avic", "N", truth, "Use AVIC unasked for.", ParamFeature.FORCE_AVIC),
        Attr(
            name=IPIV.name,
            mode=0o444,
            doc="Virtualise IPIs too.",
            show=_shows_ipiv,
            errors=READ_ONLY,
            needs=ParamFeature.ENABLE_IPIV,
        ),
        Attr(
            name=DUMP,
            mode=0o644,
            doc="Log the control block of a failed entry.",
            show=lambda module: f"{module.settings.get(DUMP, 'N')}\n",
            store=_dump,
            errors=NO_TRUTH,
            needs=_NEWER,
        ),
        _given("intercept_smi", "Y", truth, "SMIs exit.", _NEWER),
        _given("lbrv", "1", integer, "Virtual records of last branches.", _NEWER),
        *_PAUSES,
        _given("tsc_scaling", "1", integer, "The processor scales the TSC.", _NEWER),
        _given("vnmi", "N", truth, "Virtual NMIs.", ParamFeature.SEV_SNP),
    ),
    kind=SYSFS,
)


def state_row(apicv: Callable[[], Apicv]) -> Attr[Vm]:
    """Return the row of `apicv-state` in a VM's debugfs directory.

    The second version of the series had it; the parameter `apicv_state_file` enables it.
    """
    return Attr(
        name="apicv-state",
        mode=0o444,
        doc="The enum of the VM-wide state: 0 disabled, 1 suspended, 2 activated.",
        show=lambda vm: f"{apicv().of(vm).inhibit.state.value}\n",
        errors={EACCES: "it has no setter"},
        present=lambda vm: bool(apicv().kvm.params[STATE_FILE]) and apicv().of(vm).module.avic,
        hold=Vm.hold,
    )


def mounts(module: KvmModule) -> tuple[Mount, ...]:
    """Return the directories of the parameters of both modules."""
    return (
        Mount("sys/module/kvm_amd/parameters", KVM_AMD, lambda: module),
        Mount("sys/module/kvm/parameters", KVM, lambda: module),
    )
