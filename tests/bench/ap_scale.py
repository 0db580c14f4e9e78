"""The AP bus at full size: 65,536 queues, a thousand and 65,536 mediated devices."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import psutil

from fakesys.machine.machine import Machine
from tests.bench.measure import Bench, Figure

ONES = "0x" + "f" * 64 + "\n"
MASK = "sys/bus/ap/apmask"
MATRIX = "sys/devices/vfio_ap/matrix"
CREATE = f"{MATRIX}/mdev_supported_types/vfio_ap-passthrough/create"


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def write(path: Path, text: str) -> None:
    """One write(2)."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def uuid_of(number: int) -> str:
    """The name of a mediated device."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def full_machine(_bench: Bench) -> Iterator[Figure]:
    """65,536 queues in process."""
    made: list[Machine] = []
    yield Figure("machine of 65,536 queues", seconds(lambda: made.append(Machine(scenario="full"))),
                 "s", 5, 1)  # fmt: skip
    machine = made[0]
    for text in ("0x0\n", ONES):
        taken = seconds(partial(machine.write, MASK, text))
        yield Figure(f"65,536 queues rebound, apmask {text[:3]}…", taken, "s", 2, 0.2)
    journal = "sys/kernel/debug/fakesys/ap/uevents"
    yield Figure("65,536 uevents written out", seconds(lambda: machine.read(journal)), "s")


def full_mount(bench: Bench) -> Iterator[Figure]:
    """The same on a mount: memory, mask writes, directories, a matrix of everything."""
    mount = bench.mount("full")
    process = psutil.Process(mount.pid)
    yield Figure("RSS of full", process.memory_info().rss / (1 << 20), "MiB", 150)
    for text in ("0x0\n", ONES, "0x0\n"):
        taken = seconds(partial(write, mount.root / MASK, text))
        yield Figure(f"rebound through the mount, apmask {text[:3]}…", taken, "s", 2, 0.2)
    queues = seconds(lambda: os.listdir(mount.root / "sys/bus/ap/devices"))
    yield Figure("listing of 65,792 devices", queues, "s")
    write(mount.root / CREATE, uuid_of(1))
    mdev = mount.root / MATRIX / uuid_of(1)
    for number in range(256):
        write(mdev / "assign_adapter", f"{number}")
        write(mdev / "assign_domain", f"{number}")
    size = 0

    def read() -> None:
        nonlocal size
        size = len((mdev / "matrix").read_bytes())

    yield Figure("matrix of 65,536 queues read", seconds(read), "s", 1)
    yield Figure("its bytes short of 524,288", 524288 - size, "", 0)
    write(mdev / "remove", "1")
    yield Figure("RSS of full, after all that", process.memory_info().rss / (1 << 20), "MiB", 150)


def attribute_reads(bench: Bench) -> Iterator[Figure]:
    """Reading one attribute is as fast among 65,536 queues as among 12."""
    queue = "sys/devices/ap/card05/05.0004/config"
    small = bench.client("orc", bench.mount("default").root / queue, 2000)
    full = bench.client("orc", bench.mount("full").root / queue, 2000)
    yield Figure("config of a queue among 12", small, "us")
    yield Figure("config of a queue among 65,536", full, "us")
    yield Figure("ratio of the two", full / small, "", 1.3)


def many_mdevs(_bench: Bench) -> Iterator[Figure]:
    """A thousand devices and one assign; 65,536 devices and one create."""
    machine = Machine()
    machine.write(MASK, "0\n")
    for number in range(1000):
        machine.write(CREATE, uuid_of(number))
        machine.write(f"{MATRIX}/{uuid_of(number)}/assign_domain", f"{number % 256}")
    path = f"{MATRIX}/{uuid_of(500)}/assign_adapter"
    assign = max(seconds(partial(machine.write, path, f"{n}")) for n in range(100))
    yield Figure("one assign with 1,000 mdevs", assign * 1000, "ms", 10, 1)
    first = seconds(lambda: [machine.write(CREATE, uuid_of(n)) for n in range(1000, 2000)])
    for number in range(2000, 64536):
        machine.write(CREATE, uuid_of(number))
    last = seconds(lambda: [machine.write(CREATE, uuid_of(n)) for n in range(64536, 65536)])
    yield Figure("create with 1,000 mdevs", first, "ms")
    yield Figure("create with 65,000 mdevs", last, "ms")
    yield Figure("ratio of the two", last / first, "", 2)


BENCHMARKS: tuple[Callable[[Bench], Iterable[Figure]], ...] = (
    full_machine,
    full_mount,
    attribute_reads,
    many_mdevs,
)
