"""How long single requests stop all others of a mount; not part of `make test`.

    python -m tests.stops --scenario full
    python -m tests.stops --vms 1100

One client does one thing after the other: it reads every file, and makes writes that have much to
do. Another reads a small file all the time; the longest of its reads during a thing is how long the
thing stops others. Printed are the longest stops and how long the things themselves took.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from tests.mounts import Mount, mounted

CONTROL = "sys/kernel/debug/fakesys"
CTL = f"{CONTROL}/kvm/ctl"
TRACING = "sys/kernel/tracing"
NX = "sys/module/kvm/parameters/nx_huge_pages"
# A read of the other client that takes so long belongs to what happens meanwhile.
NOTED_SECONDS = 0.002
REST_SECONDS = 0.0005
# The rest of a text comes from memory.
LONGEST_TEXT = 64 << 20
# A number in a name: hexadecimal digits, or the identity of a mediated device.
_NUMBER = re.compile(r"\b[0-9a-f-]+\b|[0-9a-f]{2}$|\d+")


class Span(NamedTuple):
    """What was done, from when to when."""

    name: str
    begin: float
    end: float

    def common(self, begin: float, end: float) -> float:
        """How many seconds of another span are in it."""
        return min(self.end, end) - max(self.begin, begin)


def ask(path: Path, pipe: Connection) -> None:
    """Read a small file until the pipe says so, then send when its long reads were, and all."""
    noted, latencies = list[tuple[float, float]](), list[float]()
    while not pipe.poll():
        begin = time.monotonic()
        path.read_bytes()
        end = time.monotonic()
        latencies.append(end - begin)
        if end - begin >= NOTED_SECONDS:
            noted.append((begin, end))
        time.sleep(REST_SECONDS)
    pipe.send((noted, sorted(latencies)))


class Watch:
    """Notes what this client does, while the other one asks."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.noted: list[tuple[float, float]] = []
        self.latencies: list[float] = []

    def do(self, name: str, action: Callable[[], None]) -> None:
        """Do something; a refusal is a result, too."""
        begin = time.monotonic()
        with suppress(OSError):
            action()
        self.spans.append(Span(name, begin, time.monotonic()))

    @contextmanager
    def asking(self, path: Path) -> Iterator[None]:
        """The other client asks within the block."""
        ours, theirs = multiprocessing.Pipe()
        client = multiprocessing.Process(target=ask, args=(path, theirs))
        client.start()
        try:
            yield
        finally:
            ours.send(None)
            self.noted, self.latencies = ours.recv()
            client.join()

    def stops(self) -> list[tuple[float, Span]]:
        """The longest stop by each thing that was done, the longest of all first."""
        longest: dict[str, tuple[float, Span]] = {}
        for begin, end in self.noted:
            span = max(self.spans, key=lambda span: span.common(begin, end))
            if span.common(begin, end) > 0 and end - begin > longest.get(span.name, (0.0,))[0]:
                longest[span.name] = end - begin, span
        return sorted(longest.values(), key=lambda found: -found[0])


def read(path: Path) -> None:
    """Read a file to its end, if it has one, without waiting."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        size = 0
        while size < LONGEST_TEXT and (data := os.read(descriptor, 1 << 17)):
            size += len(data)
    finally:
        os.close(descriptor)


def write(path: Path, data: bytes) -> None:
    """Write to a file as `echo` does."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)


class Tour:
    """Reads and writes of one mount, watched."""

    def __init__(self, mount: Mount, watch: Watch) -> None:
        self._root = mount.root
        self._watch = watch

    def write(self, path: str, text: str) -> None:
        """Write a line, watched."""
        name = f"echo {text[:50]} > {path}"
        self._watch.do(name, lambda: write(self._root / path, f"{text}\n".encode()))

    def ctl(self, line: str) -> None:
        """Give a command, watched."""
        self._watch.do(line, lambda: write(self._root / CTL, line.encode()))

    def load_what_is_saved(self) -> None:
        """Save the machine and load it."""
        path = self._root / CONTROL / "snapshot"
        saved = bytearray()
        self._watch.do("save the machine", lambda: saved.extend(path.read_bytes()))
        self._watch.do("load the machine", lambda: write(path, bytes(saved)))

    def read_all(self, top: str = "") -> None:
        """List every directory and read every file; of names that differ in numbers only two."""
        folders = [self._root / top]
        while folders:
            path = folders.pop()
            self._watch.do(f"ls {path.relative_to(self._root)}", partial(_list, path))
            kinds = {entry.name: entry for entry in os.scandir(path)}
            for name in _kinds(kinds):
                entry = kinds[name]
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path / name)
                elif not entry.is_symlink():
                    text = f"cat {(path / name).relative_to(self._root)}"
                    self._watch.do(text, partial(read, path / name))


def _kinds(names: Iterable[str]) -> list[str]:
    """Return the first and the last of the names that differ in numbers only."""
    kinds: dict[str, list[str]] = {}
    for name in sorted(names):
        kinds.setdefault(_NUMBER.sub("0", name), []).append(name)
    return [name for same in kinds.values() for name in dict.fromkeys((same[0], same[-1]))]


def _list(path: Path) -> None:
    for entry in os.scandir(path):
        entry.stat(follow_symlinks=False)


def vms(tour: Tour, number: int) -> None:
    """Make so many VMs with some memory."""
    for vm in range(number):
        for line in (
            *(f"vm create v{vm}", f"v{vm} vcpu add count=2", f"v{vm} mem m size=64M"),
            *(f"v{vm} slot 0 gpa=0 size=64M mem=m", f"v{vm} vcpu 0 access w 0 n=4096"),
        ):
            tour.ctl(line)


def large_commands(tour: Tour) -> None:
    """Commands with the largest operands that a user may give."""
    for line in (
        *("vm create g", "g vcpu add count=2", "g mem m size=1T", "g mem n size=64M"),
        *("g slot 0 gpa=0x100000000 size=1T mem=m", "g slot 1 gpa=0 size=64M mem=n"),
        "g vcpu 0 access w 0x100000000 n=268435456",
        "g slot 0 gpa=0x100000000 size=1T mem=m flags=log_dirty",
        "g vcpu 0 access w 0x100000000 n=268435456",
        *("g dirty_log 0", "g clear_dirty 0 first=0 n=268435456"),
        "g notifier invalidate m off=0 size=1T",
        "g vcpu 0 access w 0x100000000 n=268435456",
        *("shrink n=100000", "g nr_mmu_pages 64", "g slot 0 gpa=0x100000000 size=0"),
        "g slot 0 gpa=0x100000000 size=1T mem=m",
        "g vcpu 0 access w 0x100000000 n=268435456",
        "g slot 0 gpa=0x20000000000 size=1T mem=m",
        "g vcpu 0 access w 0x20000000000 n=268435456",
        "g race slot=1 max_rounds=1000000 vcpus=8 ws=256M",
        *("g vcpu 0 access w 0x20000000000 n=268435456", "vm destroy g"),
        *("vm create h", "h mem m size=1G", "h slot 0 gpa=0 size=1G mem=m", "h guest_tables n=512"),
        *("h vcpu add count=1024", "vm destroy h"),
    ):
        tour.ctl(line)


def presets(tour: Tour) -> None:
    """Guests with the most vCPUs."""
    for name in ("linux-boot", "windows2019-boot", "freebsd-boot"):
        tour.write(f"{CONTROL}/kvm/preset", f"{name} vcpus=240 name=p")
        tour.ctl("vm destroy p")


def trace(tour: Tour) -> None:
    """A full buffer of events, and what can be done to it."""
    for path, text in (
        ("buffer_size_kb", "65536"),
        ("events/enable", "1"),
        ("events/kvm/kvm_exit/trigger", "hist:keys=common_pid,exit_reason,guest_rip:size=131072"),
    ):
        tour.write(f"{TRACING}/{path}", text)
    for line in ("vm create t", "t vcpu add count=2", "t mem m size=2G"):
        tour.ctl(line)
    tour.ctl("t slot 0 gpa=0 size=2G mem=m")
    for number in range(8):
        tour.ctl(f"t vcpu 0 access w {number * 50000 * 4096:#x} n=50000")
    tour.write(f"{TRACING}/events/enable", "0")
    tour.read_all(TRACING)
    for path, text in (
        *(("snapshot", "1"), ("trace", ""), ("buffer_size_kb", "1024"), ("trace_clock", "mono")),
        *(("set_event", "kvm"), ("events/enable", "1"), ("events/enable", "0")),
        ("events/kvm/filter", "common_pid == 1"),
        ("trace_marker", "x" * 4000),
    ):
        tour.write(f"{TRACING}/{path}", text)
    tour.ctl("vm destroy t")


def whole_machine(tour: Tour) -> None:
    """Move the time, save, load, begin again."""
    tour.write(NX, "force")
    tour.write(NX, "off")
    tour.write(f"{CONTROL}/clock/advance", "8640000")
    tour.load_what_is_saved()
    tour.write(f"{CONTROL}/reset", "1")


PARTS: dict[str, Callable[[Tour], None]] = {
    "read": Tour.read_all,
    "commands": large_commands,
    "presets": presets,
    "trace": trace,
    "machine": whole_machine,
}


def seconds_of(daemon: int) -> tuple[float, int]:
    """Processor seconds and resident bytes of a process."""
    fields = Path(f"/proc/{daemon}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(
        fields[21]
    ) * resource.getpagesize()


def main() -> None:
    """Do it all and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scenario", default="full")
    parser.add_argument("--profile", default="6.1")
    parser.add_argument("--vms", type=int, default=0)
    parser.add_argument("--lines", type=int, default=25)
    parser.add_argument("--parts", default=",".join(PARTS))
    options = parser.parse_args()
    parts = options.parts.split(",")
    watch = Watch()
    with (
        tempfile.TemporaryDirectory() as folder,
        mounted(Path(folder), "--profile", options.profile, scenario=options.scenario) as mount,
    ):
        tour = Tour(mount, watch)
        with watch.asking(mount.control / "version"):
            vms(tour, options.vms)
            for name, part in PARTS.items():
                if name in parts:
                    part(tour)
                    print(name, seconds_of(mount.pid), file=sys.stderr, flush=True)
    latencies = watch.latencies
    for share in (0.5, 0.99, 0.999, 1):
        print(f"{share:7.1%} {latencies[int(share * (len(latencies) - 1))] * 1000:9.2f} ms")
    for stop, span in watch.stops()[: options.lines]:
        print(f"{stop * 1000:9.1f} ms of {span.end - span.begin:8.2f} s  {span.name}")


if __name__ == "__main__":
    main()
