"""What a benchmark is made of: figures, a C client, interleaved rounds on one CPU."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.mounts import Mount, mounted

HERE = Path(__file__).parent
ROUNDS = 9
CPU = min(os.sched_getaffinity(0))
PIN = ("taskset", "-c", str(CPU))


@dataclass(frozen=True)
class Figure:
    """One line of the table. `most`: what it may be; `aim`: what it would better be."""

    what: str
    value: float
    unit: str = ""
    most: float | None = None
    aim: float | None = None

    @property
    def good(self) -> bool:
        """Is it within what is asked for?"""
        return self.most is None or self.value <= self.most


@dataclass
class Bench:
    """Programs and mounts that the benchmarks share."""

    folder: Path
    stack: ExitStack
    _mounts: dict[str, Mount] = field(default_factory=dict)
    _client: Path | None = None

    def mount(self, scenario: str = "selftest") -> Mount:
        """A mount of a scenario, pinned to the CPU of the client; kept until the end."""
        if scenario not in self._mounts:
            folder = self.folder / f"mount-{len(self._mounts)}"
            folder.mkdir()
            self._mounts[scenario] = self.stack.enter_context(
                mounted(folder, scenario=scenario, prefix=PIN)
            )
        return self._mounts[scenario]

    def client(self, mode: str, path: Path, rounds: int, text: str = "") -> float:
        """Microseconds per round of the C client, on the one CPU."""
        if self._client is None:
            self._client = compile_c("client", self.folder)
        done = subprocess.run(
            [*PIN, str(self._client), mode, str(path), str(rounds), text],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return float(done.stdout) / 1000

    def libfuse_file(self) -> Path | None:
        """A file of the smallest C libfuse server; None without libfuse's headers."""
        flags = libfuse_flags()
        if flags is None:
            return None
        program = compile_c("hello", self.folder, *flags)
        point = self.folder / "hello-mount"
        point.mkdir()
        subprocess.run([*PIN, str(program), str(point)], check=True, timeout=10)
        self.stack.callback(subprocess.run, ["umount", str(point)], check=False, timeout=10)
        return point / "hello"


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """All that benchmarks need, cleared away in every case."""
    with ExitStack() as stack:
        yield Bench(folder, stack)


def compile_c(name: str, folder: Path, *flags: str) -> Path:
    """One of our C programs, compiled into `folder`."""
    target = folder / name
    command = ["cc", "-O2", "-o", str(target), str(HERE / f"{name}.c"), *flags]
    subprocess.run(command, check=True, timeout=60)
    return target


def libfuse_flags() -> list[str] | None:
    """How to compile against libfuse 3; None where it is not installed."""
    if shutil.which("pkg-config") is None:
        there = Path("/usr/include/fuse3").exists()
        return ["-I/usr/include/fuse3", "-lfuse3"] if there else None
    done = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=False
    )
    return done.stdout.split() if done.returncode == 0 else None


def interleaved(
    candidates: Mapping[str, Callable[[], float]], rounds: int = ROUNDS
) -> dict[str, float]:
    """The median of each candidate; one measurement of each per round, so that noise is shared."""
    values: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, measure in candidates.items():
            values[name].append(measure())
    return {name: statistics.median(found) for name, found in values.items()}
