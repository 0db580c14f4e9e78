"""Virtual machines and virtual CPUs: what keeps them alive, and what they count.

State only. A Vm tells its register (`model.Kvm`) when it ends, by the protocol `VmRegister`;
KVM_CREATE_VM and KVM_CREATE_VCPU are methods of `Kvm`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum
from errno import ENOENT
from typing import Any, Protocol, TypeVar

from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.core.kernel import Kernel
from fakesys.subsystems.kvm.stats import Scope, Stat, VcpuStats, VmStats

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# Calls back once when a process has ended; the function that it returns cancels that.
WatchProcess = Callable[[int, Callable[[], None]], Callable[[], None]]


def watch_no_process(_pid: int, _ended: Callable[[], None]) -> Callable[[], None]:
    """Report the end of no process: in a machine without a mount, VMs outlive their owners."""
    return nothing_watched


def nothing_watched() -> None:
    """Do nothing: the unsubscribe function where nothing was subscribed."""


class Irqchip(Enum):
    """Where the interrupt controllers of a VM are emulated."""

    NONE = "none"
    SPLIT = "split"
    KERNEL = "kernel"


class VmOption(Protocol[T_co]):
    """An option that an extension adds to the creation of VMs; `default` where it is not given."""

    @property
    def default(self) -> T_co:
        """The value where the option is not given."""


class VmOptions:
    """The options that a VM is created with; each value has the type of its option."""

    __slots__ = ("_given",)

    def __init__(self, given: Mapping[Any, Any] | None = None) -> None:
        self._given = dict(given or {})

    def get(self, option: VmOption[T]) -> T:
        """Return the value of an option, its default if it was not given."""
        value: T = self._given.get(option, option.default)
        return value


class VmRegister(Protocol):
    """What VMs, vCPUs and the state that extensions keep of them need of their KVM."""

    warnings: Counter[str]

    @property
    def kernel(self) -> Kernel:
        """The simulated kernel: bus, clock, log."""

    def warn(self, text: str) -> None:
        """Count a warning that the kernel would raise here."""

    def end_command(self, vm: Vm) -> None:
        """End the command that is still at work on a VM."""

    def forget_name(self, vm: Vm) -> None:
        """Make the VM's name unknown to commands."""

    def remove(self, vm: Vm) -> None:
        """Drop a VM whose last reference is gone."""

    def vcpu_held(self, vcpu: Vcpu) -> None:
        """Tell the extensions that the vCPU's thread stays in user space."""

    def vcpu_closed(self, vcpu: Vcpu) -> None:
        """Tell the extensions that the vCPU's descriptor is closed."""

    def is_in_guest(self, vcpu: Vcpu) -> bool:
        """Return whether an extension has the vCPU in the guest."""


class Vcpu:
    """One virtual CPU: the thread `CPU N/KVM` of the VM's owner.

    `index`: its place in the order of creation. `task`: its thread; set `bus.task` to it around
    what the vCPU does. `last_pid`: the thread that last ran it, 0 before the first run.
    `tsc_offset`: guest TSC minus host TSC.
    """

    __slots__ = ("closed", "id", "index", "last_pid", "stats", "task", "tsc_offset", "vm")

    def __init__(self, vm: Vm, vcpu_id: int, pid: int, cpus: int) -> None:
        self.vm = vm
        self.id = vcpu_id
        self.index = len(vm.vcpus)
        self.stats = VcpuStats()
        self.task = Task(pid, f"CPU {vcpu_id}/KVM", vcpu_id % cpus, group=vm.pid)
        self.closed = False
        self.last_pid = 0
        self.tsc_offset = 0

    @property
    def cpu(self) -> int:
        """The host CPU that the thread is on."""
        return self.task.cpu

    def move_to(self, cpu: int) -> None:
        """Move the thread, which is not running, to another host CPU."""
        scheduler = self.vm.kvm.kernel.bus.scheduler
        if scheduler is not None:
            scheduler.migrate(self.task, cpu)
        self.task = self.task._replace(cpu=cpu)

    def runs(self) -> None:
        """Record that the thread called KVM_RUN."""
        self.last_pid = self.task.pid

    def require_open(self) -> None:
        """Refuse to use a vCPU whose descriptor is closed. Raises ENOENT."""
        if self.closed:
            raise KernelError(ENOENT, f"vCPU {self.id} of {self.vm.name} is closed")

    def hold(self) -> None:
        """Bring the thread back to user space, where it stays until a command runs it again."""
        self.vm.kvm.vcpu_held(self)

    def is_in_guest(self) -> bool:
        """Return whether it runs the guest, so that only a kick makes it notice a request."""
        return self.vm.kvm.is_in_guest(self)

    def close(self) -> None:
        """Close the descriptor. Raises ENOENT when it is closed already."""
        self.require_open()
        self.closed = True
        self.vm.kvm.vcpu_closed(self)
        self.vm.put()


class Vm:
    """One virtual machine. `directory`: its name under `debug/kvm`, None if that was taken.

    It lives as long as there is a reference: its own descriptor, those of its vCPUs, open stat
    files. `group` holds counts of its vCPUs that were booked for all of them at once.
    """

    def __init__(self, kvm: VmRegister, name: str, pid: int, fd: int, irqchip: Irqchip) -> None:
        self.kvm = kvm
        self.name = name
        self.pid = pid
        self.fd = fd
        self.irqchip = irqchip
        self.directory: str | None = None
        self.vcpus: dict[int, Vcpu] = {}
        self.stats = VmStats()
        self.group = VcpuStats()
        # Called before counters are read or cleared, for models that count lazily.
        self.before_read: list[Callable[[], None]] = []
        # Lines of mmu_rmaps_stat; the memory model sets it.
        self.rmaps_stat: Callable[[], str] = str
        self.fd_open = True
        self.dead = False
        self._references = 1
        self._unwatch: Callable[[], None] = nothing_watched

    def count_references(self) -> None:
        """Set the number of references to that of the open descriptors, without open stat files."""
        open_vcpus = sum(not vcpu.closed for vcpu in self.vcpus.values())
        self._references = self.fd_open + open_vcpus

    def watch_owner(self, watch: WatchProcess) -> None:
        """End the VM when its owner ends."""
        self._unwatch = watch(self.pid, self.kill)

    def forget_owner(self) -> None:
        """Cancel `watch_owner`."""
        self._unwatch()
        self._unwatch = nothing_watched

    def get(self) -> None:
        """Take a reference. Raises ENOENT when the VM is gone."""
        if self.dead:
            raise KernelError(ENOENT, f"{self.name} is gone")
        self._references += 1

    def put(self) -> None:
        """Drop a reference; the last one ends the VM. Like kvm_main.c:kvm_put_kvm (v6.1)."""
        self._references -= 1
        if self._references == 0 and not self.dead:
            self.dead = True
            self._unwatch()
            self.kvm.remove(self)
            self._forget_parts()

    def _forget_parts(self) -> None:
        """Let go of what refers to this VM, so that it is freed now and not by a collection."""
        self.vcpus.clear()
        self.before_read.clear()
        self.rmaps_stat = str

    def hold(self) -> Callable[[], None]:
        """Take a reference for an open file; return the function that drops it."""
        self.get()
        return self.put

    def close_fd(self) -> None:
        """Close the VM's own descriptor. Raises ENOENT when it is closed already."""
        if not self.fd_open:
            raise KernelError(ENOENT, f"the descriptor of {self.name} is closed")
        self.fd_open = False
        self.put()

    def kill(self) -> None:
        """Close every descriptor, as the end of the owner does; open stat files keep the VM."""
        self.kvm.end_command(self)
        self.kvm.forget_name(self)
        for vcpu in list(self.vcpus.values()):
            if not vcpu.closed:
                vcpu.close()
        if self.fd_open:
            self.close_fd()

    def vcpu(self, vcpu_id: int) -> Vcpu:
        """Return the vCPU of this id, open or closed. Raises ENOENT."""
        try:
            return self.vcpus[vcpu_id]
        except KeyError:
            raise KernelError(ENOENT, f"{self.name} has no vCPU {vcpu_id}") from None

    def read(self, stat: Stat) -> int:
        """Return what the counter's file shows: for a counter of vCPUs, their sum."""
        self.book()
        if stat.scope is Scope.VM:
            return stat.read(self.stats)
        return stat.read(self.group) + sum(stat.read(vcpu.stats) for vcpu in self.vcpus.values())

    def clear(self, stat: Stat) -> None:
        """Set the counter to 0, a counter of vCPUs in all of them."""
        self.book()
        if stat.scope is Scope.VM:
            stat.clear(self.stats)
            return
        stat.clear(self.group)
        for vcpu in self.vcpus.values():
            stat.clear(vcpu.stats)

    def book(self) -> None:
        """Let the models that count lazily book what is due."""
        for hook in self.before_read:
            hook()
