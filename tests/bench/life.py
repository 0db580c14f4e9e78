"""Start, memory, waiting readers, pollers, and what comes and goes."""

from __future__ import annotations

import os
import select
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

from tests.bench.measure import ROUNDS, Bench, Figure
from tests.mount.test_hotplug import there, walkers
from tests.mount.test_waiting import blocked_reader
from tests.mounts import COMMAND, Mount, fakesys

PLUGS = 1000


def start(bench: Bench) -> Iterator[Figure]:
    """From the command to its return, every file answering; memory of the default machine."""
    point = bench.folder / "start"
    point.mkdir()
    taken, memory = [], []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        subprocess.run([*COMMAND, "mount", str(point)], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - begin)
        memory.append(_daemon_of(point).memory_info().rss)
        assert fakesys("umount", str(point)).returncode == 0
    yield Figure("command to mounted", statistics.median(taken) * 1000, "ms", 300, 200)
    yield Figure("RSS of the default machine", statistics.median(memory) / (1 << 20), "MiB", 60, 40)


def _daemon_of(point: Path) -> psutil.Process:
    found = [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] and str(point) in process.info["cmdline"]
    ]
    return found[-1]


def blocked_readers(bench: Bench) -> Iterator[Figure]:
    """How long a blocked reader lives after a signal."""
    mount = bench.mount()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        delays = [_end_delay(mount, number) for _ in range(ROUNDS)]
        yield Figure(f"blocked reader gone after {number.name}", max(delays) * 1000, "ms", 20)


def _end_delay(mount: Mount, number: signal.Signals) -> float:
    with blocked_reader(mount) as process:
        begin = time.perf_counter()
        process.send_signal(number)
        process.wait(10)
        return time.perf_counter() - begin


def poll_wakeup(bench: Bench) -> Iterator[Figure]:
    """From the write that notifies to the return of poll(2)."""
    mount = bench.mount()
    descriptor = os.open(mount.device / "notify", os.O_RDONLY)
    poll = select.poll()
    poll.register(descriptor, select.POLLPRI)
    delays = []
    for _ in range(ROUNDS):
        os.pread(descriptor, 100, 0)
        woken: list[float] = []
        thread = threading.Thread(
            target=lambda woken=woken: (poll.poll(5000), woken.append(time.perf_counter()))
        )
        thread.start()
        time.sleep(0.01)
        begin = time.perf_counter()
        mount.command("selftest/notify")
        thread.join()
        delays.append(woken[0] - begin)
    os.close(descriptor)
    yield Figure("poll wake-up", max(delays) * 1000, "ms", 10)


def hot_plug(bench: Bench) -> Iterator[Figure]:
    """Plug and unplug seen by the very next stat; many plugs while many walk."""
    mount = bench.mount()
    late = stale = 0
    with walkers(mount.root / "sys/devices", 2):
        for _ in range(PLUGS):
            mount.command("selftest/remove")
            stale += there(mount.device / "rw")
            mount.command("selftest/create")
            late += not there(mount.device / "rw")
    yield Figure(f"{PLUGS} plugs, 2 walkers: seen late", late, "", 0)
    yield Figure(f"{PLUGS} unplugs, 2 walkers: seen late", stale, "", 0)
    begin = time.perf_counter()
    with walkers(mount.root / "sys/devices", 4):
        for _ in range(400):
            mount.command("selftest/remove")
            mount.command("selftest/create")
    yield Figure("400 plugs, 4 walkers", time.perf_counter() - begin, "s", 60)


BENCHMARKS: tuple[Callable[[Bench], Iterable[Figure]], ...] = (
    start,
    blocked_readers,
    poll_wakeup,
    hot_plug,
)
