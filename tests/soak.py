"""A soak: many clients use every part of one mount for a long time; not part of `make test`.

    python -m tests.soak --seconds 900 --clients 8

At the end the script prints what it measured and exits with 1 if a promise was broken:

* no internal error (`fakesys/bugs` is 0) and a daemon that is still alive;
* no client in state D for longer than 100 ms;
* memory of the daemon at the end at most 1.2 times that after one minute;
* `cat` of one file at the end no slower than at the beginning (99th percentile, with 1.5 times
  for noise);
* after everything was removed, the state of a fresh machine.

Each client is a process that repeats random actions from its own seed. It owns a range of cards,
domains, VM names and instances, so that most writes succeed, and reads everything.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import quantiles
from typing import Any

from tests.mounts import Mount, mounted

AP = "sys/bus/ap"
MATRIX = "sys/devices/vfio_ap/matrix"
CREATE = f"{MATRIX}/mdev_supported_types/vfio_ap-passthrough/create"
CONTROL = "sys/kernel/debug/fakesys"
TRACING = "sys/kernel/tracing"
# Counts of what happened; and a trace buffer gets its full size when it is first used.
PAST = (
    "clock",
    "ap/bus/bindings_complete",
    "ap/bus/scans",
    "ap/bus/cards/*/requests",
    "ap/bus/cards/*/queue_requests",
    "ap/debug/*/entries",
    "ap/hardware/rapq",
    "ap/hardware/resets",
    "ap/vfio_ap/bad_resets",
    "kvm/created",
    "tracing/top/buffers",
)
LONGEST_D_SECONDS = 0.1
MEMORY_FACTOR = 1.2
LATENCY_FACTOR = 1.5
CAT_SAMPLES = 2000
MOMENTS = 3


class Client:
    """One client of the mount; `number` separates what it makes from what the others make."""

    def __init__(self, root: Path, number: int) -> None:
        self.root = root
        self.number = number
        self.chance = random.Random(number)
        self.vm = f"soak{number}"
        self.instance = f"soak{number}"
        self.card = 0x20 + number
        self.uuid = f"5{number:07x}-0000-4000-8000-000000000001"
        self.guest = f"soakguest{number}"

    def put(self, path: str, text: str) -> bool:
        """Write as `echo` does; False for a refusal."""
        try:
            descriptor = os.open(self.root / path, os.O_WRONLY | os.O_TRUNC)
        except OSError:
            return False
        try:
            os.write(descriptor, f"{text}\n".encode())
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def get(self, path: str, size: int = 1 << 17) -> bytes:
        """Read without waiting; what was there before a refusal."""
        found = b""
        with suppress(OSError):
            descriptor = os.open(self.root / path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                # Not to the end: some files grow as fast as they are read.
                for _ in range(64):
                    piece = os.read(descriptor, size)
                    if not piece:
                        break
                    found += piece
            finally:
                os.close(descriptor)
        return found

    def ctl(self, command: str) -> bool:
        """Give one command to KVM."""
        return self.put(f"{CONTROL}/kvm/ctl", command)

    def masks(self) -> None:
        """Take the client's domain from the host and give it back."""
        sign = self.chance.choice("+-")
        self.put(f"{AP}/aqmask", f"{sign}{self.chance.choice((4, 0x47, 0xAB, 0xFF))}")
        self.put(f"{AP}/apmask", f"{sign}{self.chance.choice((4, 5, 6))}")
        text = self.get(f"{AP}/apmask")
        assert len(text) == 67, f"apmask has {len(text)} bytes: {text[:80]!r}"

    def cards(self) -> None:
        """Plug and unplug a card."""
        if self.put(f"{CONTROL}/ap/new_card", f"{self.card} CEX6 cca"):
            self.get(f"sys/devices/ap/card{self.card:02x}/online")
        if self.chance.random() < 0.7:
            self.put(f"{CONTROL}/ap/del_card", str(self.card))

    def mdevs(self) -> None:
        """Make a mediated device, give it to a guest, take it away."""
        self.put(CREATE, self.uuid)
        device = f"{MATRIX}/{self.uuid}"
        for _ in range(4):
            word = self.chance.choice(("assign", "unassign"))
            what = self.chance.choice(("adapter", "domain"))
            number = self.chance.choice((5, 6) if what == "adapter" else (4, 0x47, 0xAB))
            self.put(f"{device}/{word}_{what}", str(number))
            self.get(f"{device}/matrix")
        if self.put(f"{CONTROL}/ap/new_guest", self.guest):
            self.put(f"{CONTROL}/ap/guests/{self.guest}/attach", self.uuid)
            self.get(f"{device}/guest_matrix")
            self.put(f"{CONTROL}/ap/del_guest", self.guest)
        self.put(f"{device}/remove", "1")

    def machines(self) -> None:
        """Boot, use and destroy a VM."""
        vm = self.vm
        self.ctl(f"vm create {vm}")
        self.ctl(f"{vm} vcpu add count=2")
        self.ctl(f"{vm} mem ram size=64M")
        self.ctl(f"{vm} slot 0 gpa=0 size=64M mem=ram flags=log_dirty")
        self.ctl(f"{vm} vcpu 0 access w 0 n={self.chance.randrange(1, 5000)}")
        self.ctl(f"{vm} dirty_log 0")
        for command in ("pic base=0x30 imr=0", "vcpu 0 lvt0 extint", "vcpu 0 cli", "pit tick"):
            self.ctl(f"{vm} {command}")
        self.ctl(f"{vm} vcpu 0 sti")
        for name in ("state", "mmu", "memslots", "shadow_pages", "vcpu0"):
            self.get(f"{CONTROL}/kvm/vms/{vm}/{name}")
        self.ctl(f"{vm} slot 0 gpa=0 size=0")
        self.ctl(f"vm destroy {vm}")

    def tracing(self) -> None:
        """Use the trace buffers, an instance, filters and triggers."""
        instance = self.root / TRACING / "instances" / self.instance
        with suppress(OSError):
            instance.mkdir()
        below = f"{TRACING}/instances/{self.instance}"
        # Small ones are full within the first minute: what grows later is lost.
        self.put(f"{below}/buffer_size_kb", "64")
        self.put(f"{below}/set_event", self.chance.choice(("kvm:*", "kvmmmu:*", "sched:*", "")))
        self.put(f"{below}/events/kvm/kvm_exit/filter", "exit_reason == 1 || isa == 2")
        self.put(f"{TRACING}/events/kvm/enable", self.chance.choice("01"))
        self.put(f"{TRACING}/trace_marker", f"client {self.number}")
        for name in ("trace", "trace_pipe", "per_cpu/cpu0/trace_pipe_raw", "error_log"):
            self.get(f"{below}/{name}")
        if self.chance.random() < 0.5:
            with suppress(OSError):
                instance.rmdir()

    def journals(self) -> None:
        """Read the journals in small steps beside all the writers."""
        for name in ("log", "uevents", "ap/log", "uevents_pipe", "state"):
            self.get(f"{CONTROL}/{name}", size=self.chance.choice((16, 200, 4096)))

    def walk(self) -> None:
        """List and read a random part of the tree."""
        place = self.root / "sys"
        for _ in range(8):
            try:
                entries = [entry for entry in os.scandir(place) if not entry.is_symlink()]
            except OSError:
                return
            folders = []
            for entry in entries[:50]:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry)
                    elif entry.name not in ("snapshot", "trace_marker", "free_buffer"):
                        self.get(str(Path(entry.path).relative_to(self.root)))
            if not folders:
                return
            place = Path(self.chance.choice(folders).path)

    def time(self) -> None:
        """Move the simulated time."""
        self.put(f"{CONTROL}/clock/advance", "0.5")

    def actions(self) -> list[Callable[[], None]]:
        """Return everything that a client does, some of it more often."""
        rare = [self.walk, self.time, self.cards]
        often = [self.masks, self.mdevs, self.machines, self.tracing, self.journals]
        return [*rare, *often, *often]

    def run(self) -> None:
        """Repeat random actions until SIGTERM."""
        actions = self.actions()
        stopping: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
        while not stopping:
            self.chance.choice(actions)()
        self.clean()

    def clean(self) -> None:
        """Remove everything that this client made."""
        self.ctl(f"vm destroy {self.vm}")
        self.put(f"{CONTROL}/ap/del_guest", self.guest)
        self.put(f"{MATRIX}/{self.uuid}/remove", "1")
        self.put(f"{CONTROL}/ap/del_card", str(self.card))
        with suppress(OSError):
            (self.root / TRACING / "instances" / self.instance).rmdir()


def client(root: Path, number: int) -> None:
    """Be one client: the target of its process."""
    Client(root, number).run()


def state_of(mount: Mount) -> dict[str, object]:
    """Return the machine's state without what is only a count of the past."""
    state: dict[str, Any] = json.loads((mount.control / "state").read_text())
    for path in PAST:
        forget(state, path.split("/"))
    return state


def forget(state: Any, path: list[str]) -> None:
    """Remove what is at a path of a state; `*` means every name."""
    name, *below = path
    for key in list(state) if name == "*" else [name]:
        if below:
            forget(state[key], below)
        else:
            state.pop(key, None)


def reset_common(mount: Mount) -> None:
    """Bring what all clients share back to where it was."""
    everyone = Client(mount.root, 99)
    for name in ("apmask", "aqmask"):
        everyone.put(f"{AP}/{name}", "0x" + "f" * 64)
    everyone.put(f"{TRACING}/events/enable", "0")
    everyone.put(f"{TRACING}/set_event", "")
    everyone.put(f"{TRACING}/trace", "")


def memory_of(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def state_letter(pid: int) -> str:
    """Return the state of a process as in `/proc/PID/stat`; empty once it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


def is_uninterruptible(pid: int) -> bool:
    """Return whether a process is in state D now."""
    return state_letter(pid) == "D"


def kernel_stack(pid: int) -> str:
    """Return the functions of the kernel in which a process waits; empty without root."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/stack").read_text().splitlines()
        return " < ".join(line.partition("] ")[2].partition("+")[0] for line in lines[:8])
    return ""


def open_files(pid: int) -> list[str]:
    """Return the files of a sysfs, debugfs or tracefs that a process has open."""
    found = []
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            found.append(os.readlink(entry.path))
    return [path.partition("/sys/")[2] for path in found if "/sys/" in path]


def cat_p99(mount: Mount) -> float:
    """Return the 99th percentile of the seconds that one read of a file takes."""
    path = mount.root / AP / "apmask"
    times = []
    for _ in range(CAT_SAMPLES):
        start = time.perf_counter()
        path.read_bytes()
        times.append(time.perf_counter() - start)
    return quantiles(times, n=100)[98]


class Watch:
    """What is seen of daemon and clients while they run."""

    def __init__(self, daemon: int, pids: list[int]) -> None:
        self.longest_d = 0.0
        # Where in the kernel the client waited that was in state D for the longest time.
        self.place = ""
        # What every process did when a client had waited for too long.
        self.moments: list[str] = []
        # Of the daemon, once a minute, in KiB.
        self.memory: list[int] = []
        self._since: dict[int, float] = {}
        self._daemon = daemon
        self._pids = pids

    def look(self) -> None:
        """Note how long each client has been in state D without a break."""
        now = time.monotonic()
        for pid in self._pids:
            if is_uninterruptible(pid):
                since = self._since.setdefault(pid, now)
                if now - since > LONGEST_D_SECONDS and len(self.moments) < MOMENTS:
                    self.moments.append(self._moment(pid, now - since))
                if now - since > self.longest_d:
                    self.longest_d, self.place = now - since, kernel_stack(pid)
            else:
                self._since.pop(pid, None)

    def _moment(self, late: int, seconds: float) -> str:
        lines = [f"{late} in state D for {seconds * 1000:.0f} ms"]
        for pid in (self._daemon, *self._pids):
            lines.append(f"  {pid} {state_letter(pid)} {kernel_stack(pid)} {open_files(pid)}")
        return "\n".join(lines)

    def until(self, end: float) -> None:
        """Look every 10 ms until a moment of `time.monotonic`."""
        minute = time.monotonic()
        while (now := time.monotonic()) < end:
            self.look()
            if now >= minute:
                self.memory.append(memory_of(self._daemon) >> 10)
                minute = now + 60
            time.sleep(0.01)


def soak(mount: Mount, seconds: float, clients: int) -> list[str]:
    """Run it; the promises that were broken."""
    broken = []
    fresh = state_of(mount)
    first_p99 = cat_p99(mount)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=client, args=(mount.root, n)) for n in range(clients)]
    for worker in workers:
        worker.start()
    watch = Watch(mount.pid, [worker.pid for worker in workers if worker.pid is not None])
    start = time.monotonic()
    watch.until(start + min(60.0, seconds / 4))
    early = memory_of(mount.pid)
    watch.until(start + seconds)
    late = memory_of(mount.pid)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(60)
        if worker.exitcode != 0:
            broken.append(f"client {worker.name} ended with {worker.exitcode}")
        worker.kill()
    last_p99 = cat_p99(mount)
    reset_common(mount)
    watch.memory.append(memory_of(mount.pid) >> 10)
    requests = (mount.control / "requests").read_text().split()[0]
    print(f"requests {requests}, seconds {time.monotonic() - start:.0f}, bugs {mount.bugs()}")
    print(f"memory after the first minute {early >> 10} KiB, at the end {late >> 10} KiB")
    print(f"memory once a minute, and when all was removed {watch.memory} KiB")
    print(*watch.moments, sep="\n")
    print(f"longest state D {watch.longest_d * 1000:.0f} ms {watch.place}")
    print(f"p99 of a read: {first_p99 * 1e6:.0f} us before, {last_p99 * 1e6:.0f} us after")
    if mount.bugs():
        broken.append("internal errors: " + (mount.control / "bugs").read_text())
    if watch.longest_d > LONGEST_D_SECONDS:
        broken.append("a client was in state D for too long")
    if late > early * MEMORY_FACTOR:
        broken.append("the memory of the daemon grew")
    if last_p99 > first_p99 * LATENCY_FACTOR:
        broken.append("reads became slower")
    differ = differences(fresh, state_of(mount))
    if differ:
        broken.append("state differs from a fresh machine's: " + "; ".join(differ[:20]))
    return broken


def differences(one: object, other: object, path: str = "") -> list[str]:
    """Return the places where two states differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted({*one, *other})
            for line in differences(one.get(key), other.get(key), f"{path}/{key}")
        ]
    return [] if one == other else [f"{path}: {one!r} became {other!r}"]


def main() -> int:
    """Soak a mount of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--profile", default="seed")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fakesys-soak-"))
    try:
        with mounted(folder, "--profile", options.profile, scenario="default") as mount:
            broken = soak(mount, options.seconds, options.clients)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for line in broken:
        print(f"broken: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
