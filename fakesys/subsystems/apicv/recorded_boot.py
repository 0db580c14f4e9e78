"""`preset boot-6.1`: the boot of a Linux guest as one was recorded, over simulated time.

The recording: qemu -accel kvm -M pc -m 128, SeaBIOS, Linux 6.1 and power off, on a host of 6.1 with
kvm_amd. How often the guest exits, for which reason, in which part of the 95 seconds, is that of
the recording; what a single exit is about is made up. The counters follow from the exits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from fakesys.core.scheduling.resched import cond_resched_killable, might_resched
from fakesys.subsystems.apicv.engine.quiesce import command
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.vcpu_run import smm
from fakesys.subsystems.kvm.vcpu_run.reasons import INTERRUPT, WINDOW
from fakesys.subsystems.kvm.vcpu_run.run import VcpuRun

# Seconds at which the counters were read, and what was counted until then.
SECONDS = (7.3, 16.7, 26.3, 34.5, 42.2, 49.9, 59.3, 69.2, 77.7, 94.7)
COUNTED: dict[str, tuple[int, ...]] = {
    "zap": (23, 23, 23, 23, 23, 23, 23, 23, 23, 23),
    "fault": (7, 513, 520, 525, 536, 536, 589, 590, 597, 598),
    "interrupt": (60, 431, 968, 2334, 3542, 5140, 5948, 6521, 6872, 7387),
    "io": (400, 1188, 1188, 1188, 1188, 1188, 1494, 1692, 2836, 3003),
    "io to user space": (400, 1188, 1188, 1188, 1188, 1188, 1391, 1531, 2548, 2695),
    "cpuid": (256, 374, 374, 374, 374, 374, 745, 745, 745, 745),
    "vintr": (0, 19, 19, 19, 19, 19, 146, 424, 606, 675),
    "msr": (0, 0, 0, 0, 0, 0, 680, 1070, 1466, 1766),
    "mmio": (0, 0, 0, 0, 0, 0, 300, 480, 620, 760),
    "mmio to user space": (0, 0, 0, 0, 0, 0, 32, 36, 88, 88),
}
# Exits of which there are few, all of them while the kernel starts its devices.
FEW = {
    "write_cr4": 45,
    "cr0_sel_write": 32,
    "read_cr4": 11,
    "wbinvd": 6,
    "read_cr0": 3,
    "write_cr0": 3,
    "write_dr0": 1,
    "write_dr3": 1,
    "UD_excp": 1,
    "read_dr0": 1,
}
SMM_AT, FEW_AT = 1, 6
# Of all exits because of an interrupt, those after which the guest gets one, too.
INJECTED = 925
STEP = 0.1
TIMER_VECTOR = 0xEC
APIC_PAGE, APIC_TMICT = 0xFEE00000, 0x380
# As KVM sees a write to a page without memory: reserved bit, user, write, present.
MMIO_WRITE_ERROR = 0xF
# KVM_EXIT_MMIO, and KVM_TRACE_MMIO_WRITE.
EXIT_MMIO, MMIO_WRITE = 6, 2
# KVM_EXIT_TPR_ACCESS, and how many there are.
EXIT_TPR_ACCESS, TPR_REPORTS = 12, 2
PROT64 = 9
STORE = bytes.fromhex("89b700c05fff")
DEVICE_PAGE = 0xFEB00000
# Faults are so far apart that none maps a page of the next.
APART = 8 * 4096
ROM_GPA = 0xF000000
TOGGLED_GPA = 0xE000000


class BootHost(Struct, frozen=True):
    """What a boot needs of the machine. `ctl`: runs a command of `fakesys/kvm/ctl`."""

    apicv: Apicv
    ctl: Callable[[str], object]


class RecordedBoot:
    """One boot, in steps of simulated time."""

    def __init__(self, host: BootHost, vm: ApicVm) -> None:
        self._host = host
        self._vm = vm
        self._vcpu: ApicVcpu = vm.vcpus[0]
        self._run: VcpuRun = self._vcpu.kvm_run
        self._name = vm.kvm.name
        self._done = dict.fromkeys(COUNTED, 0)
        self._acts: dict[str, Callable[[int], None]] = {
            "zap": self._toggle_slot,
            "fault": self._fault,
            "io": self._io,
            "cpuid": self._cpuid,
            "vintr": self._window,
            "msr": self._msr,
            "mmio": self._mmio,
            "interrupt": self._interrupt,
        }
        self._injected = 0

    def run(self) -> None:
        """Run the boot; raises EINTR after a signal."""
        clock = self._host.apicv.kvm.kernel.clock
        once = {SMM_AT: self._smi, FEW_AT: self._few}
        before = -1
        for place, count in _steps():
            cond_resched_killable()
            for name, act in self._acts.items():
                self._reach(name, count(name), act)
            if place != before and place in once:
                once[place]()
            before = place
            clock.advance(STEP)

    def _reach(self, name: str, goal: int, act: Callable[[int], None]) -> None:
        if name == "interrupt":
            # Kicks are among them, and so is the signal that ends KVM_RUN at last.
            self._done[name] = self._run.stats.irq_exits + 1
        while self._done[name] < goal:
            act(self._done[name])
            self._done[name] += 1

    def _ctl(self, text: str) -> None:
        with self._host.apicv.kvm.in_owner(self._vm.kvm):
            self._host.ctl(f"{self._name} {text}")

    def _toggle_slot(self, _number: int) -> None:
        """Let the firmware hide and show a part of its memory: the delete zaps everything."""
        self._ctl(f"slot 3 gpa={TOGGLED_GPA} size=64K mem=rom")
        self._ctl("slot 3 gpa=0 size=0")

    def _fault(self, number: int) -> None:
        if number % 10 == 9:
            self._ctl(f"vcpu 0 access r {ROM_GPA + number * APART % (4 << 20):#x}")
        else:
            self._ctl(f"vcpu 0 access w {number * APART:#x}")

    def _interrupt(self, number: int) -> None:
        with command(self._vm, self._vcpu):
            self._run.exit(INTERRUPT)
            if self._injected < (number + 1) * INJECTED // TOTAL_INTERRUPTS:
                self._injected += 1
                self._run.inject_irq(TIMER_VECTOR)
            self._run.enter()

    def _window(self, _number: int) -> None:
        with command(self._vm, self._vcpu):
            self._run.exit(WINDOW)
            self._run.inject_irq(TIMER_VECTOR)
            self._run.enter()

    def _io(self, number: int) -> None:
        user = self._done["io to user space"] < _share("io", "io to user space", number + 1)
        self._done["io to user space"] += user
        if user:
            write = number % 3
            port = (0x402, 0x70, 0x71)[number % 3]
            self._ctl(f"vcpu 0 exit io port={port} write={int(bool(write))} data={number & 0xFF}")
        else:
            self._ctl("vcpu 0 exit io port=0x40 kernel=1")

    def _cpuid(self, number: int) -> None:
        self._ctl(f"vcpu 0 exit cpuid nr={0x40000000 + number % 256 * 0x100:#x}")

    def _msr(self, number: int) -> None:
        # The TSC deadline of the local APIC's timer, as a kernel that is idle writes it.
        self._ctl(f"vcpu 0 exit msr write=1 ecx=0x6e0 data={number + 1}")

    def _mmio(self, number: int) -> None:
        user = self._done["mmio to user space"] < _share("mmio", "mmio to user space", number + 1)
        self._done["mmio to user space"] += user
        gpa = DEVICE_PAGE if user else APIC_PAGE | APIC_TMICT
        run = self._run
        with command(self._vm, self._vcpu):
            run.page_fault(run.rip, gpa, MMIO_WRITE_ERROR, nested=True)
            run.emulate_insn(run.rip, STORE, PROT64)
            run.mmio(MMIO_WRITE, gpa, number.to_bytes(4, "little"))
            if user:
                run.stats.mmio_exits += 1
                run.leave(EXIT_MMIO)
                run.begin()
            elif number < TPR_REPORTS:
                run.leave(EXIT_TPR_ACCESS)
                run.begin()
            run.enter()

    def _few(self) -> None:
        for reason, count in FEW.items():
            self._ctl(f"vcpu 0 exit {reason} count={count}")

    def _smi(self) -> None:
        """Let the firmware set up system management mode; the exit for that is among the first."""
        with command(self._vm, self._vcpu):
            self._run.exit(INTERRUPT)
            smm.round_trip(self._run)
            self._run.enter()


TOTAL_INTERRUPTS = COUNTED["interrupt"][-1]


def _steps() -> Iterator[tuple[int, Callable[[str], int]]]:
    """Yield for each step in which part of the boot it is, and what counts a kind until then."""
    now = 0.0
    for place, end in enumerate(SECONDS):
        start = SECONDS[place - 1] if place else 0.0
        while now < end - STEP / 2:
            now += STEP
            yield place, _counter(place, min(1.0, (now - start) / (end - start)))


def _counter(place: int, share: float) -> Callable[[str], int]:
    def count(name: str) -> int:
        row = COUNTED[name]
        before = row[place - 1] if place else 0
        return row[place] if share > _NEARLY else before + int((row[place] - before) * share)

    return count


# The last step of a part ends it, whatever is lost by rounding.
_NEARLY = 0.999


def _share(of: str, part: str, number: int) -> int:
    """Return how many of the first `number` exits of a kind go to user space."""
    done = part_done = 0
    for total, goal in zip(COUNTED[of], COUNTED[part], strict=True):
        if number <= total:
            return part_done + (goal - part_done) * (number - done) // max(1, total - done)
        done, part_done = total, goal
    return part_done


class BootSpec(Struct, frozen=True):
    """The VM to create. `memory`: in MiB. `pid`, `fd`: see `Kvm.create_vm`."""

    name: str
    memory: int
    pid: int = 0
    fd: int = 0


def boot(host: BootHost, spec: BootSpec) -> None:
    """Create the VM and boot it. Raises EEXIST, EINVAL before any change, EINTR after a signal."""
    name, kvm = spec.name, host.apicv.kvm
    might_resched()
    with kvm.commands.running(name):
        vm = kvm.create_vm(name, pid=spec.pid, fd=spec.fd)
        apic_vm = host.apicv.of(vm)
        apic_vm.auto_handler = True
        for text in (
            f"mem ram size={spec.memory}M",
            "mem rom size=4M",
            f"slot 0 gpa=0 size={spec.memory}M mem=ram",
            f"slot 1 gpa={ROM_GPA:#x} size=4M mem=rom flags=2",
        ):
            with kvm.in_owner(vm):
                host.ctl(f"{name} {text}")
        kvm.create_vcpus(vm)
        RecordedBoot(host, apic_vm).run()
        vm.vcpu(0).hold()
