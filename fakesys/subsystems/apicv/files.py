"""`sys/module/kvm_amd` and `sys/module/kvm`, and the one file that the second series had.

Sources: [5.3] arch/x86/kvm/svm.c, x86.c; arch/x86/kvm/svm/svm.c, avic.c (v6.1) module_param calls;
permissions there: 0444, so nobody can open them for writing.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EACCES, EINVAL, ERANGE

from fakesys.core.text import kstrtobool, kstrtoull
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.params import NESTED, STATE_FILE, uses_avic, uses_npt
from fakesys.subsystems.kvm.model import Kvm, Vm
from fakesys.subsystems.kvm.params import Params
from fakesys.tree.attr import Attr, Layout, Mount
from fakesys.tree.kinds import SYSFS

BOOLEAN_AVIC = "apicv.boolean_parameter"
"""`avic` is a bool (5.7), not a number."""
FORCE_AVIC = "apicv.force_avic"
"""AVIC can be used on processors that do not announce it (5.17)."""
ENABLE_IPIV = "apicv.enable_ipiv"
"""IPI virtualization can be switched off for itself (6.17)."""

READ_ONLY = {EACCES: "the parameter is read only, for root too"}

Show = Callable[[Params], str]


def _number(get: Callable[[Params], bool]) -> Show:
    return lambda params: f"{get(params):d}\n"


def _boolean(get: Callable[[Params], bool]) -> Show:
    return lambda params: "Y\n" if get(params) else "N\n"


def _always(text: str) -> Show:
    return lambda _params: text


def _row(
    name: str, show: Show, doc: str, needs: str | tuple[str, ...] = (), unless: str = ""
) -> Attr[Kvm]:
    return Attr(
        name=name,
        mode=0o444,
        doc=doc,
        show=lambda kvm: show(kvm.params),
        errors=READ_ONLY,
        needs=needs,
        unless=unless or (),
    )


_AVIC_DOC = "Use AVIC; reads as off without nested paging."

KVM_AMD: Layout[Kvm] = Layout(
    (
        _row("avic", _number(uses_avic), _AVIC_DOC, unless=BOOLEAN_AVIC),
        _row("avic", _boolean(uses_avic), _AVIC_DOC, needs=BOOLEAN_AVIC),
        _row("npt", _boolean(uses_npt), "Use nested paging."),
        _row("nested", _number(lambda params: params[NESTED]), "Guests may have guests."),
        _row("nrips", _number(lambda _params: True), "The processor tells the next instruction."),
        _row("vgif", _number(lambda _params: True), "Virtual global interrupt flag."),
        _row("vls", _number(lambda _params: True), "Virtual VMLOAD and VMSAVE."),
        _row("sev", _always("0\n"), "Encrypted guests.", unless=BOOLEAN_AVIC),
        _row("sev", _always("N\n"), "Encrypted guests.", needs=BOOLEAN_AVIC),
        _row("force_avic", _always("N\n"), "Use AVIC unasked for.", needs=FORCE_AVIC),
        _row("enable_ipiv", _boolean(uses_avic), "Virtualise IPIs too.", needs=ENABLE_IPIV),
    ),
    kind=SYSFS,
)


def _setting(name: str, default: str, doc: str, *, boolean: bool = False) -> Attr[Apicv]:
    """A parameter that can be changed; the models here do not depend on it."""

    def store(apicv: Apicv, text: str) -> None:
        if boolean:
            apicv.settings[name] = "Y" if kstrtobool(text) else "N"
        else:
            apicv.settings[name] = str(kstrtoull(text, bits=32))

    errors = {EINVAL: "neither yes nor no"} if boolean else {EINVAL: "no number"}
    return Attr(
        name=name,
        mode=0o644,
        doc=doc,
        show=lambda apicv: f"{apicv.settings.get(name, default)}\n",
        store=store,
        errors=errors if boolean else errors | {ERANGE: "more than 32 bits"},
    )


def _constant(name: str, text: str, doc: str) -> Attr[Apicv]:
    return Attr(name=name, mode=0o444, doc=doc, show=lambda _: f"{text}\n", errors=READ_ONLY)


KVM: Layout[Apicv] = Layout(
    (
        _setting("halt_poll_ns", "200000", "How long a halted vCPU polls; here it sleeps."),
        _setting("halt_poll_ns_grow", "2", "Factor by which it polls longer."),
        _setting("halt_poll_ns_grow_start", "10000", "Nanoseconds that growing begins with."),
        _setting("halt_poll_ns_shrink", "0", "Factor by which it polls less."),
        _setting("ignore_msrs", "N", "Accesses to unknown MSRs are ignored.", boolean=True),
        _setting("report_ignored_msrs", "Y", "Ignored accesses are logged.", boolean=True),
        _setting("min_timer_period_us", "200", "Shortest period of a local APIC timer."),
        _setting("tsc_tolerance_ppm", "250", "By how much TSC frequencies may differ."),
        _constant("kvmclock_periodic_sync", "Y", "The paravirtual clock is synchronised."),
        _constant("lapic_timer_advance_ns", "-1", "How early the timer is armed; -1 adapts."),
        _constant("vector_hashing", "Y", "Lowest priority goes by the vector's number."),
        _constant("enable_vmware_backdoor", "N", "VMware's port."),
    ),
    kind=SYSFS,
)


def state_row(apicv: Apicv) -> Attr[Vm]:
    """`apicv-state` in a VM's debugfs directory, as the second version of the series had it."""
    return Attr(
        name="apicv-state",
        mode=0o444,
        doc="The enum of the VM-wide state: 0 disabled, 1 suspended, 2 activated.",
        show=lambda vm: f"{apicv.of(vm).switch.state.value}\n",
        errors={EACCES: "it has no setter"},
        present=lambda vm: bool(apicv.kvm.params[STATE_FILE]) and apicv.of(vm).module.avic,
        hold=Vm.hold,
    )


def mounts(apicv: Apicv) -> tuple[Mount, ...]:
    """Where the module parameters stand."""
    return (
        Mount("sys/module/kvm_amd/parameters", KVM_AMD, lambda: apicv.kvm),
        Mount("sys/module/kvm/parameters", KVM, lambda: apicv),
    )
