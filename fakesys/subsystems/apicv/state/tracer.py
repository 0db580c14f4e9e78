"""The tracepoints of interrupt virtualization: one method per event, with the name of the event.

Each method emits its event if it is recorded. The task of an event is the thread that acts: that of
a vCPU, or the task that wrote the command.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fakesys.core.events import Bus
from fakesys.subsystems.apicv.chips.ioapic import RedirectEntry
from fakesys.subsystems.apicv.chips.pic import Chip
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu
from fakesys.subsystems.kvm.events import avic, irq, lapic, run


class ApicTracer:
    """Emits the events. `actor`: the vCPU whose thread runs now; None for a thread of the host."""

    def __init__(self, bus: Bus) -> None:
        self.actor: ApicVcpu | None = None
        self._bus = bus
        self._wanted = bus.wanted
        self._outside = bus.task

    @property
    def wants_entries(self) -> bool:
        """Whether kvm_exit or kvm_entry is recorded."""
        return run.KvmExit in self._wanted or run.KvmEntry in self._wanted

    @contextmanager
    def context(self) -> Iterator[None]:
        """Surround a command; afterwards the current task is the one from before."""
        self._outside = self._bus.task
        try:
            yield
        finally:
            self.act(None)

    def act(self, vcpu: ApicVcpu | None) -> None:
        """Make the thread of this vCPU the current task; None: the task that wrote the command."""
        if vcpu is self.actor:
            return
        self.actor = vcpu
        self._bus.task = self._outside if vcpu is None else vcpu.kvm.task

    def runs(self) -> None:
        """Emit that the thread that acts is on its CPU, if it was not."""
        if self._bus.scheduler is not None:
            self._bus.scheduler.run()

    def is_signalled(self) -> None:
        """Emit that a signal wakes the thread that acts."""
        if self._bus.scheduler is not None:
            self._bus.scheduler.begin()

    def wakes(self, vcpu: ApicVcpu) -> None:
        """Emit that the vCPU's thread is woken."""
        if self._bus.scheduler is not None:
            self._bus.scheduler.wake(vcpu.kvm.task)

    def sleeps(self, vcpu: ApicVcpu) -> None:
        """Emit that the vCPU's thread leaves its CPU, to wait."""
        if self._bus.scheduler is not None:
            self._bus.scheduler.sleep(vcpu.kvm.task)

    def is_preempted(self, vcpu: ApicVcpu) -> None:
        """Emit that the vCPU's thread must leave its CPU."""
        if self._bus.scheduler is not None:
            self._bus.scheduler.preempt(vcpu.kvm.task)

    def kvm_vcpu_wakeup(self, vcpu: ApicVcpu, slept_ns: int) -> None:
        """Emit that the vCPU stops sleeping; from now on its thread acts."""
        self.act(vcpu)
        if run.KvmVcpuWakeup in self._wanted:
            self._bus.emit(run.KvmVcpuWakeup(ns=slept_ns, waited=True, valid=True))

    def kvm_apicv_activate_request(self, vcpu: ApicVcpu) -> None:
        """Emit a call of make_activate of the series."""
        if avic.KvmApicvActivateRequest in self._wanted:
            self._bus.emit(avic.KvmApicvActivateRequest(vcpu=vcpu.id))

    def kvm_apicv_deactivate_request(self, vcpu: ApicVcpu, *, disable: bool) -> None:
        """Emit a call of make_deactivate of the series."""
        if avic.KvmApicvDeactivateRequest in self._wanted:
            self._bus.emit(avic.KvmApicvDeactivateRequest(vcpu=vcpu.id, disable=disable))

    def kvm_apicv_update_request(self, bit: int, *, activate: bool) -> None:
        """Emit that the VM switched AVIC on or off."""
        if avic.KvmApicvUpdateRequest in self._wanted:
            self._bus.emit(avic.KvmApicvUpdateRequest(activate=activate, bit=bit))

    def kvm_apicv_inhibit_changed(self, reason: int, mask: int, *, on: bool) -> None:
        """Emit that a reason was set or cleared, which results in this mask."""
        if avic.KvmApicvInhibitChanged in self._wanted:
            self._bus.emit(avic.KvmApicvInhibitChanged(reason=reason, set=on, inhibits=mask))

    def kvm_apic_accept_irq(self, vcpu: ApicVcpu, vector: int, mode: int, trigger: int) -> None:
        """Emit that a local APIC accepts an interrupt."""
        if lapic.KvmApicAcceptIrq in self._wanted:
            self._bus.emit(
                lapic.KvmApicAcceptIrq(apicid=vcpu.id, dm=mode << 8, tm=trigger, vec=vector)
            )

    def kvm_apicv_accept_irq(self, vcpu: ApicVcpu, vector: int, mode: int, trigger: int) -> None:
        """Emit that a vCPU with AVIC on gets an interrupt."""
        if avic.KvmApicvAcceptIrq in self._wanted:
            self._bus.emit(
                avic.KvmApicvAcceptIrq(apicid=vcpu.id, dm=mode << 8, tm=trigger, vec=vector)
            )

    def kvm_avic_doorbell(self, vcpu: ApicVcpu) -> None:
        """Emit that another host CPU rings the doorbell of the vCPU; its own CPU does not."""
        if self.actor is not None and self.actor.kvm.cpu == vcpu.kvm.cpu:
            return
        if avic.KvmAvicDoorbell in self._wanted:
            self._bus.emit(avic.KvmAvicDoorbell(vcpuid=vcpu.id, apicid=vcpu.kvm.cpu))

    def kvm_avic_incomplete_ipi(
        self, vcpu: ApicVcpu, icrh: int, icrl: int, failure: int, index: int
    ) -> None:
        """Emit that hardware did not complete an IPI."""
        if avic.KvmAvicIncompleteIpi in self._wanted:
            self._bus.emit(
                avic.KvmAvicIncompleteIpi(
                    vcpu=vcpu.id, icrh=icrh, icrl=icrl, id=failure, index=index
                )
            )

    def kvm_avic_kick_vcpu_slowpath(self, icrh: int, icrl: int, index: int) -> None:
        """Emit that KVM searches all vCPUs for the targets of an IPI."""
        if avic.KvmAvicKickVcpuSlowpath in self._wanted:
            self._bus.emit(avic.KvmAvicKickVcpuSlowpath(icrh=icrh, icrl=icrl, index=index))

    def kvm_avic_unaccelerated_access(
        self, vcpu: ApicVcpu, offset: int, *, trap: bool, write: bool, vector: int
    ) -> None:
        """Emit that hardware did not complete an access to an APIC register."""
        if avic.KvmAvicUnacceleratedAccess in self._wanted:
            self._bus.emit(
                avic.KvmAvicUnacceleratedAccess(
                    vcpu=vcpu.id, offset=offset, ft=trap, rw=write, vec=vector
                )
            )

    def kvm_avic_ga_log(self, vm_id: int, vcpu_id: int) -> None:
        """Emit that the IOMMU reports an interrupt for a vCPU that was not running."""
        if avic.KvmAvicGaLog in self._wanted:
            self._bus.emit(avic.KvmAvicGaLog(vmid=vm_id, vcpuid=vcpu_id))

    def kvm_eoi(self, vcpu: ApicVcpu, vector: int) -> None:
        """Emit an EOI that KVM saw; vector -1: nothing was in service."""
        if lapic.KvmEoi in self._wanted:
            self._bus.emit(lapic.KvmEoi(apicid=vcpu.id, vector=vector))

    def kvm_ack_irq(self, chip: int, pin: int) -> None:
        """Emit that a pin's interrupt was acknowledged."""
        if irq.KvmAckIrq in self._wanted:
            self._bus.emit(irq.KvmAckIrq(irqchip=chip, pin=pin))

    def kvm_set_irq(self, gsi: int, source: int, *, high: bool) -> None:
        """Emit that a GSI is raised or lowered."""
        if irq.KvmSetIrq in self._wanted:
            self._bus.emit(irq.KvmSetIrq(gsi=gsi, level=int(high), irq_source_id=source))

    def kvm_pic_set_irq(self, chip: Chip, pin: int, *, coalesced: bool) -> None:
        """Emit that a pin of the PICs, 0-15, is set."""
        if irq.KvmPicSetIrq in self._wanted:
            self._bus.emit(
                irq.KvmPicSetIrq(
                    chip=pin >> 3, pin=pin & 7, elcr=chip.elcr, imr=chip.imr, coalesced=coalesced
                )
            )

    def ioapic_bits(self, entry: RedirectEntry) -> int:
        """Return the entry for `kvm_ioapic_set_irq`; 0 while that is not recorded."""
        return entry.bits if irq.KvmIoapicSetIrq in self._wanted else 0

    def kvm_ioapic_set_irq(self, bits: int, pin: int, *, coalesced: bool) -> None:
        """Emit that a pin of the IOAPIC is set; `bits`: its entry before."""
        if irq.KvmIoapicSetIrq in self._wanted:
            self._bus.emit(irq.KvmIoapicSetIrq(e=bits, pin=pin, coalesced=coalesced))

    def kvm_ioapic_delayed_eoi_inj(self, entry: RedirectEntry) -> None:
        """Emit that a level interrupt storms and is delayed."""
        if irq.KvmIoapicDelayedEoiInj in self._wanted:
            self._bus.emit(irq.KvmIoapicDelayedEoiInj(e=entry.bits))

    def kvm_apic_ipi(self, icrl: int, dest: int) -> None:
        """Emit that KVM sends an IPI for a guest."""
        if lapic.KvmApicIpi in self._wanted:
            self._bus.emit(lapic.KvmApicIpi(icr_low=icrl, dest_id=dest))

    def kvm_apic(self, offset: int, value: int, *, write: bool) -> None:
        """Emit that KVM carries out an access to an APIC register for a guest."""
        if lapic.KvmApic in self._wanted:
            self._bus.emit(lapic.KvmApic(rw=int(write), reg=offset, val=value))

    def kvm_msi_set_irq(self, address: int, data: int) -> None:
        """Emit that an MSI message is translated."""
        if irq.KvmMsiSetIrq in self._wanted:
            self._bus.emit(irq.KvmMsiSetIrq(address=address, data=data))

    def kvm_pi_irte_update(
        self, vcpu: ApicVcpu, host_irq: int, gsi: int, vector: int, page: int, *, on: bool
    ) -> None:
        """Emit that an assigned interrupt is posted to a vCPU from now on, or no longer."""
        if irq.KvmPiIrteUpdate in self._wanted:
            self._bus.emit(
                irq.KvmPiIrteUpdate(
                    host_irq=host_irq,
                    vcpu_id=vcpu.id,
                    gsi=gsi,
                    gvec=vector,
                    set=on,
                    pi_desc_addr=page,
                )
            )
