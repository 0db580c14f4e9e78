"""KVM's virtual machines: who owns them, what keeps them, what they count.

Memory and interrupts are the matter of later models, which join in as `Extension`s.
Knows no text, no path and no command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from errno import EBUSY, EEXIST, EINVAL, ENOENT
from typing import ClassVar

from msgspec import Struct

from fakesys.core.commands import NO_ARGS, Args
from fakesys.core.errors import KernelError
from fakesys.core.events import Changed, Task
from fakesys.core.kernel import Kernel
from fakesys.subsystems.kvm.extension import Extension
from fakesys.subsystems.kvm.params import Params
from fakesys.subsystems.kvm.stats import Scope, Stat, VcpuStats, VmStats

FIRST_FD = 10
PID_MAX = 4194304

# Watches a process: calls back once when it has ended; the result ends the watch.
Watch = Callable[[int, Callable[[], None]], Callable[[], None]]


def watch_nobody(_pid: int, _ended: Callable[[], None]) -> Callable[[], None]:
    """Owners live for ever: for machines that nobody mounted."""
    return no_watch


def no_watch() -> None:
    """The end of a watch that there was not."""


class Irqchip(Enum):
    """Where the interrupt controllers of a VM are."""

    NONE = "none"
    SPLIT = "split"
    KERNEL = "kernel"


class VcpuLimits(Struct, frozen=True):
    """How many vCPUs a VM may have, and which ids: below `ids`. KVM_MAX_VCPUS, .._VCPU_IDS."""

    count: int
    ids: int


# What a VM's owner is called, cut at 15 letters as the kernel does.
OWNER_COMM = "qemu-system-x86"


class Vcpu:
    """One virtual CPU: a thread `CPU N/KVM` of the VM's owner.

    `cpu`: the host CPU that it is on. `last_pid`: the thread that last ran it, 0 before the first
    run. `tsc_offset`: guest TSC minus host TSC.
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
        """The thread is on another host CPU."""
        self.task = self.task._replace(cpu=cpu)

    def runs(self) -> None:
        """KVM_RUN was called."""
        self.last_pid = self.task.pid

    def require_open(self) -> None:
        """Raises ENOENT when the descriptor is closed: nobody can use the vCPU any more."""
        if self.closed:
            raise KernelError(ENOENT, f"vCPU {self.id} of {self.vm.name} is closed")

    def hold(self) -> None:
        """Its thread comes back to user space and stays there."""
        for extension in self.vm.kvm.extensions:
            extension.hold_vcpu(self)

    def is_in_guest(self) -> bool:
        """Would it have to be kicked to notice something?"""
        return any(extension.is_in_guest(self) for extension in self.vm.kvm.extensions)

    def close(self) -> None:
        """Close the descriptor. Raises ENOENT when it is closed."""
        self.require_open()
        self.closed = True
        for extension in self.vm.kvm.extensions:
            extension.close_vcpu(self)
        self.vm.put()


class Vm:
    """One virtual machine. `directory`: its name under `debug/kvm`, None if that was taken.

    It lives as long as anything refers to it: its own descriptor, those of its vCPUs, open
    stat files. `group` holds counts of its vCPUs that were booked for all of them at once.
    """

    def __init__(self, kvm: Kvm, name: str, pid: int, fd: int, irqchip: Irqchip) -> None:
        self.kvm = kvm
        self.name = name
        self.pid = pid
        self.fd = fd
        self.irqchip = irqchip
        self.directory: str | None = None
        self.vcpus: dict[int, Vcpu] = {}
        self.stats = VmStats()
        self.group = VcpuStats()
        # Called before counters are read or cleared: whoever counts lazily books it then.
        self.before_read: list[Callable[[], None]] = []
        # Lines of mmu_rmaps_stat; the memory model sets it.
        self.rmaps_stat: Callable[[], str] = str
        self.fd_open = True
        self.dead = False
        self._references = 1
        self._unwatch: Callable[[], None] = no_watch

    # No process has a descriptor of a VM out of a file: it belongs to whoever loads it.
    UNSAVED: ClassVar = {"_unwatch": lambda: no_watch}

    def after_load(self) -> None:
        """The open stat files of the machine that was saved are none of this one."""
        open_vcpus = sum(not vcpu.closed for vcpu in self.vcpus.values())
        self._references = self.fd_open + open_vcpus

    def forget_owner(self) -> None:
        """Do not end with the owner any more."""
        self._unwatch()
        self._unwatch = no_watch

    def watch_owner(self, watch: Watch) -> None:
        """End the VM when its owner ends."""
        self._unwatch = watch(self.pid, self.kill)

    def get(self) -> None:
        """One more reference. Raises ENOENT when the VM is gone."""
        if self.dead:
            raise KernelError(ENOENT, f"{self.name} is gone")
        self._references += 1

    def put(self) -> None:
        """One reference less; the last one ends the VM."""
        self._references -= 1
        if self._references == 0 and not self.dead:
            self.dead = True
            self._unwatch()
            self.kvm.remove(self)

    def hold(self) -> Callable[[], None]:
        """A reference from an open file; the result gives it back."""
        self.get()
        return self.put

    def close_fd(self) -> None:
        """Close the VM's own descriptor. Raises ENOENT when it is closed."""
        if not self.fd_open:
            raise KernelError(ENOENT, f"the descriptor of {self.name} is closed")
        self.fd_open = False
        self.put()

    def kill(self) -> None:
        """Close every descriptor, as the end of the owner does; open stat files still hold it."""
        self.kvm.forget_name(self)
        for vcpu in list(self.vcpus.values()):
            if not vcpu.closed:
                vcpu.close()
        if self.fd_open:
            self.close_fd()

    def vcpu(self, vcpu_id: int) -> Vcpu:
        """The vCPU of this id, closed or not. Raises ENOENT."""
        try:
            return self.vcpus[vcpu_id]
        except KeyError:
            raise KernelError(ENOENT, f"{self.name} has no vCPU {vcpu_id}") from None

    def read(self, stat: Stat) -> int:
        """What the counter's file shows: of a vCPU's counter the sum."""
        self.book()
        if stat.scope is Scope.VM:
            return stat.read(self.stats)
        return stat.read(self.group) + sum(stat.read(vcpu.stats) for vcpu in self.vcpus.values())

    def clear(self, stat: Stat) -> None:
        """Set the counter to 0, of a vCPU's counter for all vCPUs."""
        self.book()
        if stat.scope is Scope.VM:
            stat.clear(self.stats)
            return
        stat.clear(self.group)
        for vcpu in self.vcpus.values():
            stat.clear(vcpu.stats)

    def book(self) -> None:
        """Let everybody who counts lazily book what is due."""
        for hook in self.before_read:
            hook()


class KvmDevice:
    """The character device /dev/kvm, which sends the uevents of VMs."""

    devpath = "/devices/virtual/misc/kvm"
    subsystem = "misc"

    def uevent_env(self) -> Mapping[str, str]:
        """As drivers/base/core.c:dev_uevent fills it in."""
        return {"MAJOR": "10", "MINOR": "232", "DEVNAME": "kvm"}

    def listed_in(self) -> Iterable[object]:
        """In no directory."""
        return ()


class Kvm:
    """All virtual machines of the host.

    `directories`: those that have one under `debug/kvm`. `watch`: says when an owner has ended;
    `daemon`: the pid of this very process, whose VMs are not watched.
    `extensions`: the models of memory and interrupts. `last`: what the last command said.
    """

    # Watching is the business of the process that has the machine.
    UNSAVED: ClassVar = {"watch": lambda: watch_nobody}

    def __init__(
        self,
        kernel: Kernel,
        params: Params,
        *,
        daemon: Callable[[], int],
        watch: Watch = watch_nobody,
        cpus: int = 256,
    ) -> None:
        self.kernel = kernel
        self.params = params
        self.limits = VcpuLimits(count=1024, ids=4096)
        self.extensions: tuple[Extension, ...] = ()
        self.vms: list[Vm] = []
        self.directories: dict[str, Vm] = {}
        self.warnings: Counter[str] = Counter()
        self.last = ""
        self.created = 0
        self.reserved_names: frozenset[str] = frozenset()
        self._daemon = daemon
        self._home = daemon()
        self.watch = watch
        self._cpus = cpus
        self._named: dict[str, Vm] = {}
        self._device = KvmDevice()
        self._next_thread: dict[int, int] = {}

    @property
    def names(self) -> Iterable[str]:
        """What the VMs are called in commands."""
        return self._named

    def find(self, name: str) -> Vm | None:
        """The VM of this name, None when there is none."""
        return self._named.get(name)

    def vm(self, name: str) -> Vm:
        """The VM of this name. Raises ENOENT."""
        vm = self._named.get(name)
        if vm is None:
            raise KernelError(ENOENT, f"there is no VM {name!r}")
        return vm

    @contextmanager
    def in_owner(self, vm: Vm) -> Iterator[None]:
        """What happens inside, the process does that owns the VM: events are its."""
        bus = self.kernel.bus
        before, bus.task = bus.task, Task(pid=vm.pid, comm=OWNER_COMM, cpu=0)
        try:
            yield
        finally:
            bus.task = before

    def require_idle(self) -> None:
        """Raises EBUSY while a VM exists."""
        if self.vms:
            raise KernelError(EBUSY, f"{len(self.vms)} VMs exist")

    def create_vm(
        self,
        name: str,
        *,
        pid: int = 0,
        fd: int = 0,
        irqchip: Irqchip = Irqchip.KERNEL,
        args: Args = NO_ARGS,
    ) -> Vm:
        """KVM_CREATE_VM by process `pid` (0: the caller), which gets descriptor `fd` (0: free one).

        `args`: the options of the extensions. Raises EEXIST for a name in use or a descriptor
        that is a living VM's, EINVAL for a name that cannot be one.
        Like virt/kvm/kvm_main.c:kvm_dev_ioctl_create_vm (v6.1).
        """
        if name in self._named:
            raise KernelError(EEXIST, f"{name} exists")
        if name in self.reserved_names or not _is_name(name):
            raise KernelError(EINVAL, f"{name!r} cannot be the name of a VM")
        pid = pid or self.kernel.caller.pid or self._daemon()
        taken = {vm.fd for vm in self.vms if vm.pid == pid and vm.fd_open}
        if fd in taken:
            raise KernelError(EEXIST, f"descriptor {fd} of process {pid} is a VM")
        for extension in self.extensions:
            extension.check_vm(args)
        vm = Vm(self, name, pid, fd or _lowest_free(taken), irqchip)
        self._add(vm, args)
        return vm

    def _add(self, vm: Vm, args: Args) -> None:
        self._named[vm.name] = vm
        self.vms.append(vm)
        self._make_directory(vm)
        with self.in_owner(vm):
            for extension in self.extensions:
                extension.add_vm(vm, args)
        self.created += 1
        self.kernel.bus.emit(Changed((self,)))
        self._tell("create", vm)
        if vm.pid != self._daemon():
            vm.watch_owner(self.watch)

    def forget_owners(self) -> None:
        """All of this is given up: the end of an owner does not matter any more."""
        for vm in self.vms:
            vm.forget_owner()

    def drop_unheld(self) -> None:
        """Remove the VMs to which nothing refers: open files alone held them where they were."""
        for vm in list(self.vms):
            vm.get()
            vm.put()

    def remove(self, vm: Vm) -> None:
        """The last reference to a VM is gone. Like kvm_main.c:kvm_destroy_vm (v6.1)."""
        self.forget_name(vm)
        self.vms.remove(vm)
        self._tell("destroy", vm)
        with self.in_owner(vm):
            for extension in self.extensions:
                extension.remove_vm(vm)
        if vm.directory is not None:
            del self.directories[vm.directory]
        self.kernel.bus.emit(Changed((self,)))

    def forget_name(self, vm: Vm) -> None:
        """Commands can no longer name it."""
        if self._named.get(vm.name) is vm:
            del self._named[vm.name]
            self.kernel.bus.emit(Changed((self,)))

    def create_irqchip(self, vm: Vm) -> None:
        """KVM_CREATE_IRQCHIP. Raises EEXIST when there is one, else EINVAL when a vCPU exists."""
        if vm.irqchip is not Irqchip.NONE:
            raise KernelError(EEXIST, f"{vm.name} has an irqchip")
        if vm.vcpus:
            raise KernelError(EINVAL, f"{vm.name} has vCPUs already")
        for extension in self.extensions:
            extension.check_irqchip(vm)
        vm.irqchip = Irqchip.KERNEL
        for extension in self.extensions:
            extension.add_irqchip(vm)

    def create_vcpus(self, vm: Vm, *, count: int = 1, first_id: int | None = None) -> list[Vcpu]:
        """KVM_CREATE_VCPU, `count` times with ascending ids; all or none.

        Raises EINVAL for an id or number above the limits, EEXIST for an id in use (an id stays in
        use after its descriptor is closed). Like kvm_main.c:kvm_vm_ioctl_create_vcpu (v6.1).
        """
        ids = self._ids(vm, count, first_id)
        if ids and ids[-1] >= self.limits.ids:
            raise KernelError(EINVAL, f"vCPU id {ids[-1]} is not below {self.limits.ids}")
        if len(vm.vcpus) + len(ids) > self.limits.count:
            raise KernelError(EINVAL, f"more than {self.limits.count} vCPUs")
        for extension in self.extensions:
            for vcpu_id in ids:
                extension.check_vcpu(vm, vcpu_id)
        for vcpu_id in ids:
            if vcpu_id in vm.vcpus:
                raise KernelError(EEXIST, f"{vm.name} has a vCPU {vcpu_id}")
        vcpus = [self._add_vcpu(vm, vcpu_id) for vcpu_id in ids]
        self.kernel.bus.emit(Changed((vm,)))
        return vcpus

    def read(self, stat: Stat) -> int:
        """The sum over all VMs."""
        return sum(vm.read(stat) for vm in self.vms)

    def clear(self, stat: Stat) -> None:
        """Set a counter to 0 in every VM."""
        for vm in self.vms:
            vm.clear(stat)

    def warn(self, text: str) -> None:
        """A warning that the kernel would have raised here: counted, logged once."""
        self.warnings[text] += 1
        if self.warnings[text] == 1:
            self.kernel.log(text)

    def forked(self) -> None:
        """This process is another one now: VMs of the former belong to it."""
        before, self._home = self._home, self._daemon()
        for vm in [vm for vm in self.vms if vm.pid == before != self._home]:
            vm.pid = self._home
            for vcpu in vm.vcpus.values():
                vcpu.task = vcpu.task._replace(pid=self.new_thread(vm.pid))
            if vm.directory is not None:
                del self.directories[vm.directory]
                self._make_directory(vm)
        self.kernel.bus.emit(Changed((self,)))

    def _ids(self, vm: Vm, count: int, first_id: int | None) -> list[int]:
        if first_id is not None:
            return list(range(first_id, first_id + count))
        free: list[int] = []
        candidate = 0
        while len(free) < count:
            if candidate not in vm.vcpus:
                free.append(candidate)
            candidate += 1
        return free

    def _add_vcpu(self, vm: Vm, vcpu_id: int) -> Vcpu:
        vcpu = Vcpu(vm, vcpu_id, self.new_thread(vm.pid), self._cpus)
        vm.get()
        vm.vcpus[vcpu_id] = vcpu
        for extension in self.extensions:
            extension.add_vcpu(vcpu)
        return vcpu

    def new_thread(self, pid: int) -> int:
        """A thread id in the range of the owner's; never one that a vCPU had before."""
        thread = self._next_thread.get(pid, pid) + 1
        self._next_thread[pid] = thread
        return thread % PID_MAX

    def _make_directory(self, vm: Vm) -> None:
        name = f"{vm.pid}-{vm.fd}"
        if name in self.directories:
            self.kernel.log(f"KVM: debugfs: duplicate directory {name}")
            return
        vm.directory = name
        self.directories[name] = vm

    def _tell(self, event: str, vm: Vm) -> None:
        """The uevent of a VM. Like kvm_main.c:kvm_uevent_notify_change (v6.1)."""
        extra = {
            "CREATED": str(self.created),
            "COUNT": str(len(self.vms)),
            "EVENT": event,
            "PID": str(vm.pid),
        }
        if vm.directory is not None:
            extra["STATS_PATH"] = f"/kvm/{vm.directory}"
        self.kernel.devices.change(self._device, extra)


def _lowest_free(taken: set[int]) -> int:
    fd = FIRST_FD
    while fd in taken:
        fd += 1
    return fd


def _is_name(name: str) -> bool:
    return name.replace("_", "").replace("-", "").replace(".", "").isalnum() and name.isascii()
