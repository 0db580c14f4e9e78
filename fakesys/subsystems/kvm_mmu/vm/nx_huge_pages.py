"""The parameter `nx_huge_pages`: a workaround for processors with the iTLB multihit flaw.

Such a processor fails when a page that it fetches from changes its size. Large pages are mapped
without X. A fetch from one maps it in small pages; a thread zaps the oldest of these from time to
time, so that the guest gets large pages back.
Like arch/x86/kvm/mmu/mmu.c:set_nx_huge_pages, kvm_recover_nx_lpages (v6.1).
"""

from __future__ import annotations

from errno import EPERM
from functools import partial
from typing import TYPE_CHECKING

from fakesys.core.clock import SavedTimer, Timer
from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.core.scheduling.resched import SlicedLock, cond_resched, might_lock, might_resched
from fakesys.core.text import kstrtobool, kstrtoull
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.vm import Vm
from fakesys.subsystems.kvm_mmu.shadow.policy import NxRules, ZapFlow

if TYPE_CHECKING:
    from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

# More are zapped in slices.
FEW_VMS = 16
# As far as the kernel's 15 letters go.
WORKER_COMM = "kvm-nx-lpage-re"
# Makes every thread of the kernel.
KTHREADD = Task(pid=2, comm="kthreadd", cpu=0)
RATIO = 60
LARGEST_RATIO = 3600
HOUR_MS = 3_600_000
# A key of the TDP MMU: the number of a root, and below that the gfn.
ROOT_SHIFT = 48


class RecoveryThread:
    """The thread that recovers the large pages of one VM."""

    __slots__ = ("memory", "started_ns", "task", "timer")

    def __init__(self, memory: VmMemory, now_ns: int) -> None:
        self.memory = memory
        self.started_ns = now_ns
        self.timer: Timer | None = None
        self.task: Task | None = None


class NxHugePages:
    """The parameters `nx_huge_pages`, `..._recovery_ratio`, `..._recovery_period_ms`.

    `rules` None: a kernel without the workaround.
    """

    def __init__(self, kvm: Kvm, rules: NxRules | None) -> None:
        self._kvm = kvm
        self._rules = rules
        self._workers: dict[Vm, RecoveryThread] = {}
        # Held while the pages of all VMs are zapped.
        self._kvm_lock = SlicedLock()
        self.on = False
        self.never = False
        self.ratio = RATIO
        self.period_ms = 0

    @property
    def mode(self) -> str:
        """What `nx_huge_pages` reads as, without newline."""
        return "never" if self.never else "Y" if self.on else "N"

    def add(self, vm: Vm, memory: VmMemory) -> None:
        """Add a new VM, with a thread of its own if there may ever be something to recover."""
        memory.arch.nx_on_host = self.on
        if not self.has_threads:
            return
        worker = self._workers[vm] = RecoveryThread(memory, self._kvm.kernel.clock.now_ns)
        self._arm(vm, worker)

    @property
    def has_threads(self) -> bool:
        """Whether a VM that is created now gets a thread."""
        return self._rules is not None and not self.never

    @property
    def recovers(self) -> bool:
        """Whether the threads have timers."""
        return self._period_seconds() is not None

    @property
    def may_be_off(self) -> bool:
        """Whether the kernel has the mode `never`."""
        return self._rules is not None and self._rules.may_be_off

    def thread(self, vm: Vm) -> RecoveryThread | None:
        """Return the thread of a VM, None for a VM without one."""
        return self._workers.get(vm)

    def restore(self, vm: Vm, worker: RecoveryThread, timer: SavedTimer | None) -> None:
        """Add the thread of a VM from a snapshot, with its timer.

        Raises BadSnapshotError for a timer that cannot be.
        """
        self._workers[vm] = worker
        if timer is not None:
            worker.timer = self._kvm.kernel.clock.at(timer, partial(self._recover, vm))

    def remove(self, vm: Vm) -> None:
        """Remove a VM that is destroyed, its thread first."""
        worker = self._workers.pop(vm, None)
        if worker is not None and worker.timer is not None:
            worker.timer.cancel()

    def reset(self) -> None:
        """Have the values of a module that is loaded now. Precondition: there is no VM."""
        self.on = self.never = False
        self.ratio, self.period_ms = RATIO, 0

    def set_mode(self, text: str) -> None:
        """Write to `nx_huge_pages`: off, force, auto, never, or a truth value.

        A change zaps the pages of every VM. Raises EINVAL, EPERM after `never`, and EBUSY for
        `never` while a VM exists.
        """
        self._require_changeable()
        word = text.removesuffix("\n")
        if word == "never" and self._rules is not None and self._rules.may_be_off:
            self._kvm.require_idle()
            self.never, on = True, False
        elif word in ("off", "auto"):
            # `auto`: AMD's processors do not have the flaw.
            on = False
        else:
            on = word == "force" or kstrtobool(text)
        if on == self.on:
            return
        self._might_take_long()
        with self._kvm_lock:
            self.on = on
            for vm, worker in list(reversed(self._workers.items())):
                cond_resched()
                # Destroyed meanwhile?
                if self._workers.get(vm) is worker:
                    self._zap(vm, worker.memory, on)
            self._arm_all()

    def _might_take_long(self) -> None:
        if len(self._workers) > FEW_VMS:
            might_resched()
        might_lock(self._kvm_lock)
        for worker in self._workers.values():
            might_lock(worker.memory.arch.mmu_lock)

    def _zap(self, vm: Vm, memory: VmMemory, on: bool) -> None:
        memory.arch.nx_on_host = on
        memory.lock_slots()
        with self._kvm.in_owner(vm), memory.arch.mmu_lock:
            memory.begin_zap(ZapFlow.FAST).step()

    def set_ratio(self, text: str) -> None:
        """Write to `nx_huge_pages_recovery_ratio`; 0: nothing is recovered.

        Raises EINVAL, ERANGE, and EPERM after `never`.
        """
        self._require_changeable()
        self.ratio = kstrtoull(text, bits=32)
        self._arm_all()

    def set_period(self, text: str) -> None:
        """Write to `nx_huge_pages_recovery_period_ms`; 0: the period follows from the ratio.

        Raises EINVAL, ERANGE, and EPERM after `never`.
        """
        self._require_changeable()
        self.period_ms = kstrtoull(text, bits=32)
        self._arm_all()

    def _require_changeable(self) -> None:
        if self.never:
            raise KernelError(EPERM, "nx_huge_pages is `never` until the module is loaded again")

    def _period_seconds(self) -> float | None:
        """Return the time between two recoveries; None for never.

        Like mmu.c:calc_nx_huge_pages_recovery_period (v6.1).
        """
        if self._rules is None or not self.on or not self.ratio:
            return None
        if not self._rules.period_by_ratio:
            return 60.0
        return (self.period_ms or HOUR_MS // min(self.ratio, LARGEST_RATIO)) / 1000

    def _arm_all(self) -> None:
        for vm, worker in self._workers.items():
            self._arm(vm, worker)

    def _arm(self, vm: Vm, worker: RecoveryThread) -> None:
        if worker.timer is not None:
            worker.timer.cancel()
            worker.timer = None
        period = self._period_seconds()
        if period is None:
            return
        clock = self._kvm.kernel.clock
        passed = (clock.now_ns - worker.started_ns) / 1e9
        worker.timer = clock.after(max(0.0, period - passed), partial(self._recover, vm))

    def _recover(self, vm: Vm) -> None:
        worker, bus = self._workers[vm], self._kvm.kernel.bus
        if worker.task is None:
            worker.task = worker_task(self._kvm.new_thread(vm.pid))
            if bus.scheduler is not None:
                bus.scheduler.fork(KTHREADD, worker.task)
        before, bus.task = bus.task, worker.task
        if bus.scheduler is not None:
            bus.scheduler.begin()
        try:
            assert self._rules is not None
            recover(worker.memory, self.ratio, spares_logged=self._rules.spares_logged)
        finally:
            if bus.scheduler is not None:
                bus.scheduler.sleep(worker.task)
            bus.task = before
        worker.timer = None
        worker.started_ns = self._kvm.kernel.clock.now_ns
        self._arm(vm, worker)


def worker_task(pid: int) -> Task:
    """Return the task of a recovery thread."""
    return Task(pid=pid, comm=WORKER_COMM, cpu=0)


def recover(memory: VmMemory, ratio: int, *, spares_logged: bool) -> None:
    """Zap one in `ratio` of the tables that replace large pages, oldest first.

    `spares_logged`: do not zap those whose slot is logged, because a fault would split them again;
    only stop counting them.
    """
    arch = memory.arch
    zapped: list[int] = []
    flush = False
    with arch.mmu_lock:
        for _ in range(-(-len(arch.nx_splits) // ratio)):
            cond_resched()
            row = next(iter(arch.nx_splits), None)
            if row is None:
                break
            slot = memory.slots.find(_split_gfn(memory, row))
            if spares_logged and slot is not None and slot.logs_dirty:
                arch.unaccount_nx_huge_page(row)
            else:
                flush = True
                _zap_split(memory, row, zapped)
        memory.zapper.commit(zapped)
        if flush and memory.tdp is not None:
            arch.flush_remote_tlbs()


def _split_gfn(memory: VmMemory, split: int) -> int:
    """Return the gfn of a table that replaces a large page: of a row, or a key of the TDP MMU."""
    return _gfn_of(split) if memory.tdp is not None else memory.arch.pages.gfn[split]


def _gfn_of(key: int) -> int:
    return key & (1 << ROOT_SHIFT) - 1


def _zap_split(memory: VmMemory, split: int, zapped: list[int]) -> None:
    if memory.tdp is None:
        memory.zapper.prepare(split, zapped)
    else:
        memory.tdp.zapper.zap_table_of(split >> ROOT_SHIFT, _gfn_of(split))
