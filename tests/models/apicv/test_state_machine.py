"""Random histories of a VM in every kernel: what must hold after each command.

Two machines live through the same: on one somebody listens to every event, so that vCPUs are
tracked one by one; on the other nobody does, and what concerns all is booked at once.
"""

from __future__ import annotations

import os
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fakesys.core.errors import KernelError
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.subsystems.apicv.state.inhibit import State
from fakesys.subsystems.apicv.state.inhibit_reasons import Reason
from fakesys.subsystems.apicv.state.policy import ApicvPolicy, InhibitStyle
from fakesys.subsystems.apicv.state.vcpu import (
    ACTIVATE,
    APICV_REQUESTS,
    DEACTIVATE,
    ApicVcpu,
    RunState,
)
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.stats import STATS, Scope
from tests.avic_kit import CTL, KERNELS, Guests, only
from tests.long import LONG

VCPUS = 3
# Histories of each kernel: always the same few, or as many new ones as FAKESYS_EXAMPLES says.
ASKED = os.environ.get("FAKESYS_EXAMPLES")
EXAMPLES = int(ASKED or "10") // 3
DELIVERIES = ("irq_injections", "req_event")
FLIP_TRACE = {
    InhibitStyle.ENUM: ("kvm_apicv_activate_request", "kvm_apicv_deactivate_request"),
    InhibitStyle.FLIPS: ("kvm_apicv_update_request",),
    InhibitStyle.BITS: ("kvm_apicv_inhibit_changed",),
    InhibitStyle.COUNTED: ("kvm_apicv_inhibit_changed",),
}
VCPU = st.integers(0, VCPUS - 1)
VECTOR = st.sampled_from((0x31, 0x35, 0x41, 0x45, 0x61))
GUEST_ACTS = (
    "cli", "sti", "iret", "hlt", "eoi", "piceoi", "lvt0 extint", "lvt0 masked",
    "apic read 0x390", "apic write 0x80 0x40", "apic write 0x80 0", "nested vmrun",
    "nested vmexit", "hv sint 1 vec=0x50 autoeoi=1", "hv sint 1 vec=0x50 masked=1",
)  # fmt: skip
HOST_ACTS = (
    "start", "stop", "preempt", "resume", "resume cpu=9", "cpuid svm=1", "cpuid x2apic=1",
    "guestdbg blockirq=1", "guestdbg blockirq=0", "hv synic",
)  # fmt: skip
VM_ACTS = (
    "pit tick", "pit tick 3", "pit load", "pit reinject 0", "pit reinject 1", "rtc tick",
    "pulse 5", "irq 9 1", "irq 9 0", "pic base=0x30 imr=0", "pic base=0x30 imr=0 aeoi=1",
    "pic base=0x30 imr=0xffff", "ioapic 2 vec=0x31", "ioapic 2 mask=1", "ioapic 5 vec=0x35 dst=1",
    "ioapic 5 vec=0x35 dst=255", "ioapic 8 vec=0x41 dst=2", "ioapic 9 vec=0x45 trig=level",
    "dev add d irq=1 gsi=24 vec=0x61 dst=2", "dev route d vec=0x61 dst=1", "dev fire d",
    "dev del d", "handler auto", "handler manual",
)  # fmt: skip


class Histories(RuleBasedStateMachine):
    """Commands to the VM `g`, on both machines."""

    kernel: str

    def __init__(self) -> None:
        super().__init__()
        self.loud, self.quiet = Guests(self.kernel), Guests(self.kernel, listens=False)
        self.was_disabled = False
        self.told = 0
        self.seen: dict[str, str] = {}
        for guests in (self.loud, self.quiet):
            guests.boot(VCPUS)
        self.loud.lines.clear()
        self.seen = self.loud.everything()
        self.flips = self.vm.inhibit.flips
        self.at_first = (self.flips.off, self.flips.on)

    @property
    def vm(self) -> ApicVm:
        side = self.loud.machine.subsystems.kvm
        return side.apicv.of(side.kvm.vm("g"))

    def vcpus(self) -> list[ApicVcpu]:
        side = self.loud.machine.subsystems.kvm
        return [side.apicv.vcpu_of(vcpu)[1] for vcpu in side.kvm.vm("g").vcpus.values()]

    def give(self, text: str) -> None:
        errors = []
        for guests in (self.loud, self.quiet):
            guests.lines.clear()
            try:
                guests.machine.write(CTL, text)
            except KernelError as refusal:
                errors.append(refusal.errno)
        assert len(errors) in (0, 2)
        if errors:
            # 8: a refusal leaves everything as it is.
            assert errors[0] == errors[1]
            assert self.loud.everything() == self.seen
            assert self.loud.lines == []
        self.told += len(only(self.loud.lines, *FLIP_TRACE[self.policy.style]))

    @property
    def policy(self) -> ApicvPolicy:
        return self.vm.policy

    @rule(number=VCPU, act=st.sampled_from(GUEST_ACTS))
    def guest(self, number: int, act: str) -> None:
        self.give(f"g vcpu {number} {act}")

    @rule(number=VCPU, act=st.sampled_from(HOST_ACTS))
    def host(self, number: int, act: str) -> None:
        self.give(f"g vcpu {number} {act}")

    @rule(act=st.sampled_from(VM_ACTS))
    def devices(self, act: str) -> None:
        self.give(f"g {act}")

    @rule(number=VCPU, dest=st.integers(0, VCPUS), vector=VECTOR)
    def unicast(self, number: int, dest: int, vector: int) -> None:
        self.give(f"g vcpu {number} ipi dst={dest} vec={vector}")

    @rule(number=VCPU, shorthand=st.sampled_from(("self", "all", "others")), vector=VECTOR)
    def broadcast(self, number: int, shorthand: str, vector: int) -> None:
        self.give(f"g vcpu {number} ipi sh={shorthand} vec={vector}")

    @rule(number=VCPU, dest=VCPU, mode=st.sampled_from(("nmi", "lowest", "init", "sipi")))
    def other_ipis(self, number: int, dest: int, mode: str) -> None:
        vector = 0x45 if mode == "lowest" else 0
        self.give(f"g vcpu {number} ipi dst={dest} vec={vector} dm={mode}")

    @rule(number=VCPU)
    def logical_id(self, number: int) -> None:
        self.give(f"g vcpu {number} apic write 0xd0 {1 << 24 + number:#x}")

    @precondition(lambda self: self.vm.inhibit.active)
    @rule(number=VCPU, vector=VECTOR)
    def by_hardware_alone(self, number: int, vector: int) -> None:
        """6: what AVIC delivers counts as no injection and no event."""
        vcpu = self.vcpus()[number]
        if vcpu.run is not RunState.GUEST or not vcpu.apicv_active:
            return
        before = self.loud.sums(*DELIVERIES)
        self.give(f"g vcpu {number} ipi sh=self vec={vector}")
        if not any(vcpu.lapic.is_level(vector) for vcpu in self.vcpus()):
            assert self.loud.sums(*DELIVERIES) == before

    @invariant()
    def requests_and_flips(self) -> None:
        """1: off and on take turns, one request is pending at most, disabled is for good."""
        switch = self.vm.inhibit
        off, on = self.flips.off - self.at_first[0], self.flips.on - self.at_first[1]
        started_active = self.policy.style is InhibitStyle.ENUM
        assert off - on in ((0, 1) if started_active else (-1, 0, 1))
        for vcpu in self.vcpus():
            pending = vcpu.requests & APICV_REQUESTS
            assert pending in (0, ACTIVATE, DEACTIVATE)
        if started_active:
            disabled = switch.state is State.DISABLED
            assert disabled or not self.was_disabled
            self.was_disabled = disabled

    @invariant()
    def all_are_as_the_vm(self) -> None:
        """2: unless something of its own is against it, and unless it has not run since."""
        for vcpu in self.vcpus():
            if vcpu.run is RunState.GUEST:
                own = vcpu.in_l2 and self.policy.style in (InhibitStyle.BITS, InhibitStyle.COUNTED)
                assert vcpu.apicv_active == (self.vm.inhibit.active and not own)
                assert not vcpu.requests

    @invariant()
    def the_page(self) -> None:
        """3: it is there exactly while the VM is active, or always."""
        page = self.vm.access_page.present
        assert page == (self.vm.inhibit.active if self.policy.page_follows else True)
        assert bool(self.loud.view("memslots")) == page

    @invariant()
    def the_lines(self) -> None:
        """4: for each flip a line, and more for calls that change nothing."""
        flips = self.flips.off + self.flips.on - sum(self.at_first)
        if self.policy.style is InhibitStyle.FLIPS:
            assert self.told == flips
        else:
            assert self.told >= flips

    @invariant()
    def one_place_for_each_vector(self) -> None:
        """5: nothing is queued for injection and in the guest at once; marks are of the living."""
        for vcpu in self.vcpus():
            assert vcpu.event_inj is None
            assert vcpu.injected is None or not vcpu.interrupts_on or vcpu.run is not RunState.GUEST
            if vcpu.run is RunState.GUEST and vcpu.apicv_active and vcpu.interrupts_on:
                assert vcpu.lapic.deliverable() < 0 or self.may_miss_doorbell(vcpu)
        assert not self.vm.handlers
        assert not self.vm.runnable
        assert not self.vm.touched

    def may_miss_doorbell(self, vcpu: ApicVcpu) -> bool:
        """[v3], [5.6]: with IsRunning clear svm_deliver_avic_intr only wakes the vCPU.

        svm_refresh_apicv_exec_ctrl of that time sets AVIC_ENABLE without avic_vcpu_load, so a vCPU
        in guest may have IsRunning clear; a vector then stays in IRR.
        """
        return not self.policy.off_clears_running and not self.vm.is_running(vcpu)

    @invariant()
    def the_sums(self) -> None:
        """7: the VM's counters are the sums of its vCPUs', the top level's those of the VMs."""
        kvm = self.loud.machine.subsystems.kvm.kvm
        vm = kvm.vm("g")
        for stat in STATS:
            total = vm.read(stat)
            assert kvm.read(stat) == total
            if stat.scope is Scope.VCPU:
                assert total == sum(stat.read(vcpu.stats) for vcpu in vm.vcpus.values())

    @invariant()
    def nobody_sees_who_listens(self) -> None:
        """Booking for all at once comes to the same as for each alone."""
        self.seen = self.loud.everything()
        assert self.quiet.everything() == self.seen
        for guests in (self.loud, self.quiet):
            assert guests.machine.read("sys/kernel/debug/fakesys/bugs") == "0\n"

    @invariant()
    def numbers_of_reasons(self) -> None:
        """Only bits of reasons that the kernel knows are set."""
        known = 0
        for reason in Reason:
            if reason in self.policy.numbers:
                known |= 1 << self.policy.numbers[reason]
        assert not self.vm.inhibit.mask & ~known


def machine_of(kernel: str) -> Any:
    """The test case of a kernel."""
    case: Any = type(f"Histories of {kernel}", (Histories,), {"kernel": kernel})
    case.TestCase.settings = settings(
        max_examples=EXAMPLES if kernel in KERNELS or LONG else 2,
        stateful_step_count=30,
        deadline=None,
        derandomize=ASKED is None,
        suppress_health_check=list(HealthCheck),
    )
    return case.TestCase


# Levels of the series that no other one is equal to, and levels without a patch of their middle.
LEVELS: tuple[str, ...] = (
    "5.3",
    "v3-08",
    "v3-09",
    "v3-10",
    "v3-14",
    "v3-16-06",
    "v3-16-08",
    "v3-16-11",
    "v3-16-15",
)
if LONG:
    LEVELS = (*dict.fromkeys((*APICV_KERNELS.series.levels(), *LEVELS)),)


@pytest.mark.parametrize("kernel", [*KERNELS, *LEVELS])
def test_histories(kernel: str) -> None:
    machine_of(kernel)("runTest").runTest()
