"""`sys/module/kvm/parameters`: NX huge pages, and settings that no model depends on.

Sources: [5.3] arch/x86/kvm/x86.c, mmu.c; arch/x86/kvm/x86.c, mmu/mmu.c, mmu/spte.c, mmu/tdp_mmu.c,
virt/kvm/kvm_main.c (v6.1, v6.18) module_param calls.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EACCES, EBUSY, EINVAL, EPERM, ERANGE

from msgspec import Struct

from fakesys.core.features import Features
from fakesys.core.text import kstrtobool, kstrtoll, kstrtoull
from fakesys.subsystems.kvm.features import KvmFeature
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.params import Param
from fakesys.subsystems.kvm_mmu.params import EAGER_PAGE_SPLIT, MMIO_CACHING, TDP_MMU
from fakesys.subsystems.kvm_mmu.vm.nx_huge_pages import NxHugePages
from fakesys.subsystems.kvm_module.features import ParamFeature
from fakesys.tree.attr import Attr, Layout
from fakesys.tree.kinds import SYSFS

READ_ONLY = {EACCES: "the parameter is read only, for root too"}
NO_TRUTH = {EINVAL: "neither yes nor no"}
NO_NUMBER = {EINVAL: "no number", ERANGE: "more than 32 bits"}
FINAL = {EPERM: "nx_huge_pages is `never`"}


class KvmModule(Struct, frozen=True, eq=False):
    """What is behind the parameters.

    `settings`: values, as text, of those that were written or given at the load and that are no
    `Param`. `nx`: the parameters about NX huge pages, with the threads behind them.
    """

    kvm: Kvm
    settings: dict[str, str]
    nx: NxHugePages


def truth(text: str) -> str:
    """Return a bool as its file shows it."""
    return "Y" if kstrtobool(text) else "N"


def _truth_as_number(text: str) -> str:
    return str(int(kstrtobool(text)))


def natural(text: str) -> str:
    """Return an unsigned int as its file shows it."""
    return str(kstrtoull(text, bits=32))


def integer(text: str) -> str:
    """Return an int as its file shows it."""
    return str(kstrtoll(text, bits=32))


Parse = Callable[[str], str]
# How the parameters that no model depends on are parsed, by name; filled by the rows below. Those
# whose files are read only can be given when the module is loaded.
SETTINGS: dict[str, Parse] = {}


def is_truth(parse: Parse) -> bool:
    """Return whether a parameter of this type may be given without a value, which means yes."""
    return parse in (truth, _truth_as_number)


def _setting(
    name: str,
    default: str,
    parse: Callable[[str], str],
    doc: str,
    needs: Features = (),
    unless: Features = (),
) -> Attr[KvmModule]:
    """Return the row of a parameter that can be changed and that no model depends on."""
    SETTINGS[name] = parse

    def store(module: KvmModule, text: str) -> None:
        module.settings[name] = parse(text)

    return Attr(
        name=name,
        mode=0o644,
        doc=doc,
        show=lambda module: f"{module.settings.get(name, default)}\n",
        store=store,
        errors=NO_NUMBER if parse in (natural, integer) else NO_TRUTH,
        needs=needs,
        unless=unless,
    )


def _fixed(
    name: str,
    text: str,
    doc: str,
    needs: Features = (),
    unless: Features = (),
    parse: Parse | None = None,
) -> Attr[KvmModule]:
    """Return the row of a parameter that can be given at the load only."""
    SETTINGS[name] = parse or (truth if text in ("Y", "N") else integer)
    return Attr(
        name=name,
        mode=0o444,
        doc=doc,
        show=lambda module: f"{module.settings.get(name, text)}\n",
        errors=READ_ONLY,
        needs=needs,
        unless=unless,
    )


def _show_mmio_caching(module: KvmModule) -> str:
    return "Y\n" if module.kvm.params[MMIO_CACHING] else "N\n"


def _boolean(
    param: Param[bool], mode: int, doc: str, needs: Features, unless: Features = ()
) -> Attr[KvmModule]:
    """Return the row of a parameter that VMs look at."""

    def store(module: KvmModule, text: str) -> None:
        module.kvm.params.choose(param, kstrtobool(text))

    return Attr(
        name=param.name,
        mode=mode,
        doc=doc,
        show=lambda module: "Y\n" if module.kvm.params[param] else "N\n",
        store=store if mode & 0o200 else None,
        errors=NO_TRUTH if mode & 0o200 else READ_ONLY,
        needs=needs,
        unless=unless,
    )


def _nx_setting(
    name: str,
    show: Callable[[NxHugePages], object],
    store: Callable[[NxHugePages, str], None],
    doc: str,
    errors: dict[int, str],
    needs: Features = KvmFeature.STATS_NX_PAGES,
) -> Attr[KvmModule]:
    return Attr(
        name=name,
        mode=0o644,
        doc=doc,
        show=lambda module: f"{show(module.nx)}\n",
        store=lambda module, text: store(module.nx, text),
        errors=errors | FINAL,
        needs=needs,
    )


_MEMORY = (
    _nx_setting(
        "nx_huge_pages",
        lambda nx: nx.mode,
        NxHugePages.set_mode,
        "Large pages are mapped without X, and split when they are fetched from:"
        " off, force, auto, never, yes or no. A change zaps the pages of every VM.",
        NO_TRUTH | {EBUSY: "`never` while a VM exists"},
    ),
    _nx_setting(
        "nx_huge_pages_recovery_ratio",
        lambda nx: nx.ratio,
        NxHugePages.set_ratio,
        "One in so many split pages is zapped at a time; 0: none.",
        NO_NUMBER,
    ),
    _nx_setting(
        "nx_huge_pages_recovery_period_ms",
        lambda nx: nx.period_ms,
        NxHugePages.set_period,
        "Milliseconds between two recoveries; 0: an hour divided by the ratio.",
        NO_NUMBER,
        needs=ParamFeature.MMIO_CACHING,
    ),
    _setting(
        "flush_on_reuse",
        "N",
        truth,
        "Flush whenever a root is used again.",
        ParamFeature.MMIO_CACHING,
    ),
    Attr(
        name="mmio_caching",
        mode=0o444,
        doc="Are there MMIO sptes? As `fakesys/kvm/params/mmio_caching`.",
        show=_show_mmio_caching,
        errors=READ_ONLY,
        needs=ParamFeature.MMIO_CACHING,
    ),
    _boolean(
        TDP_MMU,
        0o644,
        "VMs that are made from now on have the TDP MMU, if there is nested paging.",
        ParamFeature.MMIO_CACHING,
        ParamFeature.ENABLE_VIRT_AT_LOAD,
    ),
    _boolean(
        TDP_MMU,
        0o444,
        "VMs have the TDP MMU, if there is nested paging.",
        ParamFeature.ENABLE_VIRT_AT_LOAD,
    ),
    _boolean(
        EAGER_PAGE_SPLIT,
        0o644,
        "Large pages are split when a slot is logged; asked for by the TDP MMU only.",
        ParamFeature.MMIO_CACHING,
    ),
)

_POLLING = (
    _setting(
        "halt_poll_ns",
        "200000",
        natural,
        "Nanoseconds that a halted vCPU polls at most; 0: it sleeps.",
    ),
    _setting("halt_poll_ns_grow", "2", natural, "Factor by which it polls longer; 0: it does not."),
    _setting("halt_poll_ns_grow_start", "10000", natural, "Nanoseconds that growing begins with."),
    _setting(
        "halt_poll_ns_shrink",
        "0",
        natural,
        "Factor by which it polls less.",
        unless=ParamFeature.ENABLE_VIRT_AT_LOAD,
    ),
    _setting(
        "halt_poll_ns_shrink",
        "2",
        natural,
        "Factor by which it polls less.",
        ParamFeature.ENABLE_VIRT_AT_LOAD,
    ),
)

_TIME = (
    _setting("min_timer_period_us", "200", natural, "Shortest period of a local APIC timer."),
    _setting("tsc_tolerance_ppm", "250", natural, "By how much TSC frequencies may differ."),
    _fixed("kvmclock_periodic_sync", "Y", "The paravirtual clock is synchronised."),
    _setting(
        "lapic_timer_advance_ns",
        "-1",
        integer,
        "How early the timer is armed; -1 adapts.",
        unless=ParamFeature.ENABLE_VIRT_AT_LOAD,
    ),
    _fixed(
        "lapic_timer_advance",
        "Y",
        "The timer is armed early, as it adapts.",
        ParamFeature.ENABLE_VIRT_AT_LOAD,
    ),
    _setting("pi_inject_timer", "0", _truth_as_number, "Timers go by posted interrupts."),
)

_OTHERS = (
    _setting("ignore_msrs", "N", truth, "Accesses to unknown MSRs are ignored."),
    _setting("report_ignored_msrs", "Y", truth, "Ignored accesses are logged."),
    _fixed("vector_hashing", "Y", "Lowest priority goes by the vector's number."),
    _fixed("enable_vmware_backdoor", "N", "VMware's port."),
    _fixed(
        "force_emulation_prefix",
        "N",
        "A prefix asks for emulation.",
        unless=ParamFeature.MMIO_CACHING,
    ),
    _setting(
        "force_emulation_prefix",
        "0",
        integer,
        "A prefix asks for emulation.",
        ParamFeature.MMIO_CACHING,
    ),
    _fixed("enable_pmu", "Y", "Guests have counters of events.", ParamFeature.MMIO_CACHING),
    _fixed(
        "mitigate_smt_rsb",
        "N",
        "Against speculation across threads.",
        ParamFeature.MMIO_CACHING,
    ),
    _fixed(
        "allow_unsafe_mappings",
        "N",
        "Pages without a reference count may be mapped.",
        ParamFeature.UNSAFE_MAPPINGS,
    ),
    _fixed(
        "enable_virt_at_load",
        "Y",
        "Virtualisation is on while the module is.",
        ParamFeature.ENABLE_VIRT_AT_LOAD,
    ),
)

KVM: Layout[KvmModule] = Layout((*_MEMORY, *_POLLING, *_TIME, *_OTHERS), kind=SYSFS)
