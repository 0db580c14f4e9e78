"""One simulated machine: profile and scenario become models, clock, bus and tree.

`Machine.read` and `Machine.write` go the way of a shell's calls on the mount, in process.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from errno import ECANCELED
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakesys.core.clock import Clock
from fakesys.core.errors import KernelError
from fakesys.core.kernel import Kernel
from fakesys.core.scheduling.resched import cond_resched_killable
from fakesys.core.text import LONGEST_QUOTE, one_line
from fakesys.machine.hardware import ScenarioError, guest_commands, refusals_name
from fakesys.machine.kernel_choices import KernelChoices
from fakesys.machine.profiles import profile_of
from fakesys.machine.recorded import RecordedMachine, recorded_watch
from fakesys.machine.scenario import Origin, Scenario, load
from fakesys.machine.subsystems import Subsystems, built
from fakesys.machine.system_calls import CallHooks, SystemCalls
from fakesys.machine.tracing import HostTasks
from fakesys.subsystems.control import files as control_files
from fakesys.subsystems.control.model import Control
from fakesys.subsystems.kvm.vm import WatchProcess, watch_no_process
from fakesys.subsystems.selftest import files as selftest_files
from fakesys.tree.attr import Layout, Mount
from fakesys.tree.binder import Binder
from fakesys.tree.filesystem import FileSystem
from fakesys.tree.kinds import DEBUGFS
from fakesys.tree.node import File

if TYPE_CHECKING:
    from fakesys.machine.timeline import Timeline


# Of the traceback of an internal error, the calls that are kept.
LAST_CALLS = 50


class Machine:
    """A machine in memory. Raises KernelError for what the kernel would refuse.

    `profile`: `seed`, `6.1`, `6.12` or `6.18`; None: the scenario's, else `seed`.
    `scenario`: name of a shipped one, path of a file, or what `scenario.load` gave.
    `seed`: of the one random generator; None: the scenario's.
    `selftest`: with the toy subsystem, which a scenario can ask for too.
    `clock_rate`: simulated seconds per real second, once something paces the clock.
    `lockdown`: debugfs as on a locked-down kernel.
    Raises KernelError for an unknown profile, ScenarioError for an unusable scenario.

        machine = Machine("6.1")
        machine.write("sys/bus/ap/apmask", "-4")
        assert machine.read("sys/bus/ap/apmask").startswith("0xf7ff")
    """

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
        start = scenario if isinstance(scenario, Scenario) else load(scenario)
        first = profile_of(profile or start.profile or "seed")
        self.origin = Origin(start, first.name, start.seed if seed is None else seed)
        self.timeline: Timeline | None = None
        self._with_selftest = selftest or start.selftest
        self._clock_rate, self._lockdown = clock_rate, lockdown
        self._watch: WatchProcess = watch_no_process
        self.kernels, self.recorded = KernelChoices(self), RecordedMachine(self)
        self.control = Control(self)
        self.subsystems = self._built()
        self.fs = FileSystem(Binder(self.kernel.bus, self.subsystems.features, self._mounts()))
        self.fs.report = partial(_report, self.control)
        self.calls, self._system_calls = CallHooks(self.fs), SystemCalls(self.fs, self.bug)
        self.control.set_lockdown(lockdown)
        try:
            self._make_guests()
        except KernelError as refusal:
            where = "" if isinstance(scenario, Scenario) else f"{one_line(str(scenario))}: "
            raise ScenarioError(where + one_line(refusal.why, LONGEST_QUOTE)) from None

    @property
    def scenario(self) -> Scenario:
        """What the machine was made from."""
        return self.origin.scenario

    @property
    def kernel(self) -> Kernel:
        """What all models share: clock, bus, devices, chance. A reset makes another one."""
        return self.subsystems.kernel

    @property
    def clock(self) -> Clock:
        """The simulated time."""
        return self.subsystems.kernel.clock

    @property
    def profile_name(self) -> str:
        """The chosen profile."""
        return self.kernels.profile_name

    def read(self, path: str) -> str:
        """Return the text of a file, as `cat` prints it. Raises KernelError."""
        return self._system_calls.read(path).decode("latin-1")

    def write(self, path: str, text: str, *, truncate: bool = True) -> int:
        """Write `text` to a file by one write(2); return the bytes taken. Raises KernelError.

        `truncate`: the file is opened as `>` does, else as `>>` does.
        """
        flags = os.O_TRUNC if truncate else os.O_APPEND
        return self._system_calls.write(path, text.encode("latin-1"), flags)

    def mkdir(self, path: str) -> None:
        """Make a directory, such as an instance of tracefs. Raises KernelError."""
        self._system_calls.mkdir(path)

    def rmdir(self, path: str) -> None:
        """Remove a directory that `mkdir` made. Raises KernelError."""
        self._system_calls.rmdir(path)

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory, in any order. Raises KernelError."""
        return self._system_calls.listdir(path)

    def state(self) -> Mapping[str, Any]:
        """Return the whole machine as plain data, for JSON."""
        return dict(sorted({**self.control.state(), **self.subsystems.state()}.items()))

    def save(self) -> bytes:
        """Return the whole machine as a file, which `load` takes; nothing changes."""
        from fakesys.machine import snapshot

        return snapshot.save(self)

    def load(self, data: bytes) -> None:
        """Become the machine of a file; open files of the old one are gone.

        Raises EINVAL with the reason for any other data, and stays as it was.
        """
        from fakesys.machine import snapshot

        loaded = snapshot.load(data, self)
        cond_resched_killable()
        self.fs.end_calls(KernelError(ECANCELED, "another machine was loaded meanwhile"))
        self.fs.forget_begun()
        self.subsystems.kvm.kvm.forget_owners()
        self.origin, self._with_selftest = loaded.origin, loaded.models.selftest is not None
        self.subsystems, self.timeline = loaded.models, loaded.timeline
        loaded.show_in(self.control)
        kvm = self.subsystems.kvm.kvm
        kvm.watch = self._watch
        kvm.drop_unheld()
        self.fs.binder.replace(self.kernel.bus, self.subsystems.features, self._mounts())

    def reset(self) -> None:
        """Make everything as at mount time; open files of the old machine are gone."""
        self.fs.end_calls(KernelError(ECANCELED, "the machine was reset meanwhile"))
        self.fs.forget_begun()
        self.subsystems.kvm.kvm.forget_owners()
        self.control.clear()
        self.control.set_lockdown(self._lockdown)
        self.subsystems = self._built()
        self.timeline = None
        self.fs.binder.replace(self.kernel.bus, self.subsystems.features, self._mounts())
        self._make_guests()

    def rebind(self) -> None:
        """Show the files of the models and kernels of now."""
        self.fs.binder.rebind(self.subsystems.features, self._mounts())

    def watch_owners(self, watch: WatchProcess) -> None:
        """Let `watch` tell when the owner of a VM has ended; by default no process is watched."""
        self._watch = recorded_watch(watch, self, self.control.recordings)
        self.subsystems.kvm.kvm.watch = self._watch

    def bug(self, error: BaseException) -> None:
        """Keep the traceback of an internal error, to which the client gets EIO."""
        # The last calls say where it was; a recursion without end has a thousand of them.
        lines = traceback.format_exception(error, limit=-LAST_CALLS)
        self.control.bugs.append("".join(lines))

    def _built(self) -> Subsystems:
        """Models as at mount time, heard by the journals from the first device on."""
        origin = self.origin
        kernel = Kernel(origin.seed)
        kernel.clock.rate = self._clock_rate
        self.control.begin(kernel, origin.seed)
        profile = profile_of(origin.profile)
        selftest = self._with_selftest
        watch, processes = self._watch, HostTasks()
        return built(kernel, profile, origin.scenario, watch, processes, selftest=selftest)

    def _make_guests(self) -> None:
        """Make the scenario's guests, by the commands that a user would write."""
        with self.control.recordings.unrecorded():
            for key, path, text in guest_commands(self.scenario.kvm):
                with refusals_name(key):
                    self.write(path, text)

    def _mounts(self) -> tuple[Mount, ...]:
        control, models = self.control, self.subsystems
        toy = models.selftest
        return (
            Mount("sys/kernel/debug", Layout(mode=0o700, kind=DEBUGFS), lambda: control),
            *models.tracing.mounts(),
            *control_files.mounts(control, models.ap.faults()),
            *models.ap.mounts(self.kernels.of_ap(), control.uevents, control.log),
            *models.kvm.mounts(self.kernels.of_kvm()),
            *models.module_mounts(),
            *(() if toy is None else selftest_files.mounts(toy, self.kernel.devices)),
        )


def _report(control: Control, node: File, _data: bytes, error: KernelError | None) -> None:
    """Keep the result of a write; only a refusal needs the path, which takes time to make."""
    if error is None:
        control.note_success()
    else:
        control.note_refusal(node.path, error)
