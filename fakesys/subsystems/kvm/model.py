"""The register of all virtual machines: KVM_CREATE_VM, KVM_CREATE_VCPU, owners and uevents.

Memory (`kvm_mmu`) and interrupts (`apicv`) are separate models that register as `Extension`s.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from errno import EBUSY, EEXIST, EINVAL, ENOENT

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.events import Changed, Task
from fakesys.core.kernel import Kernel
from fakesys.core.scheduling.later import Later
from fakesys.core.scheduling.resched import cond_resched, might_resched
from fakesys.subsystems.kvm.extension import Extension
from fakesys.subsystems.kvm.params import Params
from fakesys.subsystems.kvm.running import RunningCommands
from fakesys.subsystems.kvm.stats import Stat
from fakesys.subsystems.kvm.vm import (
    Irqchip,
    Vcpu,
    Vm,
    VmOptions,
    WatchProcess,
    watch_no_process,
)

FIRST_FD = 10
PID_MAX = 4194304
# More are made in slices.
FEW_VCPUS = 32


class VcpuLimits(Struct, frozen=True):
    """How many vCPUs a VM may have, and the limit of ids: KVM_MAX_VCPUS, KVM_MAX_VCPU_IDS."""

    count: int
    ids: int


# The name of a VM's owner, cut at 15 letters as the kernel does.
OWNER_COMM = "qemu-system-x86"


class KvmDevice:
    """The character device /dev/kvm, which sends the uevents of VMs."""

    devpath = "/devices/virtual/misc/kvm"
    subsystem = "misc"

    def uevent_env(self) -> Mapping[str, str]:
        """Return what drivers/base/core.c:dev_uevent fills in."""
        return {"MAJOR": "10", "MINOR": "232", "DEVNAME": "kvm"}

    def listed_in(self) -> Iterable[object]:
        """Return nothing: no simulated directory shows it."""
        return ()


class Kvm:
    """All virtual machines of the host, and the operations that create and end them.

    `directories`: the VMs that have one under `debug/kvm`. `watch`: reports the end of an owner.
    `daemon`: returns the pid of this process, whose own VMs are not watched.
    `last`: result of the last command.
    `last_threads`: by owner, the number of the last thread that it made, not wrapped.
    `commands`: those that are at work.
    """

    def __init__(
        self,
        kernel: Kernel,
        params: Params,
        *,
        daemon: Callable[[], int],
        watch: WatchProcess = watch_no_process,
        cpus: int = 256,
    ) -> None:
        self.kernel = kernel
        self.params = params
        self.limits = VcpuLimits(count=1024, ids=4096)
        self.vms: list[Vm] = []
        self.directories: dict[str, Vm] = {}
        self.warnings: Counter[str] = Counter()
        self.last = ""
        self.commands = RunningCommands()
        self.created = 0
        # Whether the module of the processor is loaded.
        self.is_loaded: Callable[[], bool] = lambda: True
        self.extend(tuple)
        self._daemon = daemon
        self._home = daemon()
        self.watch = watch
        self._cpus = cpus
        self._named: dict[str, Vm] = {}
        self._device = KvmDevice()
        self.last_threads: dict[int, int] = {}

    def extend(
        self,
        extensions: Callable[[], tuple[Extension, ...]],
        reserved_names: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """Have these extensions, which are made when the first VM is.

        `reserved_names`: the words that no VM may be named by. Precondition: there is no VM.
        """
        self._extensions = Later(extensions)
        self._reserved_names = reserved_names

    @property
    def extensions(self) -> tuple[Extension, ...]:
        """The models of memory and interrupts."""
        return self._extensions()

    @property
    def names(self) -> Iterable[str]:
        """The names of the VMs in commands."""
        return self._named

    def find(self, name: str) -> Vm | None:
        """Return the VM of this name, None when there is none."""
        return self._named.get(name)

    def vm(self, name: str) -> Vm:
        """Return the VM of this name. Raises ENOENT."""
        vm = self._named.get(name)
        if vm is None:
            raise KernelError(ENOENT, f"there is no VM {name!r}")
        return vm

    def is_name(self, name: str) -> bool:
        """Return whether a VM can have this name: no command begins with it."""
        return name not in self._reserved_names() and _is_name(name)

    @contextmanager
    def in_owner(self, vm: Vm) -> Iterator[None]:
        """Let events inside the `with` block happen in the process that owns the VM."""
        bus = self.kernel.bus
        before, bus.task = bus.task, owner_of(vm)
        try:
            yield
        finally:
            bus.task = before

    def require_idle(self) -> None:
        """Refuse while a VM exists. Raises EBUSY."""
        if self.vms:
            raise KernelError(EBUSY, f"{len(self.vms)} VMs exist")

    def create_vm(
        self,
        name: str,
        *,
        pid: int = 0,
        fd: int = 0,
        irqchip: Irqchip = Irqchip.KERNEL,
        options: VmOptions | None = None,
    ) -> Vm:
        """Do KVM_CREATE_VM for process `pid` (0: the caller) at descriptor `fd` (0: a free one).

        `options`: those of the extensions. Raises ENOENT while the module is not loaded, EEXIST
        for a name in use or a descriptor that is a living VM's, EINVAL for a name that no VM can
        have, and what the extensions refuse with. Like
        virt/kvm/kvm_main.c:kvm_dev_ioctl_create_vm (v6.1).
        """
        if not self.is_loaded():
            raise KernelError(ENOENT, "kvm_amd is not loaded, so there is no /dev/kvm")
        if name in self._named:
            raise KernelError(EEXIST, f"{name} exists")
        if not self.is_name(name):
            raise KernelError(EINVAL, f"{name!r} cannot be the name of a VM")
        pid = pid or self.kernel.caller.pid or self._daemon()
        taken = {vm.fd for vm in self.vms if vm.pid == pid and vm.fd_open}
        if fd in taken:
            raise KernelError(EEXIST, f"descriptor {fd} of process {pid} is a VM")
        options = options or VmOptions()
        for extension in self.extensions:
            extension.check_vm(irqchip, options)
        vm = Vm(self, name, pid, fd or _lowest_free(taken), irqchip)
        self._add(vm, options)
        return vm

    def _add(self, vm: Vm, options: VmOptions) -> None:
        self._named[vm.name] = vm
        self.vms.append(vm)
        self._make_directory(vm)
        with self.in_owner(vm):
            for extension in self.extensions:
                extension.add_vm(vm, options)
        self.created += 1
        self.kernel.bus.emit(Changed((self,)))
        self._send_uevent("create", vm)
        if vm.pid != self._daemon():
            vm.watch_owner(self.watch)

    def restore(self, vm: Vm, *, named: bool) -> None:
        """Add a VM of a snapshot. There is no event, and the extensions are not told.

        Precondition: its name, if it is `named`, and its directory are free.
        """
        self.vms.append(vm)
        if named:
            self._named[vm.name] = vm
        if vm.directory is not None:
            self.directories[vm.directory] = vm

    def forget_owners(self) -> None:
        """Stop watching the owners of all VMs, because the machine is given up."""
        for vm in self.vms:
            vm.forget_owner()

    def drop_unheld(self) -> None:
        """Remove the VMs without a reference: before the load only open files held them."""
        for vm in list(self.vms):
            vm.get()
            vm.put()

    def remove(self, vm: Vm) -> None:
        """Drop a VM whose last reference is gone. Like kvm_main.c:kvm_destroy_vm (v6.1)."""
        self.forget_name(vm)
        self.vms.remove(vm)
        self._send_uevent("destroy", vm)
        with self.in_owner(vm):
            for extension in self.extensions:
                extension.remove_vm(vm)
        if vm.directory is not None:
            del self.directories[vm.directory]
        self.kernel.bus.emit(Changed((self,)))

    def end_command(self, vm: Vm) -> None:
        """End the command that is still at work on a VM."""
        if self._named.get(vm.name) is vm:
            self.commands.end(vm.name)

    def forget_name(self, vm: Vm) -> None:
        """Make the VM's name unknown to commands."""
        if self._named.get(vm.name) is vm:
            del self._named[vm.name]
            self.kernel.bus.emit(Changed((self,)))

    def create_irqchip(self, vm: Vm) -> None:
        """Do KVM_CREATE_IRQCHIP. Raises EEXIST when there is one, EINVAL when a vCPU exists."""
        if vm.irqchip is not Irqchip.NONE:
            raise KernelError(EEXIST, f"{vm.name} has an irqchip")
        if vm.vcpus:
            raise KernelError(EINVAL, f"{vm.name} has vCPUs already")
        for extension in self.extensions:
            extension.check_irqchip(vm)
        vm.irqchip = Irqchip.KERNEL
        for extension in self.extensions:
            extension.add_irqchip(vm)

    def create_vcpus(
        self, vm: Vm, *, count: int = 1, first_id: int | None = None, start: bool = True
    ) -> list[Vcpu]:
        """Do KVM_CREATE_VCPU `count` times with ascending ids; all or none. Then `start` them.

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
        if len(ids) > FEW_VCPUS:
            might_resched()
        vcpus = []
        for vcpu_id in ids:
            cond_resched()
            vcpus.append(self._add_vcpu(vm, vcpu_id, start=start))
        self.kernel.bus.emit(Changed((vm,)))
        return vcpus

    def vcpu_held(self, vcpu: Vcpu) -> None:
        """Tell the extensions that the vCPU's thread stays in user space."""
        for extension in self.extensions:
            extension.hold_vcpu(vcpu)

    def vcpu_closed(self, vcpu: Vcpu) -> None:
        """Tell the extensions that the vCPU's descriptor is closed."""
        for extension in self.extensions:
            extension.close_vcpu(vcpu)
        if self.kernel.bus.scheduler is not None:
            self.kernel.bus.scheduler.exit(vcpu.task)

    def is_in_guest(self, vcpu: Vcpu) -> bool:
        """Return whether an extension has the vCPU in the guest."""
        return any(extension.is_in_guest(vcpu) for extension in self.extensions)

    def read(self, stat: Stat) -> int:
        """Return the sum of a counter over all VMs."""
        return sum(vm.read(stat) for vm in self.vms)

    def clear(self, stat: Stat) -> None:
        """Set a counter to 0 in every VM."""
        for vm in self.vms:
            vm.clear(stat)

    def warn(self, text: str) -> None:
        """Count a warning that the kernel would raise here; log its first occurrence."""
        self.warnings[text] += 1
        if self.warnings[text] == 1:
            self.kernel.log(text)

    def forked(self) -> None:
        """Move the VMs of the process before the fork to this one: pids, threads, directories."""
        before, self._home = self._home, self._daemon()
        for vm in [vm for vm in self.vms if vm.pid == before != self._home]:
            vm.pid = self._home
            for vcpu in vm.vcpus.values():
                vcpu.task = vcpu.task._replace(pid=self.new_thread(vm.pid))
            if vm.directory is not None:
                del self.directories[vm.directory]
                vm.directory = None
                self._make_directory(vm)
        # As always, the directories are in the order in which their VMs were created.
        found = {vm.directory: vm for vm in self.vms if vm.directory is not None}
        self.directories.clear()
        self.directories.update(found)
        self.kernel.bus.emit(Changed((self,)))

    def new_thread(self, pid: int) -> int:
        """Return a thread id in the range of the owner's that no vCPU had before."""
        thread = self.last_threads.get(pid, pid) + 1
        self.last_threads[pid] = thread
        return thread % PID_MAX

    def _ids(self, vm: Vm, count: int, first_id: int | None) -> list[int]:
        if first_id is not None:
            return list(range(first_id, first_id + count))
        free = (vcpu_id for vcpu_id in itertools.count() if vcpu_id not in vm.vcpus)
        return list(itertools.islice(free, count))

    def _add_vcpu(self, vm: Vm, vcpu_id: int, *, start: bool) -> Vcpu:
        vcpu = Vcpu(vm, vcpu_id, self.new_thread(vm.pid), self._cpus)
        vm.get()
        vm.vcpus[vcpu_id] = vcpu
        if self.kernel.bus.scheduler is not None:
            self.kernel.bus.scheduler.fork(owner_of(vm), vcpu.task)
        for extension in self.extensions:
            extension.add_vcpu(vcpu, start=start)
        return vcpu

    def _make_directory(self, vm: Vm) -> None:
        name = f"{vm.pid}-{vm.fd}"
        if name in self.directories:
            self.kernel.log(f"KVM: debugfs: duplicate directory {name}")
            return
        vm.directory = name
        self.directories[name] = vm

    def _send_uevent(self, event: str, vm: Vm) -> None:
        """Send the uevent of a VM. Like kvm_main.c:kvm_uevent_notify_change (v6.1)."""
        extra = {
            "CREATED": str(self.created),
            "COUNT": str(len(self.vms)),
            "EVENT": event,
            "PID": str(vm.pid),
        }
        if vm.directory is not None:
            extra["STATS_PATH"] = f"/kvm/{vm.directory}"
        self.kernel.devices.change(self._device, extra)


def owner_of(vm: Vm) -> Task:
    """Return the process that owns a VM, as a task."""
    return Task(pid=vm.pid, comm=OWNER_COMM, cpu=0)


def _lowest_free(taken: set[int]) -> int:
    return next(fd for fd in itertools.count(FIRST_FD) if fd not in taken)


def _is_name(name: str) -> bool:
    return name.replace("_", "").replace("-", "").replace(".", "").isalnum() and name.isascii()
