"""What well-known guests do while they boot, as the test claims of the series describe it.

Every step consists of the same operations that the commands use, so the counters and events of a
boot are those that the model produces.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.scheduling.resched import cond_resched_killable, might_resched
from fakesys.subsystems.apicv.chips import lapic
from fakesys.subsystems.apicv.chips.ioapic import RTC_PIN, RedirectEntry
from fakesys.subsystems.apicv.chips.lapic import Mode
from fakesys.subsystems.apicv.devices import apic_access, ipi, posted, vm_ioctls
from fakesys.subsystems.apicv.devices import synic as synic_controller
from fakesys.subsystems.apicv.engine import (
    delivery,
    guest_steps,
    injection,
    requests,
    vcpu_enter,
    vcpu_load,
    vcpu_run,
)
from fakesys.subsystems.apicv.engine.delivery import LapicIrq
from fakesys.subsystems.apicv.engine.quiesce import command
from fakesys.subsystems.apicv.engine.routing import PIT_IOAPIC_PIN
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.state.params import REINJECT
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu, MsiRoute, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.vm import Irqchip, VmOptions

TIMER_VECTOR, RTC_VECTOR, DEVICE_VECTOR = 0x30, 0x28, 0x41
CALL_VECTOR, WAKE_VECTOR = 0xFB, 0xFD
LAST_XAPIC_ID = 254
INIT, INIT_DEASSERT, SIPI = 0xC500, 0x8500, 0x600
DEVICE_INTERRUPTS = 16
IOAPIC_TICKS = 8
LOGICAL_LIMIT = 8
"""How many vCPUs a flat logical destination can name."""


class GuestOs(Struct, frozen=True):
    """How the boot of an operating system differs.

    `ticks`, `windows`: PIT ticks with interrupts on, and with interrupts off. `broadcasts`: IPIs to
    all other vCPUs. `rtc_ticks`: ticks of the real time clock. `logical_wakes`: halted vCPUs are
    woken by logical destination.
    """

    ticks: int = 48
    windows: int = 16
    broadcasts: int = 1
    rtc_ticks: int = 8
    logical_wakes: bool = False
    # The number of vCPUs to which the series was tested with it.
    tested_to: int = 1024


LINUX = GuestOs()
WINDOWS = GuestOs(rtc_ticks=1024)
FREEBSD = GuestOs(ticks=32, windows=8, broadcasts=16, logical_wakes=True, tested_to=128)
GUESTS = {"linux-boot": LINUX, "windows2019-boot": WINDOWS, "freebsd-boot": FREEBSD}
RECORDED_BOOT = "boot-6.1"
NAMES = frozenset(GUESTS) | {RECORDED_BOOT}
"""The presets of guests: those that the series was tested with, and the boot that was recorded."""


class VmSpec(Struct, frozen=True):
    """The VM to create.

    `synic`: each vCPU has Hyper-V's interrupt controller from the start. `pid`, `fd`: see
    `Kvm.create_vm`.
    """

    name: str
    vcpus: int
    irqchip: Irqchip = Irqchip.KERNEL
    reinject: bool = True
    synic: bool = False
    pid: int = 0
    fd: int = 0


def check(apicv: Apicv, spec: VmSpec) -> None:
    """Raise EINVAL for a VM that cannot boot: too many vCPUs, no local APICs."""
    if spec.irqchip is Irqchip.NONE:
        raise KernelError(EINVAL, "these guests need local APICs in the kernel")
    limits = apicv.kvm.limits
    if spec.vcpus > min(limits.count, limits.ids):
        raise KernelError(EINVAL, f"more than {limits.count} vCPUs")
    apicv.check_ids(spec.vcpus - 1, spec.irqchip)


def make(apicv: Apicv, spec: VmSpec) -> ApicVm:
    """Create the VM, ready to boot. Raises EEXIST, EINVAL before any change."""
    check(apicv, spec)
    vm = apicv.kvm.create_vm(
        spec.name,
        pid=spec.pid,
        fd=spec.fd,
        irqchip=spec.irqchip,
        options=VmOptions({REINJECT: spec.reinject}),
    )
    apic_vm = apicv.of(vm)
    apic_vm.auto_handler = True
    apicv.kvm.create_vcpus(vm, count=spec.vcpus)
    return apic_vm


class Hung(Exception):
    """A boot waits for a tick that nothing will deliver. The text: `hung at=TICK source= why=`."""


def boot(apicv: Apicv, guest_os: GuestOs, spec: VmSpec) -> str:
    """Create the VM and boot it. Raises EEXIST, EINVAL before any change, EINTR after a signal.

    Returns `result=hung at=TICK source=pit|rtc why=REASON` if the guest waits for ever for a tick,
    `untested-scale` if the series was not tested with so many vCPUs, else an empty text.
    """
    might_resched()
    try:
        with apicv.kvm.commands.running(spec.name):
            Boot(make(apicv, spec), guest_os).run(synic=spec.synic)
    except Hung as hung:
        return f"result={hung}"
    return "untested-scale" if spec.vcpus > guest_os.tested_to else ""


# Seconds between ticks of the timer and of the clock, between interrupts of a device, with
# interrupts off, and between two IPIs. They matter only to a `Boot` with a pause of its own.
TIMER_PERIOD, CLOCK_PERIOD, DEVICE_PERIOD = 0.01, 1 / 64, 0.001
CLOSED, BETWEEN_IPIS = 0.002, 0.0001


def no_pause(_seconds: float) -> None:
    """Let no time pass; others are let in. Raises EINTR after a signal."""
    cond_resched_killable()


class Boot:
    """The boot of one guest, step by step. `pause` is called with the seconds that pass."""

    def __init__(
        self, vm: ApicVm, guest_os: GuestOs, pause: Callable[[float], None] = no_pause
    ) -> None:
        self._pause = pause
        self._vm = vm
        self._os = guest_os
        self._first = vm.vcpus[0]
        self._others = [vcpu for vcpu in vm.vcpus.values() if vcpu.id]
        self._wide = len(vm.vcpus) - 1 > LAST_XAPIC_ID
        # Ticks of the timer so far, through whatever it is connected to.
        self._ticks = 0

    def run(self, *, synic: bool) -> None:
        """Run all steps in spec. Raises Hung."""
        for _, step in self.steps(synic=synic):
            step()

    def steps(self, *, synic: bool) -> tuple[tuple[str, Callable[[], None]], ...]:
        """Return the steps in order, each with its name."""
        return (
            ("set up", lambda: self._prepare(synic=synic)),
            ("timer at the PIC", self._timer_through_pic),
            ("windows", self._windows),
            ("timer at the IOAPIC", self._timer_through_ioapic),
            ("start APs", self._start_others),
            ("call all", self._call_others),
            ("wake APs", self._wake_others),
            ("clock", self._clock),
            ("device", self._device),
        )

    def _prepare(self, *, synic: bool) -> None:
        vm = self._vm
        if synic or self._wide:
            self._before_first_run(synic=synic)
        self._by(self._first, lambda v: apic_access.write(vm, v, lapic.LVT0, lapic.EXTINT))
        if vm.pic is not None:
            vm_ioctls.configure_pic(vm, TIMER_VECTOR, 0, auto_eoi=False)

    def _before_first_run(self, *, synic: bool) -> None:
        """Do the ioctls of user space on all vCPUs, before any of them is in guest."""
        vm = self._vm
        with command(vm):
            requests.sync_vcpu(vm, self._first).run = RunState.STOPPED
            vcpu_load.put(vm, self._first)
            for vcpu in list(vm.vcpus.values()):
                requests.sync_vcpu(vm, vcpu)
                if self._wide:
                    vcpu.cpuid.x2apic = True
                    apic_access.set_base(vm, vcpu, x2apic=True)
                if synic:
                    synic_controller.activate(vm, vcpu)
            vm.tracer.act(self._first)
            vcpu_run.load(vm, self._first)
            vcpu_enter.enter(vm, self._first)

    def _by(self, vcpu: ApicVcpu, action: Callable[[ApicVcpu], None]) -> None:
        with command(self._vm, vcpu):
            action(vcpu)

    def _tick(self) -> None:
        self._ticks += 1
        if self._vm.pit is not None:
            vm_ioctls.tick_pit(self._vm)
        else:
            vm_ioctls.queue_extint(self._vm, TIMER_VECTOR)

    def _timer_through_pic(self) -> None:
        for _ in range(self._os.ticks):
            self._tick()
            self._require_timer()
            self._pause(TIMER_PERIOD)

    def _require_timer(self) -> None:
        """Raise Hung if the guest takes interrupts and nothing can deliver the last tick any more.

        All is quiet: no vCPU reacts to something.
        """
        vm, first = self._vm, self._first
        if not first.interrupts_on or first.v_irq or first.requests:
            return
        if injection.has_extint(vm, first):
            raise Hung(f"hung at={self._ticks} source=pit why=extint")
        if vm.pit is not None and vm.pit.reinject and not vm.pit.irq_ack and vm.pit.pending > 1:
            raise Hung(f"hung at={self._ticks} source=pit why=irq_ack")

    def _let_host_inject(self) -> None:
        """Exit for the host's own timer if user space still waits for a window that never opens."""
        vm, first = self._vm, self._first
        if first.user_pic.wants_window and first.interrupts_on:
            with command(vm):
                requests.kick(vm, first)

    def _windows(self) -> None:
        vm = self._vm
        for _ in range(self._os.windows):
            self._by(self._first, lambda v: guest_steps.set_interrupts(vm, v, on=False))
            self._tick()
            self._pause(CLOSED)
            self._by(self._first, lambda v: guest_steps.set_interrupts(vm, v, on=True))
            self._let_host_inject()
            self._require_timer()
            self._pause(TIMER_PERIOD - CLOSED)

    def _timer_through_ioapic(self) -> None:
        vm = self._vm
        self._by(self._first, lambda v: apic_access.write(vm, v, lapic.LVT0, lapic.MASKED))
        if vm.pic is None:
            self._message(TIMER_VECTOR, IOAPIC_TICKS, TIMER_PERIOD, "pit", self._ticks)
            return
        vm_ioctls.configure_pic(vm, TIMER_VECTOR, 0xFF, auto_eoi=False)
        pin = RedirectEntry(vector=TIMER_VECTOR, masked=False)
        vm_ioctls.configure_pin(vm, PIT_IOAPIC_PIN, pin)
        for _ in range(IOAPIC_TICKS):
            self._tick()
            self._require_timer()
            self._pause(TIMER_PERIOD)
        vm_ioctls.configure_pin(vm, PIT_IOAPIC_PIN, RedirectEntry(vector=TIMER_VECTOR))

    def _message(
        self, vector: int, count: int, period: float, source: str, before: int = 0
    ) -> None:
        """Send MSIs to vCPU 0 from an IOAPIC in user space. `before`: ticks of the source so far.

        Raises Hung when a tick stays behind one without an EOI.
        """
        vm, route = self._vm, MsiRoute(vector, 0)
        for tick in range(before + 1, before + count + 1):
            with command(vm):
                vm.tracer.kvm_msi_set_irq(route.address, route.data)
                delivery.deliver(vm, self._first.bit, LapicIrq(vector, Mode.FIXED))
            if self._first.interrupts_on and self._first.lapic.irr >> vector & 1:
                raise Hung(f"hung at={tick} source={source} why=eoi")
            self._pause(period)

    def _start_others(self) -> None:
        for vcpu in self._others:
            for icrl in (INIT, INIT_DEASSERT, SIPI, SIPI):
                self._ipi(vcpu.id, icrl)

    def _ipi(self, dest: int, icrl: int) -> None:
        self._by(self._first, lambda v: ipi.send(self._vm, v, dest, icrl))
        self._pause(BETWEEN_IPIS)

    def _call_others(self) -> None:
        for _ in range(self._os.broadcasts):
            self._ipi(0, CALL_VECTOR | ipi.OTHERS)

    def _wake_others(self) -> None:
        vm = self._vm
        logical = self._os.logical_wakes and len(vm.vcpus) <= LOGICAL_LIMIT
        for vcpu in self._others:
            if logical:
                self._by(vcpu, lambda v: apic_access.write(vm, v, lapic.LDR, 1 << (24 + v.id)))
            self._by(vcpu, lambda v: guest_steps.halt(vm, v))
        for vcpu in self._others:
            if logical:
                self._ipi(1 << vcpu.id, WAKE_VECTOR | ipi.LOGICAL)
            else:
                self._ipi(vcpu.id, WAKE_VECTOR)

    def _clock(self) -> None:
        vm = self._vm
        if vm.ioapic is None:
            self._message(RTC_VECTOR, self._os.rtc_ticks, CLOCK_PERIOD, "rtc")
            return
        vm_ioctls.configure_pin(vm, RTC_PIN, RedirectEntry(vector=RTC_VECTOR, masked=False))
        for tick in range(1, self._os.rtc_ticks + 1):
            if vm_ioctls.tick_rtc(vm):
                raise Hung(f"hung at={tick} source=rtc why=pending_eoi")
            self._pause(CLOCK_PERIOD)

    def _device(self) -> None:
        vm = self._vm
        posted.add(vm, "nic", 40, 24, MsiRoute(DEVICE_VECTOR, max(vm.vcpus)))
        for _ in range(DEVICE_INTERRUPTS):
            posted.fire(vm, "nic")
            self._pause(DEVICE_PERIOD)
