"""tracefs in a machine: its events, its mount points, and the tasks that it asks the host for."""

from __future__ import annotations

import os

from fakesys.core.features import FeatureSet
from fakesys.core.kernel import Kernel
from fakesys.core.tracepoint import Tracepoint
from fakesys.machine.profiles import TRACE_KERNELS
from fakesys.subsystems.kvm.events.avic import EVENTS as APICV_EVENTS
from fakesys.subsystems.kvm.events.catalog import EVENTS as KVM_EVENTS
from fakesys.subsystems.kvm.events.order import in_order
from fakesys.subsystems.kvm_mmu.events.catalog import EVENTS as MMU_EVENTS
from fakesys.subsystems.tracing.base.saved_cmdlines import UNKNOWN
from fakesys.subsystems.tracing.files import top as files
from fakesys.subsystems.tracing.instances.task_watch import Processes
from fakesys.subsystems.tracing.instances.tracing import Tracing
from fakesys.tree.attr import Mount

# The events of KVM, in the order of `available_events`; their numbers follow from it.
TRACEPOINTS: tuple[type[Tracepoint], ...] = in_order((*KVM_EVENTS, *APICV_EVENTS, *MMU_EVENTS))

# Fields of /proc/PID/stat behind the name: state, ppid, ... cminflt, ..., cmajflt, ..., processor
# (proc(5)).
_PPID, _CMINFLT, _CMAJFLT, _PROCESSOR = 1, 8, 10, 36


class TraceSubsystem:
    """tracefs of the kernel that was chosen last."""

    def __init__(self, kernel: Kernel, tracing: Tracing) -> None:
        self._kernel = kernel
        self.tracing = tracing

    def change(self, name: str, features: FeatureSet) -> None:
        """Become the tracefs of another kernel; everything that was recorded is gone."""
        self.tracing.close()
        self.tracing = tracing_of(self._kernel, name, features, self.tracing.shared.processes)

    @property
    def features(self) -> FeatureSet:
        """The features of the chosen kernel."""
        return self.tracing.shared.build.features

    def mounts(self) -> tuple[Mount, ...]:
        """Return both mount points of tracefs."""
        return files.mounts(self.tracing)


def tracing_of(kernel: Kernel, name: str, features: FeatureSet, processes: Processes) -> Tracing:
    """Return an empty tracefs with the events and rules of the kernel `name`.

    `features` are those of KVM, which decide which of its events exist and what they record.
    """
    return Tracing(
        kernel,
        TRACE_KERNELS[name],
        TRACEPOINTS,
        features,
        cpus=os.cpu_count() or 1,
        processes=processes,
    )


class HostTasks:
    """The clients of a mount, looked up in /proc of the host."""

    def comm(self, pid: int) -> str:
        """Return the name of a task: `fakesys` for the machine itself, `<...>` for one gone."""
        if pid == 0:
            return "fakesys"
        return _read(f"/proc/{pid}/comm").rstrip("\n") or UNKNOWN

    def parent(self, pid: int) -> int:
        """Return the pid of the parent; 0 for a task that is gone."""
        fields = _stat(pid)
        return int(fields[_PPID]) if len(fields) > _PPID else 0

    def cpu(self, pid: int) -> int:
        """Return the CPU on which a thread runs or ran last; 0 for one that is gone."""
        fields = _stat(pid) if pid else []
        return int(fields[_PROCESSOR]) if len(fields) > _PROCESSOR else 0

    def reaped(self, pid: int) -> int:
        """Return the number of page faults of all children that were waited for."""
        fields = _stat(pid)
        return int(fields[_CMINFLT]) + int(fields[_CMAJFLT]) if len(fields) > _CMAJFLT else 0

    def newest(self) -> int:
        """Return the pid that the host gave out last."""
        return int(_read("/proc/loadavg").split()[-1] or 0)

    def alive(self, pid: int) -> bool:
        """Return whether the task exists; a zombie does not."""
        state = _stat(pid)[:1]
        return bool(state) and state != ["Z"]


def _stat(pid: int) -> list[str]:
    """Return the fields behind the name, which may hold blanks and parentheses itself."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode("latin-1")
    except OSError:
        return ""
