"""What tracing costs: an event that nobody hears, one that is recorded, reading many, memory."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from fakesys.core.events import Task
from fakesys.machine.machine import Machine
from fakesys.subsystems.kvm.events.guest import KvmPio
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import CpuBuffer, pages_for
from tests.bench.measure import ROUNDS, Bench, Figure

EVENTS = 100_000
CALLS = 20_000
BUFFER_KB = 24_000
READ_SIZE = 1 << 17
TRACING = "sys/kernel/tracing"
TASK = Task(pid=4000, comm="CPU 0/KVM", cpu=0)


def emit(bench: Bench) -> Iterator[Figure]:
    """One call site of an event that nobody hears, and of one that is recorded."""
    machine = Machine("6.18")
    machine.kernel.bus.task = TASK
    off = min(_emit_seconds(machine, CALLS) for _ in range(ROUNDS))
    machine.write(f"{TRACING}/events/kvm/kvm_pio/enable", "1")
    on = min(_emit_seconds(machine, CALLS) for _ in range(ROUNDS))
    yield Figure("a call site, event off", off / CALLS * 1e6, "us", 0.3)
    yield Figure("a call site, event recorded", on / CALLS * 1e6, "us", 5)


def _emit_seconds(machine: Machine, count: int) -> float:
    bus = machine.kernel.bus
    begin = time.process_time()
    for number in range(count):
        if KvmPio in bus.wanted:
            bus.emit(KvmPio(rw=1, port=0x80, size=1, count=1, val=number))
    return time.process_time() - begin


def read_in_process(bench: Bench) -> Iterator[Figure]:
    """Events of KVM as text, in memory."""
    machine = Machine("6.18")
    machine.kernel.bus.task = TASK
    machine.write(f"{TRACING}/buffer_size_kb", str(BUFFER_KB))
    machine.write(f"{TRACING}/events/kvm/kvm_pio/enable", "1")
    _emit_seconds(machine, EVENTS)
    for name in ("trace", "trace_pipe"):
        begin = time.process_time()
        size = len(machine.read(f"{TRACING}/{name}"))
        yield _per_10_mb(f"{EVENTS} events, {name}, in process", size, time.process_time() - begin)


def traced_faults(bench: Bench) -> Iterator[Figure]:
    """Page faults of a guest while all events of KVM and its MMU are recorded, and their text."""
    machine = Machine("6.1")
    control = "sys/kernel/debug/fakesys/kvm/ctl"
    for line in ("vm create a", "a vcpu add start=0", "a mem m size=256M"):
        machine.write(control, line)
    machine.write(control, "a slot 0 gpa=0 size=256M mem=m off=0")
    machine.write(f"{TRACING}/buffer_size_kb", str(4 * BUFFER_KB))
    rates = {}
    for name in ("off", "on"):
        for system in ("kvm", "kvmmmu"):
            machine.write(f"{TRACING}/events/{system}/enable", str(int(name == "on")))
        pages = 20_000
        begin = time.process_time()
        machine.write(control, f"a vcpu 0 access w {1 << 20:#x} n={pages} stride=4096")
        rates[name] = pages / (time.process_time() - begin)
        machine.write(control, "a slot 0 gpa=0 size=0")
        machine.write(control, "a slot 0 gpa=0 size=256M mem=m off=0")
    yield Figure("faults in a second, no event recorded", rates["off"], "1/s")
    yield Figure("faults in a second, all events recorded", rates["on"], "1/s", None, 150_000)
    begin = time.process_time()
    size = len(machine.read(f"{TRACING}/trace"))
    yield _per_10_mb("their events, trace, in process", size, time.process_time() - begin)


def read_on_mount(bench: Bench) -> Iterator[Figure]:
    """Markers as text, by system calls."""
    mount = bench.mount("default")
    tracing, daemon = mount.root / TRACING, psutil.Process(mount.pid)
    (tracing / "buffer_size_kb").write_text(str(BUFFER_KB))
    with _opened(tracing / "trace_marker", os.O_WRONLY) as marker:
        for number in range(EVENTS):
            os.write(marker, b"a marker of a benchmark, number %d\n" % number)
    for name in ("trace", "trace_pipe"):
        with _opened(tracing / name, os.O_RDONLY | os.O_NONBLOCK) as file:
            begin = _cpu_seconds(daemon)
            size = _drain(file)
            yield _per_10_mb(f"{EVENTS} markers, {name}", size, _cpu_seconds(daemon) - begin)


def _cpu_seconds(daemon: psutil.Process) -> float:
    """What daemon and client have used: they take turns, and others may use the machine."""
    times = daemon.cpu_times()
    return time.process_time() + times.user + times.system


def _drain(file: int) -> int:
    size = 0
    try:
        while data := os.read(file, READ_SIZE):
            size += len(data)
    except BlockingIOError:
        pass
    return size


def _per_10_mb(what: str, size: int, seconds: float) -> Figure:
    # At least 10 MB/s are asked for; a real kernel has 58.
    return Figure(f"{what}: 10 MB", seconds / size * 1e7, "s", 1.0, round(10 / 58, 2))


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags)
    try:
        yield file
    finally:
        os.close(file)


def switches(bench: Bench) -> Iterator[Figure]:
    """Enabling a system; making an instance."""
    tracing = bench.mount("default").root / TRACING
    enable = [_seconds(lambda: (tracing / "set_event").write_text("kvm:*\n")) for _ in range(5)]
    (tracing / "set_event").write_text("")
    instance = tracing / "instances/bench"
    make = []
    for _ in range(5):
        make.append(_seconds(instance.mkdir))
        instance.rmdir()
    yield Figure("set_event kvm:*", max(enable) * 1000, "ms", 100)
    yield Figure("a new instance", max(make) * 1000, "ms", 100)


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def memory(bench: Bench) -> Iterator[Figure]:
    """A full buffer against its size."""
    kilobytes = 4000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        buffer = CpuBuffer(pages_for(kilobytes))
        for number in range(2 * kilobytes * 1024 // 84):
            buffer.write(number, bytes(80))
        used = (tracemalloc.get_traced_memory()[0] - before) / 1024
    finally:
        tracemalloc.stop()
    yield Figure("memory of a buffer: to its size", abs(used / kilobytes - 1), "off", 0.2)


BENCHMARKS: tuple[Callable[[Bench], Iterable[Figure]], ...] = (
    emit,
    read_in_process,
    traced_faults,
    read_on_mount,
    switches,
    memory,
)
