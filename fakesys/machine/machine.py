"""One simulated machine: profile and scenario become models, clock, bus and tree.

`read` and `write` walk the same road as a shell on the mount, in process.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from errno import EAGAIN, EIO, EISDIR, ENOTDIR
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec.structs import asdict, replace

from fakesys.core.clock import Clock
from fakesys.core.errors import Blocked, KernelError
from fakesys.core.features import FeatureSet
from fakesys.core.kernel import Kernel
from fakesys.machine.ap import ApSide, hardware_of
from fakesys.machine.kvm import KvmSide
from fakesys.machine.profiles import (
    AP_KERNELS,
    APICV_KERNELS,
    MMU_KERNELS,
    PROFILES,
    ApicvKernel,
    MmuKernel,
    Profile,
    kernel_of,
    profile_of,
)
from fakesys.machine.scenario import Origin, Scenario, load
from fakesys.machine.tracing import TraceSide
from fakesys.subsystems.ap_control.files import ApKernelChoice
from fakesys.subsystems.apicv.commands import presets as apicv_presets
from fakesys.subsystems.control import files as control_files
from fakesys.subsystems.control.model import Control
from fakesys.subsystems.kvm.files.control import KernelChoice
from fakesys.subsystems.kvm.vm import WatchProcess, watch_no_process
from fakesys.subsystems.selftest import files as selftest_files
from fakesys.subsystems.selftest.model import Selftest
from fakesys.subsystems.tracing.instances.state import state as tracing_state
from fakesys.tree.attr import Layout, Mount
from fakesys.tree.binder import Binder
from fakesys.tree.filesystem import FileSystem
from fakesys.tree.kinds import DEBUGFS
from fakesys.tree.node import Directory, File

if TYPE_CHECKING:
    from fakesys.machine.snapshot import Parts

READ_SIZE = 1 << 20
CTL = "sys/kernel/debug/fakesys/kvm/ctl"
PRESET = "sys/kernel/debug/fakesys/kvm/preset"

T = TypeVar("T")


class Machine:
    """A machine in memory. Raises KernelError for what the kernel would refuse.

    `profile`: `seed`, `6.1` or `6.18`; None: the scenario's, else `seed`.
    `scenario`: name of a shipped one, path of a file, or what `scenario.load` gave.
    `seed`: of the one random generator; None: the scenario's.
    `clock_rate`: simulated seconds per real second, once something paces the clock.
    `lockdown`: debugfs as on a locked-down kernel.
    Raises KernelError for an unknown profile, ScenarioError for an unusable scenario.
    """

    kernel: Kernel
    selftest: Selftest | None
    ap_side: ApSide
    kvm_side: KvmSide
    trace_side: TraceSide

    def __init__(
        self,
        profile: str | None = None,
        scenario: Scenario | str | Path = "default",
        *,
        seed: int | None = None,
        selftest: bool = False,
        clock_rate: float = 1.0,
        lockdown: bool = False,
    ) -> None:
        self.scenario = scenario if isinstance(scenario, Scenario) else load(scenario)
        self._first_profile = profile_of(profile or self.scenario.profile or "seed")
        self._profile: Profile = self._first_profile
        self._with_selftest = selftest or self.scenario.selftest
        self._seed = self.scenario.seed if seed is None else seed
        self._clock_rate = clock_rate
        self._lockdown = lockdown
        self._watch: WatchProcess = watch_no_process
        self.control = Control(self)
        self._build()
        self.binder = Binder(self.kernel.bus, self._features(), self._mounts())
        self.fs = FileSystem(self.binder)
        self.fs.report = self._report
        self.set_lockdown(lockdown)
        self._populate()

    @property
    def clock(self) -> Clock:
        """The simulated time."""
        return self.kernel.clock

    @property
    def profile_name(self) -> str:
        """The chosen profile."""
        return self._profile.name

    @property
    def profile_names(self) -> tuple[str, ...]:
        """The profiles there are."""
        return tuple(PROFILES)

    def set_profile(self, name: str) -> None:
        """Choose another profile. Raises EINVAL, EBUSY while an mdev, guest or VM exists."""
        profile = profile_of(name)
        self.ap_side.system.require_idle()
        self._use(profile)

    def set_ap_kernel(self, name: str) -> None:
        """Let the AP part behave like this kernel. Raises EINVAL, EBUSY while an mdev or guest
        exists.
        """
        self.ap_side.use(kernel_of(AP_KERNELS, name))
        self._profile = replace(self._profile, ap=name)
        self.binder.rebind(self._features(), self._mounts())

    def reset_ap(self) -> None:
        """The AP part as at mount time, guests and mediated devices gone."""
        self.ap_side.system.reset()
        self.set_ap_kernel(self._first_profile.ap)

    def set_mmu_kernel(self, name: str) -> None:
        """Let KVM's memory behave like this kernel. Raises EINVAL, EBUSY while a VM exists."""
        kernel_of(MMU_KERNELS, name)
        self._use(replace(self._profile, mmu=name))

    def set_apicv_kernel(self, name: str) -> None:
        """Let KVM's interrupts behave like this kernel. Raises EINVAL, EBUSY while a VM exists."""
        kernel_of(APICV_KERNELS, name)
        self._use(replace(self._profile, apicv=name))

    def watch_owners(self, watch: WatchProcess) -> None:
        """Who says when the process that owns a VM has ended; by default nobody does."""

        def recorded(pid: int, ended: Callable[[], None]) -> Callable[[], None]:
            return watch(pid, partial(self._owner_ended, ended))

        self._watch = self.kvm_side.kvm.watch = recorded

    def _owner_ended(self, ended: Callable[[], None]) -> None:
        """Do what the end of a process does, and record it as the command that does the same."""
        kvm, recordings = self.kvm_side.kvm, self.control.recordings
        recordings.begin()
        before = tuple(kvm.names)
        ended()
        for name in before:
            if kvm.find(name) is None:
                recordings.write(CTL, f"vm destroy {name}\n".encode())

    def set_lockdown(self, locked: bool) -> None:
        """debugfs as on a locked-down kernel, or not."""
        self.control.lockdown = locked
        self.fs.locked_down = locked

    def faults_changed(self) -> None:
        """Put the gate up while any fault is armed; without one, requests do not pay for it."""
        self.fs.gate = self._gate if self.control.faults.armed else None

    def save(self) -> bytes:
        """The whole machine as a file; `load` takes it."""
        from fakesys.machine import snapshot as machine_snapshot

        return machine_snapshot.save(self)

    def load(self, data: bytes) -> None:
        """Become the machine of a file; open files of the old one are gone.

        Raises EINVAL with the reason for any other data, and stays as it was.
        """
        from fakesys.machine import snapshot as machine_snapshot

        self.take(machine_snapshot.load(self, data))

    def recordings_changed(self) -> None:
        """Tell the recordings of every request while there is one; else requests do not pay."""
        self.fs.recorder = self.control.recordings if self.control.recordings.all else None

    @property
    def origin(self) -> str:
        """The options of `mount` that make such a machine."""
        words = f"--scenario {self.scenario.name} --profile {self._first_profile.name}"
        return f"{words} --seed {self._seed}"

    @property
    def description(self) -> str:
        """What the machine was at its beginning, as one line of JSON."""
        origin = Origin(self.scenario, self._first_profile.name, self._seed)
        return msgspec.json.encode(origin).decode()

    def pinned(self, path: str, text: bytes) -> bytes:
        """The text that means the same whoever writes it: a new VM with its owner."""
        words = text.decode("latin-1").split()
        given = dict(word.partition("=")[::2] for word in words)
        if path == CTL and words[:2] == ["vm", "create"]:
            vm = self.kvm_side.kvm.find(words[2])
        elif path == PRESET:
            vm = self.kvm_side.kvm.find(given.get("name", apicv_presets.NAME.default))
        else:
            return text
        if vm is None or "pid" in given:
            return text
        more = f" pid={vm.pid}" + ("" if "fd" in given else f" fd={vm.fd}")
        return text.rstrip() + more.encode() + b"\n"

    def reset(self) -> None:
        """Everything as at mount time; open files of the old machine are gone."""
        self.kvm_side.kvm.forget_owners()
        self._profile = self._first_profile
        self.control.clear()
        self.set_lockdown(self._lockdown)
        self.faults_changed()
        self._build()
        self.binder.replace(self.kernel.bus, self._features(), self._mounts())
        self._populate()

    def state(self) -> Mapping[str, Any]:
        """The whole machine as a JSON object."""
        control, selftest = self.control, self.selftest
        return {
            "ap": self.ap_side.system.state(),
            "clock": {"rate": self.clock.rate},
            "faults": control.faults.state(),
            "kernels": asdict(self._profile),
            "kvm": self.kvm_side.state(),
            "lockdown": control.lockdown,
            "profile": self.profile_name,
            "seed": control.seed,
            "selftest": None if selftest is None else selftest.state(),
            "tracing": tracing_state(self.trace_side.tracing),
        }

    def parts(self) -> Parts:
        """The models and settings: all that makes this machine differ from another."""
        from fakesys.machine.snapshot import Parts

        control = self.control
        return Parts(
            kernel=self.kernel,
            ap=self.ap_side.system,
            kvm=self.kvm_side.kvm,
            memory=self.kvm_side.memory,
            apicv=self.kvm_side.apicv,
            tracing=self.trace_side.tracing,
            selftest=self.selftest,
            profile=self._profile,
            first_profile=self._first_profile,
            seed=control.seed,
            first_seed=self._seed,
            lockdown=control.lockdown,
            faults=control.faults,
            last_error=control.last_error,
            uevents=control.uevents.kept(),
            log=control.log.kept(),
            scenario=self.scenario,
        )

    def take(self, parts: Parts) -> None:
        """Become the machine with these parts, which were made for this one."""
        self.kvm_side.kvm.forget_owners()
        self.scenario, self._seed = parts.scenario, parts.first_seed
        self._profile, self._first_profile = parts.profile, parts.first_profile
        control = self.control
        control.seed, control.faults, control.last_error = parts.seed, parts.faults, None
        control.uevents.replace(*parts.uevents)
        control.log.replace(*parts.log)
        self.set_lockdown(parts.lockdown)
        self.faults_changed()
        self._install(parts)
        self._with_selftest = parts.selftest is not None
        self.kvm_side.kvm.watch = self._watch
        self.kvm_side.kvm.drop_unheld()
        self.binder.rebind(self._features(), self._mounts())
        control.last_error = parts.last_error

    def _install(self, parts: Parts) -> None:
        self.kernel, self.selftest = parts.kernel, parts.selftest
        self.ap_side = ApSide.around(parts.kernel, AP_KERNELS[self._profile.ap], parts.ap)
        models = parts.kvm, parts.memory, parts.apicv
        self.kvm_side = KvmSide.around(*models, *self._kvm_kernels())
        self.trace_side = TraceSide.around(parts.kernel, parts.tracing)

    def read(self, path: str) -> str:
        """The text of a file, as `cat` prints it. Raises KernelError."""
        return self._guarded(lambda: self._read(path)).decode("latin-1")

    def write(self, path: str, text: str, *, truncate: bool = True) -> int:
        """One write(2) of `text` to a file; the bytes taken. Raises KernelError.

        `truncate`: it is opened as `>` does, else as `>>` does.
        """
        flags = os.O_WRONLY | (os.O_TRUNC if truncate else os.O_APPEND)
        return self._guarded(lambda: self._write(path, text.encode("latin-1"), flags))

    def mkdir(self, path: str) -> None:
        """Make a directory, such as an instance of tracefs. Raises KernelError."""
        folder, _, name = path.rpartition("/")
        self._guarded(lambda: self.fs.mkdir(self.fs.resolve(folder), name))

    def rmdir(self, path: str) -> None:
        """The pair of `mkdir`. Raises KernelError."""
        folder, _, name = path.rpartition("/")
        self._guarded(lambda: self.fs.rmdir(self.fs.resolve(folder), name))

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, in no promised order. Raises KernelError."""
        node = self.fs.resolve(path)
        if not isinstance(node, Directory):
            raise KernelError(ENOTDIR, f"{path} is not a directory")
        return list(node.names())

    def bug(self, error: BaseException) -> None:
        """Keep the traceback of an internal error; the client is answered EIO."""
        self.control.bugs.append("".join(traceback.format_exception(error)))

    def _read(self, path: str) -> bytes:
        node = self._file(path)
        handle = self.fs.open(node, os.O_RDONLY)
        data = bytearray()
        try:
            while piece := self.fs.read(node, handle, len(data), READ_SIZE, nonblock=True):
                data += piece
        except KernelError as refusal:
            # A stream has no end: its text is what is there now.
            if refusal.errno != EAGAIN:
                raise
        finally:
            handle.release()
        return bytes(data)

    def _write(self, path: str, data: bytes, flags: int) -> int:
        node = self._file(path)
        handle = self.fs.open(node, flags)
        try:
            return self.fs.write(node, handle, data, nonblock=True)
        finally:
            handle.release()

    def _file(self, path: str) -> File:
        node = self.fs.resolve(path)
        if not isinstance(node, File):
            raise KernelError(EISDIR, f"{path} is not a file")
        return node

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except KernelError:
            raise
        except Blocked:
            raise KernelError(EAGAIN, "on a mount this call would wait") from None
        except Exception as error:
            self.bug(error)
            raise KernelError(EIO, "internal error, see fakesys/bugs") from error
        finally:
            if not self.fs.served:
                self.fs.settle()

    def _populate(self) -> None:
        """Make the scenario's guests, by the commands that a user would write."""
        with self.control.recordings.unrecorded():
            for vm in self.scenario.kvm.vm:
                options = "".join(f" {key}={value}" for key, value in vm.options.items())
                self.write(CTL, f"vm create {vm.name}{options}\n")
                if vm.vcpus:
                    self.write(CTL, f"{vm.name} vcpu add count={vm.vcpus}\n")
            for text in self.scenario.kvm.preset:
                self.write(PRESET, f"{text}\n")

    def _report(self, node: File, _data: bytes, error: KernelError | None) -> None:
        self.control.record(node.path, error)

    def _gate(self, operation: str, node: File) -> None:
        who = (self.kernel.caller.pid, node.ino)
        self.control.faults.strike(operation, node.path, who, self.clock)

    def _build(self) -> None:
        self.control.seed = self._seed
        self.kernel = Kernel(self._seed)
        self.clock.rate = self._clock_rate
        self.control.uevents.listen(self.kernel.bus)
        self.control.log.listen(self.kernel.bus)
        self.selftest = None
        if self._with_selftest:
            self.selftest = Selftest(self.kernel.bus, self.kernel.devices)
        hardware = hardware_of(self.scenario.ap)
        self.ap_side = ApSide(self.kernel, AP_KERNELS[self._profile.ap], hardware)
        self.kvm_side = KvmSide(self.kernel, *self._kvm_kernels(), self._watch)
        self.trace_side = TraceSide(self.kernel, self._profile.trace, self.kvm_side.features)

    def _kvm_kernels(self) -> tuple[MmuKernel, ApicvKernel]:
        return MMU_KERNELS[self._profile.mmu], APICV_KERNELS[self._profile.apicv]

    def _use(self, profile: Profile) -> None:
        self.kvm_side.kvm.require_idle()
        self._profile = profile
        self.kvm_side.use(*self._kvm_kernels())
        self.ap_side.use(AP_KERNELS[profile.ap])
        self.trace_side.change(profile.trace, self.kvm_side.features)
        self.binder.rebind(self._features(), self._mounts())

    def _kernel_choices(self) -> tuple[KernelChoice, ...]:
        return (
            KernelChoice(
                name="mmu_profile",
                doc="The kernel whose memory management KVM has.",
                get=lambda: self._profile.mmu,
                choose=self.set_mmu_kernel,
            ),
            KernelChoice(
                name="apicv_profile",
                doc="The kernel whose interrupt virtualisation KVM has.",
                get=lambda: self._profile.apicv,
                choose=self.set_apicv_kernel,
            ),
        )

    def _features(self) -> FeatureSet:
        return self.kvm_side.features | self.ap_side.features | self.trace_side.features

    def _ap_mounts(self) -> tuple[Mount, ...]:
        choice = ApKernelChoice(
            names=tuple(AP_KERNELS),
            get=lambda: self._profile.ap,
            choose=self.set_ap_kernel,
            reset=self.reset_ap,
        )
        return self.ap_side.mounts(choice, self.control.uevents, self.control.log)

    def _mounts(self) -> tuple[Mount, ...]:
        mounts: list[Mount] = [
            Mount("sys/kernel/debug", Layout(mode=0o700, kind=DEBUGFS), lambda: self.control),
            *self.trace_side.mounts(),
            *control_files.mounts(self.control, self.ap_side.faults()),
            *self._ap_mounts(),
            *self.kvm_side.mounts(self._kernel_choices()),
        ]
        if self.selftest is not None:
            mounts.extend(selftest_files.mounts(self.selftest, self.kernel.devices))
        return tuple(mounts)
