"""`debug/kvm`: totals, a directory per VM, a directory per vCPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from errno import EACCES, EINVAL, ERANGE
from typing import Any, Protocol

from fakesys.core.errors import KernelError
from fakesys.core.features import Feature, Features
from fakesys.core.text import kstrtoull, simple_strtoll
from fakesys.subsystems.kvm.features import KvmFeature
from fakesys.subsystems.kvm.files.vcpu_dirs import vcpu_named, vcpu_names
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.stats import STATS, Kind, Scope, Stat
from fakesys.subsystems.kvm.vm import Irqchip, Vcpu, Vm
from fakesys.tree.attr import Attr, Children, Layout, Mount, Row
from fakesys.tree.kinds import DEBUGFS, DEBUGFS_SEQ

# lapic_timer_advance_ns before it adapts: arch/x86/kvm/lapic.c:LAPIC_TIMER_ADVANCE_NS_INIT.
TIMER_ADVANCE_NS = 1000
READ_ONLY = {EACCES: "it has no setter"}

# Called at the open of a file; returns what to call at its close.
Hold = Callable[[Vm], Callable[[], None]]


class Counters(Protocol):
    """A VM, or all of them: whose counters a file shows."""

    def read(self, stat: Stat) -> int:
        """Return the number of a counter."""

    def clear(self, stat: Stat) -> None:
        """Set a counter to 0."""


def _clear_if_zero(model: Counters, stat: Stat, value: int) -> None:
    if value:
        raise KernelError(EINVAL, "only 0 can be written, to clear the counter")
    model.clear(stat)


def _gauge(stat: Stat, hold: Hold | None) -> Attr[Any]:
    return Attr(
        name=stat.file.name,
        mode=0o444,
        doc=_doc(stat),
        show=lambda model: f"{model.read(stat)}\n",
        errors={EACCES: "it cannot be cleared"},
        needs=stat.file.needs,
        unless=stat.file.unless,
        hold=hold,
    )


def _clearable(stat: Stat, hold: Hold | None, *, strict: bool) -> Attr[Any]:
    parse = kstrtoull if strict else simple_strtoll
    errors = {EINVAL: "anything but 0"}
    return Attr(
        name=stat.file.name,
        mode=0o644,
        doc=f"{_doc(stat)} Write 0 to clear.",
        show=lambda model: f"{model.read(stat)}\n",
        store=lambda model, text: _clear_if_zero(model, stat, parse(text)),
        errors=errors | {ERANGE: "does not fit into 64 bits"} if strict else errors,
        needs=_and(stat.file.needs, KvmFeature.STRICT_NUMBERS) if strict else stat.file.needs,
        unless=stat.file.unless if strict else _and(stat.file.unless, KvmFeature.STRICT_NUMBERS),
        hold=hold,
    )


def _and(features: Features, one: Feature) -> Features:
    return (features, one) if isinstance(features, Feature) else (*features, one)


_MEANING = {
    Kind.COUNTER: "Counter",
    Kind.PEAK: "Highest value so far",
    Kind.GAUGE: "Value at this moment",
    Kind.HIST: "First of 32 buckets of a histogram",
}


def _doc(stat: Stat) -> str:
    of = "summed over the vCPUs" if stat.scope is Scope.VCPU else "of the VM"
    return f"{_MEANING[stat.file.kind]}, {of}."


def _stat_rows(hold: Hold | None) -> Iterable[Attr[Any]]:
    for stat in STATS:
        if stat.file.kind is Kind.GAUGE:
            yield _gauge(stat, hold)
            continue
        yield _clearable(stat, hold, strict=True)
        yield _clearable(stat, hold, strict=False)


# Source: virt/kvm/kvm_main.c (v6.1), arch/x86/kvm/debugfs.c:kvm_arch_create_vcpu_debugfs (v6.1).
VCPU: Layout[Vcpu] = Layout(
    (
        Attr(
            name="pid",
            mode=0o444,
            doc="The thread that last ran the vCPU, 0 before the first run.",
            show=lambda vcpu: f"{vcpu.last_pid}\n",
            errors=READ_ONLY,
            needs=KvmFeature.VCPU_PID_FILE,
        ),
        Attr(
            name="guest_mode",
            mode=0o444,
            doc="1 while the vCPU runs a nested guest.",
            show=lambda vcpu: f"{vcpu.stats.guest_mode}\n",
            errors=READ_ONLY,
            needs=KvmFeature.VCPU_GUEST_MODE_FILE,
        ),
        Attr(
            name="tsc-offset",
            mode=0o444,
            doc="The guest's time stamp counter minus the host's.",
            show=lambda vcpu: f"{vcpu.tsc_offset}\n",
            errors=READ_ONLY,
        ),
        Attr(
            name="lapic_timer_advance_ns",
            mode=0o444,
            doc="How long before its time a timer of the local APIC fires; not without one.",
            show=lambda vcpu: f"{TIMER_ADVANCE_NS}\n",
            errors=READ_ONLY,
            present=lambda vcpu: vcpu.vm.irqchip is not Irqchip.NONE,
        ),
    )
)


_VM_ROWS: tuple[Row, ...] = (
    *_stat_rows(Vm.hold),
    Attr(
        name="mmu_rmaps_stat",
        mode=0o644,
        doc="How many guest pages have how many sptes; empty while nothing is shadowed.",
        show=lambda vm: vm.rmaps_stat(),
        errors={EINVAL: "nothing can be written"},
        kind=DEBUGFS_SEQ,
        needs=KvmFeature.RMAPS_STAT_FILE,
        hold=Vm.hold,
    ),
    Children(
        names=vcpu_names,
        get=vcpu_named,
        layout=VCPU,
        label="vcpuN",
    ),
)


def mounts(kvm: Kvm, vm_rows: tuple[Row, ...] = ()) -> tuple[Mount, ...]:
    """Return the mount of `debug/kvm`. `vm_rows`: what extensions add to the directory of a VM."""
    vms: Children[Kvm, Vm] = Children(
        names=lambda kvm: kvm.directories,
        get=lambda kvm, name: kvm.directories.get(name),
        layout=Layout((*_VM_ROWS, *vm_rows)),
        label="PID-FD",
    )
    top: Layout[Kvm] = Layout((*_stat_rows(None), vms), kind=DEBUGFS)
    return (Mount("sys/kernel/debug/kvm", top, lambda: kvm if kvm.is_loaded() else None),)
