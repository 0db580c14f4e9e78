"""How fast and how small the memory model is, without any mount.

Each size is measured in a process of its own, so that its memory is its own as well. The model
is one thread that never waits, so times are those of the processor.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fakesys.core.events import Bus
from fakesys.subsystems.kvm.stats import VcpuStats, VmStats
from fakesys.subsystems.kvm_mmu.guest import Guest
from fakesys.subsystems.kvm_mmu.kit import Knobs
from fakesys.subsystems.kvm_mmu.memory import VmMemory
from fakesys.subsystems.kvm_mmu.memslots import Region
from fakesys.subsystems.kvm_mmu.policy import K5_4, ZapFlow
from fakesys.subsystems.kvm_mmu.roots import VcpuMmu
from fakesys.subsystems.kvm_mmu.touch import touch
from fakesys.subsystems.kvm_mmu.zap import Flow

TIB = 1 << 40
PAGES = TIB >> 12
# 524,288 tables of level 1, 1,024 of level 2, 2 of level 3, 1 root.
TIB_SHADOW_PAGES = 525_315


class Result(NamedTuple):
    """One number, and what is asked of it."""

    name: str
    measured: float
    unit: str
    ask: str
    good: bool


class Big:
    """A VM with one slot of 4 KiB pages that begins at gpa 0, and one vCPU."""

    def __init__(self, size: int) -> None:
        self.memory = VmMemory(Bus(), K5_4, Knobs(), VmStats())
        host = self.memory.host.add("ram", size)
        self.start = 0
        self.memory.set_region(Region(0, 0, self.start, size, host.hva))
        self.vcpu: VcpuMmu = self.memory.add_vcpu(0, VcpuStats())
        self.guest = Guest(self.memory, self.vcpu)

    def touch_all(self, pages: int) -> None:
        """One command writes to every page."""
        touch(self.memory, self.vcpu, self.guest, "w", self.start, times=pages)


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def tib_guest() -> Iterable[Result]:
    """1 TiB in pages of 4 KiB: touched by one command, its memory, zapped."""
    big = Big(TIB)
    before = _resident()
    took = _seconds(lambda: big.touch_all(PAGES))
    used = big.memory.kit.pages.used
    yield _at_most("1 TiB touched", took, "s", 10)
    yield Result("shadow pages", used, "", f"{TIB_SHADOW_PAGES}", used == TIB_SHADOW_PAGES)
    per_row = big.memory.kit.pages.bytes_per_row + big.memory.tree.bytes_per_table
    yield _at_most("bytes per full shadow page", per_row, "B", 60)
    yield _at_most("resident growth per shadow page", (_resident() - before) / used, "B", 80)
    flows: list[Flow] = []
    begin = _seconds(lambda: flows.append(big.memory.begin_zap(ZapFlow.FAST)))
    yield _at_most("zap_all_fast, critical part", begin * 1e6, "us", 200)
    yield _at_most("1 TiB zapped", _seconds(lambda: flows[0].step()), "s", 1)
    yield _at_most("resident", _resident() / (1 << 20), "MiB", 300)


def critical_part() -> Iterable[Result]:
    """The part of zap_all_fast under one hold of the lock does not grow with the guest."""
    ratio = _begin_seconds(64 << 30) / _begin_seconds(1 << 30)
    yield _at_most("critical part, 64 GiB against 1 GiB", ratio, "x", 3)


def _begin_seconds(size: int) -> float:
    big = Big(size)
    big.touch_all(size >> 12)
    return min(_seconds(lambda: big.memory.begin_zap(ZapFlow.FAST)) for _ in range(5))


def single_fault() -> Iterable[Result]:
    """One fault of a vCPU that touches pages in no order."""
    big = Big(4 << 30)
    big.touch_all(1)
    pages = 4 << 18
    order = [(n * 7919 * 8) % pages for n in range(20_000)]
    faults = big.memory.faults
    vcpu = big.vcpu
    for gfn in order[:10_000]:
        faults.page_fault(vcpu, big.start + (gfn << 12), 6)
    fresh = [gfn ^ 8 for gfn in order[:10_000]]
    took = _seconds(lambda: [faults.page_fault(vcpu, big.start + (gfn << 12), 6) for gfn in fresh])
    yield _at_most("a single fault", took / len(fresh) * 1e6, "us", 20)


def _at_most(name: str, measured: float, unit: str, ask: float) -> Result:
    return Result(name, measured, unit, f"<= {ask:g}", measured <= ask)


def _resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


BENCHMARKS: tuple[Callable[[], Iterable[Result]], ...] = (tib_guest, critical_part, single_fault)


def main(arguments: list[str]) -> int:
    """Each benchmark in a process of its own; 1 if one is not as asked for."""
    if arguments:
        good = True
        for measure in BENCHMARKS:
            if measure.__name__ in arguments:
                for result in measure():
                    good &= result.good
                    mark = "" if result.good else "  MISSED"
                    print(
                        f"{result.name:36} {result.measured:12.2f} {result.unit:4}"
                        f" ask {result.ask}{mark}"
                    )
        return 0 if good else 1
    codes = [
        subprocess.run([sys.executable, "-m", "tests.bench.mmu", measure.__name__]).returncode
        for measure in BENCHMARKS
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
