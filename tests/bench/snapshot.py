"""How long it takes to save and to load a whole machine, and how large the file is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from fakesys.machine.machine import Machine
from tests.bench.measure import Bench, Figure

CONTROL = "sys/kernel/debug/fakesys"
TRACING = "sys/kernel/tracing"
GUEST = 0x100000000
PAGES = (16 << 30) >> 12


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def big_machine() -> Machine:
    """240 vCPUs, a guest of 16 GiB with every page mapped, and a full ring buffer."""
    machine = Machine("6.1")
    ctl = f"{CONTROL}/kvm/ctl"
    machine.write(f"{CONTROL}/kvm/preset", "linux-boot vcpus=240 name=big")
    machine.write(ctl, "big mem ram size=16G")
    machine.write(ctl, f"big slot 0 gpa={GUEST:#x} size=16G mem=ram")
    machine.write(ctl, f"big vcpu 0 access w {GUEST:#x} n={PAGES}")
    machine.write(f"{TRACING}/events/kvm/enable", "1")
    machine.write(ctl, "big slot 1 gpa=0x800000000 size=256M mem=ram")
    machine.write(ctl, "big vcpu 1 access w 0x800000000 n=60000")
    return machine


MACHINES: tuple[tuple[str, Callable[[], Machine], float], ...] = (
    ("default", Machine, 0.5),
    ("full, 65,536 queues", partial(Machine, scenario="full"), 2),
    ("240 vCPUs, 16 GiB mapped", big_machine, 4),
)


def saved_and_loaded(_bench: Bench) -> Iterator[Figure]:
    """In process."""
    # The modules are imported once per process.
    Machine().save()
    for name, make, most in MACHINES:
        machine, other = make(), Machine("seed", "empty")
        data = machine.save()
        yield Figure(f"save {name}", seconds(machine.save), "s", most)
        yield Figure(f"load {name}", seconds(partial(other.load, data)), "s", most)
        yield Figure(f"file of {name}", len(data) / 1e6, "MB", 10)


def saved_from_a_mount(bench: Bench) -> Iterator[Figure]:
    """By reading and writing the control file."""
    mount = bench.mount("default")
    file: Path = mount.control / "snapshot"
    data: list[bytes] = []
    yield Figure("read fakesys/snapshot", seconds(lambda: data.append(file.read_bytes())), "s", 1)
    yield Figure("write fakesys/snapshot", seconds(lambda: file.write_bytes(data[0])), "s", 1)


BENCHMARKS: tuple[Callable[[Bench], Iterable[Figure]], ...] = (
    saved_and_loaded,
    saved_from_a_mount,
)
