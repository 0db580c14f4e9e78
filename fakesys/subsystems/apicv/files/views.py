"""The files about interrupts in `fakesys/kvm/vms/VM/`: `key value` lines in a stable order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields

from fakesys.subsystems.apicv.chips.pic import Chip
from fakesys.subsystems.apicv.chips.pit import Pit
from fakesys.subsystems.apicv.devices import posted
from fakesys.subsystems.apicv.engine import requests
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.state.avic_tables import LOGICAL_VALID
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu, AssignedIrq
from fakesys.subsystems.apicv.state.vm import ApicVm, bits_of
from fakesys.subsystems.kvm.files.vcpu_dirs import vcpu_named, vcpu_names
from fakesys.subsystems.kvm.stats import VcpuStats
from fakesys.subsystems.kvm.vm import Vcpu, Vm
from fakesys.tree.attr import Attr, Files, Row


def state_text(vm: ApicVm, kernel: str) -> str:
    """Return the text of `state`: the VM as a whole. `kernel`: name of the kernel."""
    inhibit = vm.inhibit
    rows = [
        f"profile {kernel}",
        f"irqchip {vm.kvm.irqchip.value}",
        f"apicv_state {_state_words(vm)}",
        f"inhibits {inhibit.mask:#x}",
        f"irq_window_req {inhibit.window_requests}",
        f"access_page {'present' if vm.access_page.present else 'absent'}",
        f"flips_off {inhibit.flips.off}",
        f"flips_on {inhibit.flips.on}",
        f"memslot_updates {vm.access_page.memslot_updates}",
        f"rtc_pending_eoi {vm.rtc.pending_eoi}",
        f"pit {_pit_words(vm.pit)}",
    ]
    return _lines(rows)


def _state_words(vm: ApicVm) -> str:
    if not vm.policy.has_state:
        return "-"
    return f"{vm.inhibit.state.value} {vm.inhibit.state.name}"


def _pit_words(pit: Pit | None) -> str:
    if pit is None:
        return "none"
    return f"reinject={pit.reinject:d} irq_ack={pit.irq_ack:d} pending={pit.pending}"


def vcpu_text(vm: ApicVm, vcpu: ApicVcpu) -> str:
    """Return the text of `vcpuN`: a line of words, then one line per counter."""
    requests.update_fields(vm, vcpu)
    host = vcpu.avic.entry.host_id if vcpu.avic.entry is not None else 0
    words = [
        f"run={vcpu.run.value}",
        f"if={vcpu.interrupts_on:d}",
        f"apicv_active={vcpu.apicv_active:d}",
        f"avic_en={vcpu.apicv_active:d}",
        f"v_irq={vcpu.v_irq:d}",
        f"req={vcpu.requests:#x}",
        f"ir={len(vcpu.avic.ir_list)}",
        f"host={host}",
        f"valid={vcpu.avic.entry is not None:d}",
        f"irr={_vectors(vcpu.lapic.irr)}",
        f"isr={_vectors(vcpu.lapic.isr)}",
        f"is_running={vm.is_running(vcpu):d}",
    ]
    return _lines([" ".join(words), *_counters(vcpu.stats)])


def _counters(stats: VcpuStats) -> Iterable[str]:
    for column in fields(VcpuStats):
        value = getattr(stats, column.name)
        yield f"{column.name} {value[0] if isinstance(value, list) else value}"


def _vectors(bits: int) -> str:
    return ",".join(f"{vector:#x}" for vector in bits_of(bits)) or "-"


def physid_text(vm: ApicVm) -> str:
    """Return the physical id table: APIC id, entry, vCPU."""
    rows = []
    for apic_id, entry in sorted(vm.tables.physical.entries.items()):
        running = bool(vm.running >> entry.vcpu_id & 1)
        rows.append(f"{apic_id} {entry.bits(running=running):#018x} vcpu={entry.vcpu_id}")
    return _lines(rows)


def logid_text(vm: ApicVm) -> str:
    """Return the logical id table: index and entry."""
    return _lines(
        f"{index} {LOGICAL_VALID | apic_id:#010x}"
        for index, apic_id in sorted(vm.tables.logical.entries.items())
    )


def ioapic_text(vm: ApicVm) -> str:
    """Return IRR and the redirection entries of the IOAPIC."""
    if vm.ioapic is None:
        return ""
    rows = [f"irr {vm.ioapic.irr:#x}"]
    for pin, entry in enumerate(vm.ioapic.pins):
        mode = "logical" if entry.logical else "phys"
        trigger = "level" if entry.level else "edge"
        rows.append(
            f"pin{pin} vec={entry.vector:#x} dst={entry.dest:#x} dm={int(entry.mode)} mode={mode}"
            f" trig={trigger} mask={entry.masked:d} remote_irr={entry.remote_irr:d}"
        )
    return _lines(rows)


def pic_text(vm: ApicVm) -> str:
    """Return the output and the registers of both PICs."""
    if vm.pic is None:
        return ""
    rows = [f"output {vm.pic.output:d}"]
    rows += [_chip("master", vm.pic.master), _chip("slave", vm.pic.slave)]
    return _lines(rows)


def _chip(name: str, chip: Chip) -> str:
    return (
        f"{name} base={chip.base:#x} irr={chip.irr:#04x} isr={chip.isr:#04x} imr={chip.imr:#04x}"
        f" elcr={chip.elcr:#04x} aeoi={chip.auto_eoi:d}"
    )


def pit_text(vm: ApicVm) -> str:
    """Return the state of the PIT."""
    if vm.pit is None:
        return ""
    pit = vm.pit
    rows = [f"reinject {pit.reinject:d}", f"irq_ack {pit.irq_ack:d}", f"pending {pit.pending}"]
    return _lines(rows)


def irtes_text(vm: ApicVm) -> str:
    """Return one line for each interrupt of an assigned device."""
    return _lines(_irte(vm, device) for _, device in sorted(vm.devices.items()))


def _irte(vm: ApicVm, device: AssignedIrq) -> str:
    target = device.target
    if target is not None:
        requests.update_fields(vm, target)
    where = "-" if target is None else f"{target.id} tag={posted.ga_tag(vm, target):#x}"
    mode = "ga" if device.guest_mode else "legacy"
    route = device.route
    return (
        f"{device.name} irq={device.host_irq} gsi={device.gsi} vec={route.vector:#x}"
        f" dst={route.dest:#x} mode={mode} vcpu={where}"
    )


def _lines(rows: Iterable[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


TEXTS: tuple[tuple[str, Callable[[ApicVm], str], str], ...] = (
    ("physid", physid_text, "AVIC's table of physical APIC ids: id, entry, vCPU."),
    ("logid", logid_text, "AVIC's table of logical APIC ids: index, entry."),
    ("ioapic", ioapic_text, "The IOAPIC; empty without one in the kernel."),
    ("pic", pic_text, "Both PICs; empty without them in the kernel."),
    ("pit", pit_text, "The PIT; empty without one in the kernel."),
    ("irtes", irtes_text, "Interrupts of assigned devices, posted (ga) or not (legacy)."),
)


def views(apicv: Apicv, kernel: str) -> tuple[Row, ...]:
    """Return the rows for the directory of a VM. `kernel`: the name that `state` shows."""

    def of(show: Callable[[ApicVm], str]) -> Callable[[Vm], str]:
        return lambda vm: show(apicv.of(vm))

    texts: list[Row] = [
        Attr(name=name, mode=0o444, doc=doc, show=of(show)) for name, show, doc in TEXTS
    ]
    state: Attr[Vm] = Attr(
        name="state",
        mode=0o444,
        doc="Whether the VM uses AVIC, what keeps it from that, and how often that changed.",
        show=of(lambda vm: state_text(vm, kernel)),
    )
    each: Files[Vm, Vcpu] = Files(
        names=vcpu_names,
        get=vcpu_named,
        attr=Attr(
            name="vcpuN",
            mode=0o444,
            doc="Run state, APIC and requests of a vCPU; then its counters.",
            show=lambda vcpu: vcpu_text(*apicv.vcpu_of(vcpu)),
        ),
        label="vcpuN",
    )
    return (state, each, *texts)
