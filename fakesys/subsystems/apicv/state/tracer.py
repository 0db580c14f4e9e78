"""The tracepoints of this subsystem's models: one method per event, emitted if somebody listens.

Who acts is the task of what is traced: a vCPU's thread, or whoever wrote the command.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from errno import EINTR

from fakesys.core.events import Bus
from fakesys.subsystems.apicv.chips.ioapic import RedirectEntry
from fakesys.subsystems.apicv.chips.pic import Chip
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu
from fakesys.subsystems.kvm.events import avic as trace
from fakesys.subsystems.kvm.events import guest as trace_guest
from fakesys.subsystems.kvm.events import irq as trace_irq
from fakesys.subsystems.kvm.events import lapic as trace_lapic
from fakesys.subsystems.kvm.events import run as trace_run
from fakesys.subsystems.kvm.exits import SVM

EXIT_INTR = 10
"""KVM_EXIT_INTR."""


class Exit(IntEnum):
    """Exit codes of AMD's processors."""

    INTERRUPT = 0x60
    VINTR = 0x64
    HLT = 0x78
    IO = 0x7B
    MSR = 0x7C
    VMRUN = 0x80
    VMMCALL = 0x81
    NPF = 0x400
    INCOMPLETE_IPI = 0x401
    UNACCELERATED = 0x402


class ApicTracer:
    """Emits on the bus. `actor`: the vCPU whose thread runs now; None: a thread of the host."""

    def __init__(self, bus: Bus) -> None:
        self.actor: ApicVcpu | None = None
        self._bus = bus
        self._wanted = bus.wanted
        self._outside = bus.task

    @property
    def wants_entries(self) -> bool:
        """Does anybody want to see entries and exits?"""
        return trace_run.KvmExit in self._wanted or trace_run.KvmEntry in self._wanted

    @contextmanager
    def context(self) -> Iterator[None]:
        """Around a command: afterwards the task is the one from before."""
        self._outside = self._bus.task
        try:
            yield
        finally:
            self.act(None)

    def act(self, vcpu: ApicVcpu | None) -> None:
        """From now on this vCPU's thread is running."""
        if vcpu is self.actor:
            return
        self.actor = vcpu
        self._bus.task = self._outside if vcpu is None else vcpu.kvm.task

    def kvm_exit(self, vcpu: ApicVcpu, reason: Exit, info1: int, info2: int) -> None:
        """The vCPU left the guest."""
        if trace_run.KvmExit in self._wanted:
            self._bus.emit(
                trace_run.KvmExit(
                    exit_reason=reason,
                    guest_rip=vcpu.rip,
                    isa=SVM,
                    info1=info1,
                    info2=info2,
                    intr_info=0,
                    error_code=0,
                    vcpu_id=vcpu.id,
                    requests=vcpu.requests,
                )
            )

    def kvm_entry(self, vcpu: ApicVcpu) -> None:
        """The vCPU enters the guest."""
        if trace_run.KvmEntry in self._wanted:
            event = vcpu.event_inj
            self._bus.emit(
                trace_run.KvmEntry(
                    vcpu_id=vcpu.id,
                    rip=vcpu.rip,
                    immediate_exit=False,
                    # SVM_EVTINJ_VALID with type INTR.
                    intr_info=0 if event is None else 1 << 31 | event.vector,
                    error_code=0,
                )
            )

    def kvm_vcpu_wakeup(self, vcpu: ApicVcpu, slept_ns: int) -> None:
        """The vCPU stops sleeping."""
        self.act(vcpu)
        if trace_run.KvmVcpuWakeup in self._wanted:
            self._bus.emit(trace_run.KvmVcpuWakeup(ns=slept_ns, waited=True, valid=True))

    def kvm_userspace_exit(self, vcpu: ApicVcpu, reason: int) -> None:
        """KVM_RUN of the vCPU returned with this KVM_EXIT_*."""
        self.act(vcpu)
        if trace_run.KvmUserspaceExit in self._wanted:
            self._bus.emit(trace_run.KvmUserspaceExit(reason=reason, errno=0))

    def interrupted(self, vcpu: ApicVcpu) -> None:
        """KVM_RUN of the vCPU returned because of a signal."""
        if trace_run.KvmUserspaceExit in self._wanted:
            self._bus.emit(trace_run.KvmUserspaceExit(reason=EXIT_INTR, errno=-EINTR))

    def kvm_apicv_activate_request(self, vcpu: ApicVcpu) -> None:
        """make_activate was called."""
        if trace.KvmApicvActivateRequest in self._wanted:
            self._bus.emit(trace.KvmApicvActivateRequest(vcpu=vcpu.id))

    def kvm_apicv_deactivate_request(self, vcpu: ApicVcpu, *, disable: bool) -> None:
        """make_deactivate was called."""
        if trace.KvmApicvDeactivateRequest in self._wanted:
            self._bus.emit(trace.KvmApicvDeactivateRequest(vcpu=vcpu.id, disable=disable))

    def kvm_apicv_update_request(self, bit: int, *, activate: bool) -> None:
        """The VM flipped."""
        if trace.KvmApicvUpdateRequest in self._wanted:
            self._bus.emit(trace.KvmApicvUpdateRequest(activate=activate, bit=bit))

    def kvm_apicv_inhibit_changed(self, reason: int, mask: int, *, on: bool) -> None:
        """A reason was set or cleared, which gives this mask."""
        if trace.KvmApicvInhibitChanged in self._wanted:
            self._bus.emit(trace.KvmApicvInhibitChanged(reason=reason, set=on, inhibits=mask))

    def kvm_apic_accept_irq(self, vcpu: ApicVcpu, vector: int, mode: int, trigger: int) -> None:
        """A local APIC takes an interrupt."""
        if trace_lapic.KvmApicAcceptIrq in self._wanted:
            self._bus.emit(
                trace_lapic.KvmApicAcceptIrq(apicid=vcpu.id, dm=mode << 8, tm=trigger, vec=vector)
            )

    def kvm_apicv_accept_irq(self, vcpu: ApicVcpu, vector: int, mode: int, trigger: int) -> None:
        """The interrupt goes to a vCPU with AVIC on."""
        if trace.KvmApicvAcceptIrq in self._wanted:
            self._bus.emit(
                trace.KvmApicvAcceptIrq(apicid=vcpu.id, dm=mode << 8, tm=trigger, vec=vector)
            )

    def kvm_avic_doorbell(self, vcpu: ApicVcpu) -> None:
        """Another host CPU rings the vCPU's doorbell; on its own there is none."""
        if self.actor is not None and self.actor.kvm.cpu == vcpu.kvm.cpu:
            return
        if trace.KvmAvicDoorbell in self._wanted:
            self._bus.emit(trace.KvmAvicDoorbell(vcpuid=vcpu.id, apicid=vcpu.kvm.cpu))

    def kvm_avic_incomplete_ipi(
        self, vcpu: ApicVcpu, icrh: int, icrl: int, failure: int, index: int
    ) -> None:
        """Hardware did not finish an IPI."""
        if trace.KvmAvicIncompleteIpi in self._wanted:
            self._bus.emit(
                trace.KvmAvicIncompleteIpi(
                    vcpu=vcpu.id, icrh=icrh, icrl=icrl, id=failure, index=index
                )
            )

    def kvm_avic_kick_vcpu_slowpath(self, icrh: int, icrl: int, index: int) -> None:
        """KVM searches the targets of an IPI among all vCPUs."""
        if trace.KvmAvicKickVcpuSlowpath in self._wanted:
            self._bus.emit(trace.KvmAvicKickVcpuSlowpath(icrh=icrh, icrl=icrl, index=index))

    def kvm_avic_unaccelerated_access(
        self, vcpu: ApicVcpu, offset: int, *, trap: bool, write: bool, vector: int
    ) -> None:
        """Hardware did not finish an access to an APIC register."""
        if trace.KvmAvicUnacceleratedAccess in self._wanted:
            self._bus.emit(
                trace.KvmAvicUnacceleratedAccess(
                    vcpu=vcpu.id, offset=offset, ft=trap, rw=write, vec=vector
                )
            )

    def kvm_avic_ga_log(self, vm_id: int, vcpu_id: int) -> None:
        """The IOMMU reports an interrupt for a vCPU that was not running."""
        if trace.KvmAvicGaLog in self._wanted:
            self._bus.emit(trace.KvmAvicGaLog(vmid=vm_id, vcpuid=vcpu_id))

    def kvm_inj_virq(self, vcpu: ApicVcpu, vector: int, *, reinjected: bool) -> None:
        """An external interrupt is put into the guest."""
        if trace_lapic.KvmInjVirq in self._wanted:
            self._bus.emit(
                trace_lapic.KvmInjVirq(vector=vector, soft=False, reinjected=reinjected, irq=vector)
            )

    def kvm_eoi(self, vcpu: ApicVcpu, vector: int) -> None:
        """The guest ended an interrupt, as KVM saw it; vector -1: there was none."""
        if trace_lapic.KvmEoi in self._wanted:
            self._bus.emit(trace_lapic.KvmEoi(apicid=vcpu.id, vector=vector))

    def kvm_ack_irq(self, chip: int, pin: int) -> None:
        """A pin's interrupt ended."""
        if trace_irq.KvmAckIrq in self._wanted:
            self._bus.emit(trace_irq.KvmAckIrq(irqchip=chip, pin=pin))

    def kvm_set_irq(self, gsi: int, source: int, *, high: bool) -> None:
        """A line is raised or lowered."""
        if trace_irq.KvmSetIrq in self._wanted:
            self._bus.emit(trace_irq.KvmSetIrq(gsi=gsi, level=int(high), irq_source_id=source))

    def kvm_pic_set_irq(self, chip: Chip, pin: int, *, coalesced: bool) -> None:
        """A pin of a PIC is set; pins 0-15."""
        if trace_irq.KvmPicSetIrq in self._wanted:
            self._bus.emit(
                trace_irq.KvmPicSetIrq(
                    chip=pin >> 3, pin=pin & 7, elcr=chip.elcr, imr=chip.imr, coalesced=coalesced
                )
            )

    def ioapic_bits(self, entry: RedirectEntry) -> int:
        """The entry as `ioapic_set` wants it; 0 when nobody listens."""
        return entry.bits if trace_irq.KvmIoapicSetIrq in self._wanted else 0

    def kvm_ioapic_set_irq(self, bits: int, pin: int, *, coalesced: bool) -> None:
        """A pin of the IOAPIC is set, whose entry had these bits before."""
        if trace_irq.KvmIoapicSetIrq in self._wanted:
            self._bus.emit(trace_irq.KvmIoapicSetIrq(e=bits, pin=pin, coalesced=coalesced))

    def kvm_ioapic_delayed_eoi_inj(self, entry: RedirectEntry) -> None:
        """A level interrupt that is_storm is put off."""
        if trace_irq.KvmIoapicDelayedEoiInj in self._wanted:
            self._bus.emit(trace_irq.KvmIoapicDelayedEoiInj(e=entry.bits))

    def kvm_apic_ipi(self, icrl: int, dest: int) -> None:
        """KVM sends an IPI for a guest."""
        if trace_lapic.KvmApicIpi in self._wanted:
            self._bus.emit(trace_lapic.KvmApicIpi(icr_low=icrl, dest_id=dest))

    def kvm_apic(self, offset: int, value: int, *, write: bool) -> None:
        """KVM does an access to an APIC register for a guest."""
        if trace_lapic.KvmApic in self._wanted:
            self._bus.emit(trace_lapic.KvmApic(rw=int(write), reg=offset, val=value))

    def kvm_msi_set_irq(self, address: int, data: int) -> None:
        """An MSI route is translated."""
        if trace_irq.KvmMsiSetIrq in self._wanted:
            self._bus.emit(trace_irq.KvmMsiSetIrq(address=address, data=data))

    def kvm_pi_irte_update(
        self, vcpu: ApicVcpu, host_irq: int, gsi: int, vector: int, page: int, *, on: bool
    ) -> None:
        """An assigned device's interrupt goes directly to a vCPU, or no longer."""
        if trace_irq.KvmPiIrteUpdate in self._wanted:
            self._bus.emit(
                trace_irq.KvmPiIrteUpdate(
                    host_irq=host_irq,
                    vcpu_id=vcpu.id,
                    gsi=gsi,
                    gvec=vector,
                    set=on,
                    pi_desc_addr=page,
                )
            )

    def kvm_pio(self, port: int, value: int) -> None:
        """The guest writes a byte to an I/O port."""
        if trace_guest.KvmPio in self._wanted:
            self._bus.emit(trace_guest.KvmPio(rw=1, port=port, size=1, count=1, val=value))

    def kvm_msr(self, number: int, value: int) -> None:
        """The guest writes an MSR."""
        if trace_guest.KvmMsr in self._wanted:
            self._bus.emit(trace_guest.KvmMsr(write=1, ecx=number, data=value, exception=0))
