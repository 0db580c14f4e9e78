"""Loads L1-L7 of interrupt virtualization: each runs in its own machine and checks its counts.

    python -m tests.bench.avic

Every load checks its counts and raises when one is wrong; times are the median of three.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable

from fakesys.machine.machine import Machine
from fakesys.subsystems.kvm.events import avic as apicv_trace
from fakesys.subsystems.kvm.events import catalog as kvm_trace
from fakesys.subsystems.kvm.stats import STATS
from tests.bench.measure import Bench, Figure

FOLDER = "sys/kernel/debug/fakesys/kvm"
CTL = f"{FOLDER}/ctl"
REPEATS = 3


def expect(what: str, found: object, wanted: object) -> None:
    """Raises AssertionError when a count is not the one of the load."""
    if found != wanted:
        raise AssertionError(f"{what}: {found} instead of {wanted}")


def counters(machine: Machine, vm: str, *names: str) -> dict[str, int]:
    """Counters of a VM by name."""
    model = machine.subsystems.kvm.kvm.vm(vm)
    return {stat.key: model.read(stat) for stat in STATS if stat.key in names}


def state(machine: Machine, vm: str) -> dict[str, str]:
    """The lines of a VM's `state`."""
    lines = machine.read(f"{FOLDER}/vms/{vm}/state").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def storm_machine(aps: str, vcpus: int = 255) -> Machine:
    """A VM in the third version of the series, AEOI; its APs `start` or `start` and `hlt`."""
    machine = Machine("seed")
    machine.write(CTL, "vm create g irqchip=kernel")
    machine.write(CTL, f"g vcpu add count={vcpus}")
    for vcpu in range(1, vcpus):
        machine.write(CTL, f"g vcpu {vcpu} start")
        if aps == "halted":
            machine.write(CTL, f"g vcpu {vcpu} hlt")
    machine.write(CTL, "g pic base=0x30 imr=0 aeoi=1")
    machine.write(CTL, "g vcpu 0 lvt0 extint")
    clear(machine)
    return machine


def clear(machine: Machine) -> None:
    """Set all counters to 0."""
    for stat in STATS:
        machine.subsystems.kvm.kvm.clear(stat)


def storm(machine: Machine, rounds: int, vm: str = "g") -> None:
    """So many windows on vCPU 0."""
    for _ in range(rounds):
        for word in ("vcpu 0 cli", "pit tick", "vcpu 0 sti", "vcpu 0 iret"):
            machine.write(CTL, f"{vm} {word}")


def timed(run: Callable[[], None]) -> float:
    """Seconds of the processor: the models are one thread that never waits."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def median(once: Callable[[], float]) -> float:
    """The middle one of three."""
    return statistics.median(once() for _ in range(REPEATS))


def l1_linux_boot() -> Figure:
    """linux-boot with 240 vCPUs, every event of KVM heard."""

    def once() -> float:
        machine = Machine("seed")
        heard: list[object] = []
        for kind in (*kvm_trace.EVENTS, *apicv_trace.EVENTS):
            machine.kernel.bus.subscribe(kind, heard.append)
        seconds = timed(lambda: _ignore(machine.write(f"{FOLDER}/preset", "linux-boot vcpus=240")))
        found = counters(
            machine, "g", "exits", "irq_exits", "irq_injections", "req_event", "halt_wakeup"
        )
        wanted = {
            "exits": 1819, "irq_exits": 303, "irq_injections": 128, "req_event": 686,
            "halt_wakeup": 717,
        }  # fmt: skip
        expect("L1", found, wanted)
        return seconds

    return Figure("L1 linux-boot, 240 vCPUs, traced", median(once), "s", 5)


def _ignore(_value: object) -> None:
    """Nothing."""


def l2_storm_running() -> Figure:
    """10,000 windows while 254 other vCPUs are in guest."""

    def once() -> float:
        machine = storm_machine("running")
        seconds = timed(lambda: storm(machine, 10_000))
        names = ("exits", "irq_exits", "irq_window_exits", "irq_injections", "req_event")
        wanted = dict(zip(names, (5_100_000, 5_090_000, 10_000, 20_000, 30_000), strict=True))
        expect("L2", counters(machine, "g", *names), wanted)
        found = state(machine, "g")
        expect("L2 flips", (found["flips_off"], found["flips_on"]), ("10000", "10000"))
        return seconds

    return Figure("L2 10,000 windows, 255 vCPUs in guest", median(once), "s", 10)


def l3_storm_halted() -> Figure:
    """10,000 windows while 254 other vCPUs are halted."""

    def once() -> float:
        machine = storm_machine("halted")
        seconds = timed(lambda: storm(machine, 10_000))
        expect("L3", counters(machine, "g", "exits"), {"exits": 20_000})
        for vcpu in range(1, 255):
            text = machine.read(f"{FOLDER}/vms/g/vcpu{vcpu}")
            expect("L3 request", f" req={1 << 33:#x} " in text, True)
            expect("L3 exits", "\nexits 0\n" in text, True)
        return seconds

    return Figure("L3 10,000 windows, 254 vCPUs halted", median(once), "s", 5)


def l4_broadcasts_running() -> Figure:
    """100,000 broadcasts to vCPUs that all run."""

    def once() -> float:
        machine = storm_machine("running")

        def load() -> None:
            for _ in range(100_000):
                machine.write(CTL, "g vcpu 0 ipi sh=others vec=0xfb")

        seconds = timed(load)
        expect("L4", counters(machine, "g", "exits"), {"exits": 0})
        return seconds

    return Figure("L4 100,000 broadcasts, 255 vCPUs", median(once), "s", 10)


def l5_broadcasts_halted() -> Figure:
    """1,000 broadcasts, before each of which 127 vCPUs halt."""

    def once() -> float:
        machine = storm_machine("running")
        machine.write(CTL, "g handler auto")
        exits = 0

        def load() -> None:
            nonlocal exits
            for _ in range(1000):
                for vcpu in range(1, 128):
                    machine.write(CTL, f"g vcpu {vcpu} hlt")
                machine.write(CTL, "g vcpu 0 ipi sh=others vec=0xfb")

        seconds = timed(load)
        found = counters(machine, "g", "exits", "halt_exits", "halt_wakeup")
        exits = found["exits"] - found["halt_exits"]
        expect("L5", (exits, found["halt_wakeup"]), (1000, 127_000))
        return seconds

    return Figure("L5 1,000 broadcasts, 127 vCPUs halted", median(once), "s", 20)


def l6_many_vcpus() -> Figure:
    """linux-boot with 512 and with 1,024 vCPUs where x2AVIC is."""

    def once() -> float:
        return timed(_boot_many)

    return Figure("L6 512 and 1,024 vCPUs with x2AVIC", median(once), "s", 30)


def _boot_many() -> None:
    for vcpus, active in ((512, True), (1024, False)):
        machine = Machine("6.18")
        machine.write(CTL, "modprobe avic=1 x2avic=1")
        machine.write(f"{FOLDER}/preset", f"linux-boot vcpus={vcpus} reinject=0")
        found = state(machine, "g")
        wanted = "0x0" if active else f"{1 << 12:#x}"
        expect(f"L6 {vcpus}", found["inhibits"], wanted)


def l7_many_vms() -> Figure:
    """64 VMs of 16 vCPUs, storms of 8 writers by turns; counters as if one after the other."""

    def once() -> float:
        together, alone = _many_vms(), _many_vms()
        seconds = timed(lambda: _storms(together, writers=8))
        _storms(alone, writers=1)
        for number in range(64):
            name = f"g{number}"
            names = [stat.key for stat in STATS]
            expect(name, counters(together, name, *names), counters(alone, name, *names))
        return seconds

    return Figure("L7 64 VMs, 8 writers", median(once), "s", 30)


def _many_vms() -> Machine:
    machine = Machine("seed")
    for number in range(64):
        machine.write(CTL, f"vm create g{number}")
        machine.write(CTL, f"g{number} vcpu add count=16")
        for vcpu in range(1, 16):
            machine.write(CTL, f"g{number} vcpu {vcpu} start")
        machine.write(CTL, f"g{number} pic base=0x30 imr=0 aeoi=1")
        machine.write(CTL, f"g{number} vcpu 0 lvt0 extint")
    return machine


def _storms(machine: Machine, writers: int, rounds: int = 50) -> None:
    """Each writer has every eighth VM; with several they take turns after every command."""
    queues = [
        [
            f"g{number} {word}"
            for number in range(writer, 64, writers)
            for _ in range(rounds)
            for word in ("vcpu 0 cli", "pit tick", "vcpu 0 sti", "vcpu 0 iret")
        ]
        for writer in range(writers)
    ]
    for commands in zip(*queues, strict=True):
        for text in commands:
            machine.write(CTL, text)


Load = Callable[[Machine], object]
EXITS = "sys/kernel/debug/kvm/exits"


def compared(what: str, load: Load, most: float, aps: str = "running") -> Figure:
    """What a load costs with 255 vCPUs, in costs with 2: nobody hears entries and exits."""

    def once() -> float:
        few, many = storm_machine(aps, 2), storm_machine(aps, 255)
        load(few)
        load(many)
        return timed(lambda: _ignore(load(many))) / timed(lambda: _ignore(load(few)))

    return Figure(f"{what}: with 255 vCPUs, in costs with 2", median(once), "x", most)


def _commands(*commands: str, times: int = 300) -> Load:
    def load(machine: Machine) -> None:
        for _ in range(times):
            for text in commands:
                machine.write(CTL, text)

    return load


def _read_counter(machine: Machine) -> None:
    for _ in range(100):
        machine.read(EXITS)


def flip_cost() -> Figure:
    """A flip: once for all vCPUs in guest."""
    return compared("a flip", lambda machine: storm(machine, 300), 2)


def flip_cost_halted() -> Figure:
    """A flip: those that sleep keep the last request only."""
    return compared("a flip, others halted", lambda machine: storm(machine, 300), 2, "halted")


def unicast_cost() -> Figure:
    """An IPI to one vCPU, and its end: one look into a table."""
    load = _commands("g vcpu 0 ipi dst=1 vec=0x40", "g vcpu 1 iret", "g vcpu 1 eoi")
    return compared("an IPI to one, and its EOI", load, 2)


def line_cost() -> Figure:
    """An edge from a device: the lazy end looks at the one vCPU that is meant."""
    load = _commands("g ioapic 5 vec=0x35 dst=1", "g pulse 5", "g vcpu 1 iret", "g vcpu 1 eoi")
    return compared("an edge of the IOAPIC, and its EOI", load, 2)


def broadcast_cost() -> Figure:
    """A broadcast: all targets are looked at."""
    load = _commands("g handler auto", "g vcpu 0 ipi sh=others vec=0xfb")
    return compared("a broadcast", load, 254)


def counter_cost() -> Figure:
    """Reading a counter: the sum of all vCPUs."""
    return compared("reading a counter", _read_counter, 128)


LOADS: tuple[Callable[[], Figure], ...] = (
    l1_linux_boot,
    l2_storm_running,
    l3_storm_halted,
    l4_broadcasts_running,
    l5_broadcasts_halted,
    l6_many_vcpus,
    l7_many_vms,
    flip_cost,
    flip_cost_halted,
    unicast_cost,
    line_cost,
    broadcast_cost,
    counter_cost,
)


def avic(_bench: Bench) -> Iterable[Figure]:
    """All loads, and what costs more with more vCPUs."""
    for load in LOADS:
        yield load()


BENCHMARKS: tuple[Callable[[Bench], Iterable[Figure]], ...] = (avic,)


def main() -> None:
    """Print every figure."""
    for load in LOADS:
        figure = load()
        verdict = "ok" if figure.good else "MISSED"
        print(
            f"{figure.what}: {figure.value:.2f} {figure.unit} (ask: {figure.most}) {verdict}",
            flush=True,
        )


if __name__ == "__main__":
    main()
