"""The parameters of NX huge pages in a snapshot, and the recovery threads of VMs."""

from __future__ import annotations

from fakesys.core.clock import SavedTimer
from fakesys.core.saved import U32, U63, Saved, check
from fakesys.subsystems.kvm.saved import Pid
from fakesys.subsystems.kvm.vm import Vm
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory
from fakesys.subsystems.kvm_mmu.vm.nx_huge_pages import NxHugePages, RecoveryThread, worker_task


class SavedThread(Saved, frozen=True):
    """The recovery thread of a VM. `pid`: None before its first recovery."""

    started_ns: U63
    pid: Pid | None
    timer: SavedTimer | None


class SavedNx(Saved, frozen=True):
    """The parameters `nx_huge_pages` (`never` apart), `..._ratio` and `..._period_ms`."""

    on: bool
    never: bool
    ratio: U32
    period_ms: U32


def save_nx(nx: NxHugePages) -> SavedNx:
    """Return what a snapshot holds of the parameters."""
    return SavedNx(on=nx.on, never=nx.never, ratio=nx.ratio, period_ms=nx.period_ms)


def restore_nx(saved: SavedNx, nx: NxHugePages) -> None:
    """Set the parameters, for which no thread exists yet. Raises BadSnapshotError."""
    check(not saved.never or (nx.may_be_off and not saved.on), "nx_huge_pages cannot be `never`")
    nx.on, nx.never = saved.on, saved.never
    nx.ratio, nx.period_ms = saved.ratio, saved.period_ms


def save_thread(nx: NxHugePages, vm: Vm) -> SavedThread | None:
    """Return what a snapshot holds of the thread of a VM."""
    worker = nx.thread(vm)
    if worker is None:
        return None
    return SavedThread(
        started_ns=worker.started_ns,
        pid=None if worker.task is None else worker.task.pid,
        timer=None if worker.timer is None else worker.timer.saved,
    )


def restore_thread(saved: SavedThread | None, nx: NxHugePages, vm: Vm, memory: VmMemory) -> None:
    """Make the thread of a VM. Raises BadSnapshotError. Precondition: `restore_nx`."""
    check((saved is not None) == nx.has_threads, f"the recovery thread of VM {vm.name}")
    if saved is None:
        return
    check((saved.timer is not None) == nx.recovers, f"the recovery timer of VM {vm.name}")
    worker = RecoveryThread(memory, saved.started_ns)
    worker.task = None if saved.pid is None else worker_task(saved.pid)
    nx.restore(vm, worker, saved.timer)
