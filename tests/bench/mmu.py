"""How fast and how small the memory model is: alone, and behind a mount.

    python -m tests.bench.mmu

Each size is measured in a process of its own, so that its memory is its own as well. The model
is one thread that never waits, so times are those of the processor.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable

import msgspec

from fakesys.core.events import Bus
from fakesys.subsystems.kvm.stats import VcpuStats, VmStats
from fakesys.subsystems.kvm_mmu.guest.bulk_access import bulk_access
from fakesys.subsystems.kvm_mmu.guest.vcpu_run import Guest
from fakesys.subsystems.kvm_mmu.mmu.zap import Flow
from fakesys.subsystems.kvm_mmu.shadow.arch import Knobs
from fakesys.subsystems.kvm_mmu.shadow.policy import K5_4, ZapFlow
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.slots.memslots import Region
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory
from tests.bench.measure import Bench, Figure

TIB = 1 << 40
PAGES = TIB >> 12
# 524,288 tables of level 1, 1,024 of level 2, 2 of level 3, 1 root.
TIB_SHADOW_PAGES = 525_315


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
        bulk_access(self.memory, self.vcpu, self.guest, "w", self.start, times=pages)


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def tib_guest() -> Iterable[Figure]:
    """1 TiB in pages of 4 KiB: touched by one command, its memory, zapped."""
    big = Big(TIB)
    before = _resident()
    took = _seconds(lambda: big.touch_all(PAGES))
    used = big.memory.arch.pages.used
    yield Figure("MMU: 1 TiB touched by one command", took, "s", 10)
    assert used == TIB_SHADOW_PAGES, f"{used} shadow pages"
    per_row = big.memory.arch.pages.bytes_per_row + big.memory.links.bytes_per_table
    yield Figure("MMU: bytes per full shadow page", per_row, "B", 60)
    grown = (_resident() - before) / used
    yield Figure("MMU: resident growth per shadow page", grown, "B", 60)
    flows: list[Flow] = []
    begin = _seconds(lambda: flows.append(big.memory.begin_zap(ZapFlow.FAST)))
    yield Figure("MMU: zap_all_fast, critical part", begin * 1e6, "us", 200)
    yield Figure("MMU: 1 TiB zapped", _seconds(lambda: flows[0].step()), "s", 1)
    yield Figure("MMU: resident", _resident() / (1 << 20), "MiB", 300)


def page_by_page() -> Iterable[Figure]:
    """The same zap while vCPUs may take the lock: every page for itself."""
    big = Big(64 << 30)
    big.touch_all(64 << 18)
    pages = big.memory.arch.pages.used
    flow = big.memory.begin_zap(ZapFlow.FAST, lambda: False)
    took = _seconds(lambda: flow.step())
    yield Figure("MMU: zap of one page, one by one", took / pages * 1e6, "us", 20)


def critical_part() -> Iterable[Figure]:
    """The part of zap_all_fast under one hold of the lock does not grow with the guest."""
    ratio = _begin_seconds(64 << 30) / _begin_seconds(1 << 30)
    yield Figure("MMU: critical part, 64 GiB to 1 GiB", ratio, "x", 3, 1)


def _begin_seconds(size: int) -> float:
    big = Big(size)
    big.touch_all(size >> 12)
    return min(_seconds(lambda: big.memory.begin_zap(ZapFlow.FAST)) for _ in range(20))


def single_fault() -> Iterable[Figure]:
    """One fault of a vCPU that touches pages in no order, its tables there or not."""
    big = Big(4 << 30)
    big.touch_all(1)
    pages = 4 << 18
    order = [(n * 7919 * 8) % pages for n in range(20_000)]
    yield Figure("MMU: a fault that also makes tables", _fault_us(big, order[:2000]), "us", 40)
    _fault_us(big, order[2000:])
    fresh = [gfn ^ 1 for gfn in order]
    big.memory.notifier.invalidate(big.memory.host.named("ram"), 0, 4 << 30)
    yield Figure("MMU: a single fault", _fault_us(big, fresh), "us", 20)


def _fault_us(big: Big, gfns: list[int]) -> float:
    faults, vcpu = big.memory.faults, big.vcpu

    def all_of_them() -> None:
        for gfn in gfns:
            faults.page_fault(vcpu, gfn << 12, 6)

    return _seconds(all_of_them) / len(gfns) * 1e6


def _resident(pid: str = "self") -> int:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096


ALONE: tuple[Callable[[], Iterable[Figure]], ...] = (
    tib_guest,
    page_by_page,
    critical_part,
    single_fault,
)


def memory_model(_bench: Bench) -> Iterable[Figure]:
    """Each measurement in a process of its own."""
    for measure in ALONE:
        yield from _in_its_process(measure.__name__)


def _in_its_process(name: str) -> list[Figure]:
    words = [sys.executable, "-m", "tests.bench.mmu", name]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, timeout=300)
    return msgspec.json.decode(done.stdout, type=list[Figure])


def memory_commands(bench: Bench) -> Iterable[Figure]:
    """1 TiB by one write to a control file of a mount, and by another one away again."""
    mount = bench.mount("empty")
    for command in (
        "vm create big irqchip=none",
        "big vcpu add",
        f"big mem ram size={TIB}",
        f"big slot 0 gpa=0 size={TIB} mem=ram",
    ):
        mount.command("kvm/ctl", command)
    for what, command, most in (
        ("mount: 1 TiB touched by one write", f"big vcpu 0 access w 0 n={PAGES}", 10),
        ("mount: its slot deleted by one write", "big slot 0 gpa=0 size=0", 2),
    ):
        start = time.monotonic()
        mount.command("kvm/ctl", command)
        yield Figure(what, time.monotonic() - start, "s", most)
    assert mount.bugs() == 0
    resident = _resident(str(mount.pid)) / (1 << 20)
    yield Figure("mount: resident daemon", resident, "MiB", 300)
    mount.command("kvm/ctl", "vm destroy big")


BENCHMARKS: tuple[Callable[[Bench], Iterable[Figure]], ...] = (memory_model, memory_commands)


def main(names: list[str]) -> int:
    """Those that are named as JSON; without a name all of them as lines, 1 if one is missed."""
    if names:
        named = [measure for measure in ALONE if measure.__name__ in names]
        figures = [figure for measure in named for figure in measure()]
        sys.stdout.buffer.write(msgspec.json.encode(figures))
        return 0
    good = True
    for measure in ALONE:
        for figure in _in_its_process(measure.__name__):
            good = good and figure.good
            mark = "" if figure.good else "  MISSED"
            print(f"{figure.what:40} {figure.value:10.2f} {figure.unit:4} <= {figure.most}{mark}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
