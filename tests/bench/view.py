"""`fakesys view`: how soon it shows something, what it costs, what it costs others."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import psutil

from tests.bench.measure import Bench, Figure, interleaved
from tests.mounts import COMMAND, Mount
from tests.view.client import Client, connected

UUID = "10000000-0000-4000-8000-000000000001"
# A mask is changed each hundredth of a second, for so long.
PERIOD = 0.01
SECONDS = 3.0
ROUNDS = 5


class Served:
    """The server of a page: a process, its address, how long it took to print it."""

    def __init__(self, root: Path) -> None:
        self.began = time.monotonic()
        command = [*COMMAND, "view", str(root)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=10)

    @property
    def processor_seconds(self) -> float:
        """What it has used so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system


def has_masks(client: Client) -> bool:
    """A condition: there is a picture to draw."""
    return "ap/masks" in client.values


def first_picture(bench: Bench) -> Iterator[Figure]:
    """From the command to the first state that a page draws."""
    root = bench.mount("default").root
    taken = []
    for _ in range(ROUNDS):
        with Served(root) as server, connected(server.address) as client:
            client.take(has_masks)
            taken.append(time.monotonic() - server.began)
    yield Figure("view: from command to first picture", statistics.median(taken), "s", 1)


def page_shows_soon(bench: Bench) -> Iterator[Figure]:
    """From `echo 5 > assign_adapter` in a shell to the message that says so."""
    root = bench.mount("default").root
    matrix = root / "sys/devices/vfio_ap/matrix"
    (root / "sys/bus/ap/aqmask").write_text("-4\n")
    (matrix / "mdev_supported_types/vfio_ap-passthrough/create").write_text(UUID)
    taken = []
    with Served(root) as server, connected(server.address) as client:
        client.take(has_masks)
        for name, shown in itertools.islice(
            itertools.cycle([("assign_adapter", "0x04"), ("unassign_adapter", "0x00")]), 20
        ):
            began = time.monotonic()
            subprocess.run(["sh", "-c", f"echo 5 > {matrix / UUID / name}"], check=True)
            client.take(partial(shows, shown))
            taken.append(time.monotonic() - began)
    (matrix / UUID / "remove").write_text("1\n")
    (root / "sys/bus/ap/aqmask").write_text("+4\n")
    yield Figure("view: a shell's write is shown, median of 20", statistics.median(taken), "s", 0.5)
    yield Figure("view: the slowest of them", max(taken), "s")


def shows(mask: str, client: Client) -> bool:
    """Is this the beginning of the device's adapters?"""
    device = client.values.get(f"ap/mdev/{UUID}")
    return device is not None and device["matrix"][0].startswith(mask)


class Load:
    """100 mask changes a second on `full`, and a read after each, as a shell makes them."""

    def __init__(self, mount: Mount) -> None:
        self._mask = os.open(mount.root / "sys/bus/ap/apmask", os.O_WRONLY)
        self._read = os.open(mount.root / "sys/devices/ap/card05/05.0004/config", os.O_RDONLY)
        self._words = itertools.cycle((b"-0x10", b"+0x10"))

    def close(self) -> None:
        """Close the files."""
        os.close(self._mask)
        os.close(self._read)

    def run(self) -> tuple[float, float]:
        """Return the median answer times of the writes and of the reads, in microseconds."""
        writes, reads = [], []
        begin = time.perf_counter()
        for number in range(int(SECONDS / PERIOD)):
            time.sleep(max(0.0, begin + number * PERIOD - time.perf_counter()))
            writes.append(seconds(lambda: os.write(self._mask, next(self._words))))
            reads.append(seconds(lambda: os.pread(self._read, 4096, 0)))
        return statistics.median(writes) * 1e6, statistics.median(reads) * 1e6


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def page_under_load(bench: Bench) -> Iterator[Figure]:
    """What a page on 65,536 queues costs, and what the others pay for it; interleaved."""
    mount = bench.mount("full")
    load = Load(mount)
    shares = []
    found: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}

    def without_page() -> float:
        found["without"].append(load.run())
        return found["without"][-1][0]

    def with_page() -> float:
        with Served(mount.root) as server, connected(server.address) as client:
            client.take(has_masks)
            threading.Thread(target=client.drain, daemon=True).start()
            used, began = server.processor_seconds, time.monotonic()
            found["with"].append(load.run())
            used = server.processor_seconds - used
            shares.append(used / (time.monotonic() - began))
        return found["with"][-1][0]

    try:
        interleaved({"without": without_page, "with": with_page}, ROUNDS)
    finally:
        load.close()
    share = statistics.median(shares) * 100
    yield Figure("view: the server on full, 100 masks/s", share, "% of a core", 25)
    for place, name in enumerate(("a mask change", "a read")):
        medians = {
            kind: statistics.median(values[place] for values in runs)
            for kind, runs in found.items()
        }
        yield Figure(f"{name} on full without a page", medians["without"], "us")
        yield Figure(f"{name} with a page", medians["with"], "us")
        yield Figure("ratio of the two", medians["with"] / medians["without"], "", 1.1)


BENCHMARKS: tuple[Callable[[Bench], Iterable[Figure]], ...] = (
    first_picture,
    page_shows_soon,
    page_under_load,
)
