"""Boot a guest over simulated time, and measure storms of interrupt windows.

The boot is a preset (`fakesys/kvm/preset`) with time between its actions. In a storm the PIC raises
its interrupt again and again while vCPU 0 has interrupts off, so that KVM has to open an interrupt
window each time, for which it inhibits AVIC.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from fakesys.core.kernel import Kernel
from fakesys.lab.tables import Table
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.machine.kvm.subsystem import KvmSubsystem, kvm_of
from fakesys.machine.profiles import PROFILES
from fakesys.subsystems.apicv import presets
from fakesys.subsystems.apicv.chips import lapic
from fakesys.subsystems.apicv.devices import apic_access, vm_ioctls
from fakesys.subsystems.apicv.engine import guest_steps, vcpu_run
from fakesys.subsystems.apicv.engine.quiesce import command
from fakesys.subsystems.apicv.presets import GUESTS, TIMER_VECTOR, Boot, VmSpec
from fakesys.subsystems.apicv.state.params import AVIC
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.stats import STATS

COUNTED = ("exits", "irq_injections", "req_event")
_STATS = {stat.key: stat for stat in STATS}


class Setup(Struct, frozen=True):
    """What to measure. `storms` are numbers of vCPUs, `windows` that of windows in each storm."""

    preset: str = "linux-boot"
    vcpus: int = 17
    kernel: str = "v3"
    synic: bool = False
    reinject: bool = True
    storms: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 255)
    windows: int = 100

    @property
    def summary(self) -> str:
        """The setup in a few words, for titles."""
        return f"{self.preset}, {self.vcpus} vCPUs, kernel {self.kernel}"


class Sample(NamedTuple):
    """The counters of a VM at a moment, since its creation.

    `off` and `on` count how often AVIC was switched; `active` is its present state.
    """

    seconds: float
    exits: int
    injections: int
    events: int
    off: int
    on: int
    active: bool


class Step(NamedTuple):
    """One step of the boot, with the samples before and after it."""

    name: str
    first: Sample
    last: Sample


class Timeline(NamedTuple):
    """A whole boot: its steps, and samples also within them."""

    steps: list[Step]
    samples: list[Sample]


class Storm(NamedTuple):
    """The average cost of one window. `halted`: all vCPUs but 0 are halted."""

    kernel: str
    vcpus: int
    halted: bool
    exits: float
    injections: float
    events: float
    memslot_updates: float


def host_of(kernel: str) -> KvmSubsystem:
    """Return a KVM with AVIC and no VMs; its MMU is of the same kernel if a profile has both."""
    mmu = next((p.mmu for p in PROFILES.values() if p.apicv == kernel), PROFILES["seed"].mmu)
    host = kvm_of(Kernel(), MMU_KERNELS[mmu], APICV_KERNELS[kernel])
    host.kvm.params.choose(AVIC, True)
    return host


def boot(setup: Setup) -> Timeline:
    """Boot a guest and sample it around each action. Raises EINVAL for an impossible setup."""
    host = host_of(setup.kernel)
    order = VmSpec("g", setup.vcpus, reinject=setup.reinject, synic=setup.synic)
    vm = presets.make(host.apicv, order)
    samples = [_sample(vm)]

    def pause(seconds: float) -> None:
        samples.append(_sample(vm))
        host.kvm.kernel.clock.advance(seconds)

    steps = []
    for name, act in Boot(vm, GUESTS[setup.preset], pause).steps(synic=setup.synic):
        before = samples[-1]
        act()
        samples.append(_sample(vm))
        steps.append(Step(name, before, samples[-1]))
    return Timeline(steps, samples)


def _sample(vm: ApicVm) -> Sample:
    exits, injections, events = (vm.kvm.read(_STATS[name]) for name in COUNTED)
    inhibit = vm.inhibit
    return Sample(
        seconds=vm.now_ns / 1e9,
        exits=exits,
        injections=injections,
        events=events,
        off=inhibit.flips.off,
        on=inhibit.flips.on,
        active=inhibit.active,
    )


def storm_cases(setup: Setup) -> list[tuple[str, int, bool]]:
    """Return each combination of kernel, number of vCPUs, and the others halted or not."""
    return [
        (kernel, vcpus, halted)
        for kernel in APICV_KERNELS
        for halted in (False, True)
        for vcpus in setup.storms
    ]


def storm(kernel: str, vcpus: int, *, halted: bool, windows: int) -> Storm:
    """Measure `windows` interrupt windows on vCPU 0, with the PIC in automatic EOI mode."""
    host = host_of(kernel)
    vm = presets.make(host.apicv, VmSpec("g", vcpus, reinject=False))
    vm.auto_handler = False
    first = vm.vcpus[0]
    for vcpu in list(vm.vcpus.values())[1:]:
        vcpu_run.start(vm, vcpu)
        if halted:
            _by(vm, vcpu, lambda v: guest_steps.halt(vm, v))
    vm_ioctls.configure_pic(vm, TIMER_VECTOR, 0, auto_eoi=True)
    _by(vm, first, lambda v: apic_access.write(vm, v, lapic.LVT0, lapic.EXTINT))
    before = _sample(vm)
    updates = vm.access_page.memslot_updates
    for _ in range(windows):
        _window(vm, first)
    after = _sample(vm)
    assert first.run is RunState.GUEST
    return Storm(
        kernel,
        vcpus,
        halted,
        (after.exits - before.exits) / windows,
        (after.injections - before.injections) / windows,
        (after.events - before.events) / windows,
        (vm.access_page.memslot_updates - updates) / windows,
    )


def _window(vm: ApicVm, vcpu: ApicVcpu) -> None:
    _by(vm, vcpu, lambda v: guest_steps.set_interrupts(vm, v, on=False))
    vm_ioctls.tick_pit(vm)
    # STI opens the window; the second time it is the IRET of the handler.
    for _ in range(2):
        _by(vm, vcpu, lambda v: guest_steps.set_interrupts(vm, v, on=True))


def _by(vm: ApicVm, vcpu: ApicVcpu, action: Callable[[ApicVcpu], None]) -> None:
    with command(vm, vcpu):
        action(vcpu)


def boot_table(setup: Setup, timeline: Timeline) -> Table:
    """Return a table with a row per step, then the sums."""
    rows = [(step.name, *_between(step.first, step.last)) for step in timeline.steps]
    rows.append(("all", *_between(timeline.samples[0], timeline.samples[-1])))
    return Table(
        f"A boot over simulated time: {setup.summary}",
        ("step", "until\nms", "exits", "injec-\ntions", "events", "AVIC\noff", "AVIC\non", "then"),
        tuple(rows),
        ("events: looks for something to inject; off, on: flips of the whole VM.",),
    )


def _between(first: Sample, last: Sample) -> tuple[str, ...]:
    counts = (
        last.exits - first.exits,
        last.injections - first.injections,
        last.events - first.events,
        last.off - first.off,
        last.on - first.on,
    )
    state = "active" if last.active else "off"
    return (f"{last.seconds * 1e3:.1f}", *map(str, counts), state)


def storm_table(setup: Setup, storms: list[Storm], *, halted: bool) -> Table:
    """Return a table of exits and lines of the trace per kernel, with a row per number of vCPUs."""
    by_case = {(one.kernel, one.vcpus): one for one in storms if one.halted is halted}
    head = ["vCPUs"]
    for kernel in APICV_KERNELS:
        head += [f"{kernel}\nexits", "\nlines"]
    rows = []
    for vcpus in setup.storms:
        mine = [by_case[kernel, vcpus] for kernel in APICV_KERNELS]
        numbers = [number for one in mine for number in (one.exits, one.events)]
        rows.append((str(vcpus), *(f"{number:g}" for number in numbers)))
    others = "halted" if halted else "in guest"
    return Table(
        f"What one interrupt window costs, of {setup.windows} in a row: others {others}",
        tuple(head),
        tuple(rows),
        (_updates(storms),),
    )


def _updates(storms: list[Storm]) -> str:
    found = {one.kernel: one.memslot_updates for one in storms}
    words = ", ".join(f"{kernel} {number:g}" for kernel, number in found.items())
    return f"memslot updates for the APIC access page: {words}."
