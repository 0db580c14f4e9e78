"""The cost of system calls on files: ours, the real sysfs, a C libfuse server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

from tests.bench.measure import Bench, Figure, interleaved
from tests.mounts import Mount

CALLS = 4000
REAL = Path("/sys/class/net/lo")
MASK = "sys/bus/ap/apmask"
CONSTANT = "sys/devices/ap/card04/hwtype"
THOUSAND = 1000


def open_read_close(bench: Bench) -> Iterator[Figure]:
    """open, one read, close: against a C libfuse server and the real sysfs."""
    mount, machine = bench.mount(), bench.mount("default").root
    candidates: dict[str, Callable[[], float]] = {
        "ours": lambda: bench.client("orc", mount.device / "rw", CALLS),
        "mask": lambda: bench.client("orc", machine / MASK, CALLS),
        "constant": lambda: bench.client("orc", machine / CONSTANT, CALLS),
        "real": lambda: bench.client("orc", REAL / "mtu", CALLS),
    }
    hello = bench.libfuse_file()
    if hello is not None:
        candidates["libfuse"] = lambda: bench.client("orc", hello, CALLS)
    found = interleaved(candidates)
    if hello is not None:
        yield Figure(
            "open, read, close: to a C libfuse server",
            found["ours"] / found["libfuse"],
            "x",
            1.5,
            1.25,
        )
    yield Figure("open, read, close: to real sysfs", found["ours"] / found["real"], "x", 6)
    yield Figure("the same, apmask", found["mask"] / found["real"], "x", 6)
    yield Figure("the same, a constant text", found["constant"] / found["real"], "x", 6)
    yield Figure("open, read, close", found["ours"], "us")
    yield Figure("daemon CPU of open, read, close", _daemon_cpu(bench, mount), "us", 25)


def _daemon_cpu(bench: Bench, mount: Mount) -> float:
    daemon, calls = psutil.Process(mount.pid), 20 * CALLS
    before = daemon.cpu_times()
    bench.client("orc", mount.device / "rw", calls)
    after = daemon.cpu_times()
    return (after.user + after.system - before.user - before.system) / calls * 1e6


def echo(bench: Bench) -> Iterator[Figure]:
    """What a shell's `echo` does to a file: open with O_TRUNC, write, close."""
    mount, real = bench.mount(), REAL / "tx_queue_len"
    value = real.read_text().strip()
    found = interleaved(
        {
            "ours": lambda: bench.client("echo", mount.device / "rw", CALLS, "1500"),
            "real": lambda: bench.client("echo", real, CALLS, value),
        }
    )
    yield Figure("echo: to real sysfs", found["ours"] / found["real"], "x", 8, 6)


def warm_stat(bench: Bench) -> Iterator[Figure]:
    """stat of a name that is known already."""
    mount = bench.mount()
    found = interleaved(
        {
            "ours": lambda: bench.client("stat", mount.device / "rw", 5 * CALLS),
            "real": lambda: bench.client("stat", REAL / "mtu", 5 * CALLS),
        }
    )
    yield Figure("warm stat: to real sysfs", found["ours"] / found["real"], "x", 0.8)


def long_listing(bench: Bench) -> Iterator[Figure]:
    """The system calls of `ls -l` for 1,000 entries, when nothing is known of them and when all is.

    The program itself takes several times as long, on any file system.
    """
    mount = bench.mount("vfio-ap-three-guests")
    parent = mount.root / "sys/devices/vfio_ap/matrix"
    create = parent / "mdev_supported_types/vfio_ap-passthrough/create"
    for number in range(THOUSAND):
        create.write_text(f"00000000-0000-4000-8000-{number:012x}")

    def milliseconds(rounds: int) -> float:
        return bench.client("list", parent, rounds) / 1000

    def forgotten() -> float:
        # Dropping the caches is what makes it a first listing again.
        Path("/proc/sys/vm/drop_caches").write_text("2")
        return milliseconds(1)

    found = interleaved({"first": forgotten, "warm": lambda: milliseconds(20)})
    yield Figure(f"listing of {THOUSAND} entries with status, first", found["first"], "ms", 12, 8)
    yield Figure(f"listing of {THOUSAND} entries with status, warm", found["warm"], "ms", 2.5, 1.5)


BENCHMARKS: tuple[Callable[[Bench], Iterable[Figure]], ...] = (
    open_read_close,
    echo,
    warm_stat,
    long_listing,
)
