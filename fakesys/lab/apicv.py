"""A guest's boot over simulated time, and storms of interrupt windows over the number of vCPUs.

The boot is a preset (`fakesys/kvm/preset`) with time between its actions. A storm is what keeps
AVIC from being used: again and again the PIC's interrupt comes while vCPU 0 has interrupts off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from fakesys.core.kernel import Kernel
from fakesys.lab.tables import Table
from fakesys.machine.kvm import KvmSubsystem, kvm_of
from fakesys.machine.profiles import APICV_KERNELS, MMU_KERNELS, PROFILES
from fakesys.subsystems.apicv import presets
from fakesys.subsystems.apicv.chips import lapic
from fakesys.subsystems.apicv.devices import apic_access, vm_ioctls
from fakesys.subsystems.apicv.engine import guest_steps, vcpu_run
from fakesys.subsystems.apicv.engine.quiesce import command
from fakesys.subsystems.apicv.presets import GUESTS, TIMER_VECTOR, Boot, VmSpec
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.stats import STATS

MOST_VCPUS = 255
COUNTED = ("exits", "irq_injections", "req_event")
_STATS = {stat.key: stat for stat in STATS}


class Setup(Struct, frozen=True):
    """What to measure. `storms`: numbers of vCPUs; `windows`: in each storm."""

    preset: str = "linux-boot"
    vcpus: int = 17
    kernel: str = "v3"
    synic: bool = False
    reinject: bool = True
    storms: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 255)
    windows: int = 100

    @property
    def words(self) -> str:
        """For titles."""
        return f"{self.preset}, {self.vcpus} vCPUs, kernel {self.kernel}"


class Sample(NamedTuple):
    """Where the VM stood at a simulated second; counts since its creation."""

    seconds: float
    exits: int
    injections: int
    events: int
    off: int
    on: int
    active: bool


class Step(NamedTuple):
    """A step of the boot, from one sample to another."""

    name: str
    first: Sample
    last: Sample


class Timeline(NamedTuple):
    """A whole boot."""

    steps: list[Step]
    samples: list[Sample]


class Storm(NamedTuple):
    """What one window costs, on average. `halted`: are all but vCPU 0 asleep?"""

    kernel: str
    vcpus: int
    halted: bool
    exits: float
    injections: float
    events: float
    memslot_updates: float


def host_of(kernel: str) -> KvmSubsystem:
    """A host without VMs. The memory is that of the same release, as far as there is one."""
    mmu = next((p.mmu for p in PROFILES.values() if p.apicv == kernel), PROFILES["seed"].mmu)
    return kvm_of(Kernel(), MMU_KERNELS[mmu], APICV_KERNELS[kernel])


def boot(setup: Setup) -> Timeline:
    """Boot a guest and look at it after each of its actions. Raises EINVAL if it cannot be."""
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
    """Kernel, vCPUs, the others halted or not."""
    return [
        (kernel, vcpus, halted)
        for kernel in APICV_KERNELS
        for halted in (False, True)
        for vcpus in setup.storms
    ]


def storm(kernel: str, vcpus: int, *, halted: bool, windows: int) -> Storm:
    """So many windows on vCPU 0. The PIC ends its interrupts by itself."""
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
    # STI, then the IRET of the handler.
    for _ in range(2):
        _by(vm, vcpu, lambda v: guest_steps.set_interrupts(vm, v, on=True))


def _by(vm: ApicVm, vcpu: ApicVcpu, action: Callable[[ApicVcpu], None]) -> None:
    with command(vm, vcpu):
        action(vcpu)


def boot_table(setup: Setup, timeline: Timeline) -> Table:
    """A line per step, then the sums."""
    rows = [(step.name, *_between(step.first, step.last)) for step in timeline.steps]
    rows.append(("all", *_between(timeline.samples[0], timeline.samples[-1])))
    return Table(
        f"A boot over simulated time: {setup.words}",
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
    """A line per number of vCPUs: exits and events of each kernel."""
    by_case = {(one.kernel, one.vcpus): one for one in storms if one.halted is halted}
    head = ["vCPUs"]
    for kernel in APICV_KERNELS:
        head += [f"{kernel}\nexits", "\nevents"]
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
