"""The tracing side of a machine: which events there are, and where tracefs stands."""

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
from fakesys.subsystems.tracing.events.host import EVENTS as HOST_EVENTS
from fakesys.subsystems.tracing.files import top as files
from fakesys.subsystems.tracing.instances.task_watch import Processes
from fakesys.subsystems.tracing.instances.tracing import Tracing
from fakesys.tree.attr import Mount

# All events, in the order of `available_events`; their numbers follow from it.
TRACEPOINTS: tuple[type[Tracepoint], ...] = (
    *in_order((*KVM_EVENTS, *APICV_EVENTS, *MMU_EVENTS)),
    *HOST_EVENTS,
)


class TraceSide:
    """tracefs of the kernel that was chosen last."""

    def __init__(
        self,
        kernel: Kernel,
        name: str,
        features: FeatureSet,
    ) -> None:
        self._kernel = kernel
        self.processes: Processes = RealProcesses()
        self.use(name, features)

    @classmethod
    def around(cls, kernel: Kernel, tracing: Tracing) -> TraceSide:
        """tracefs whose model exists already."""
        side = cls.__new__(cls)
        side._kernel, side.tracing, side.processes = kernel, tracing, tracing.shared.processes
        return side

    def use(self, name: str, features: FeatureSet) -> None:
        """Begin anew with the events and rules of this kernel."""
        self.tracing = Tracing(
            self._kernel,
            TRACE_KERNELS[name],
            TRACEPOINTS,
            features,
            cpus=os.cpu_count() or 1,
            processes=self.processes,
        )

    def change(self, name: str, features: FeatureSet) -> None:
        """Another kernel: what was recorded is gone."""
        self.tracing.close()
        self.use(name, features)

    @property
    def features(self) -> FeatureSet:
        """What the chosen kernel has."""
        return self.tracing.shared.build.features

    def mounts(self) -> tuple[Mount, ...]:
        """Both places of tracefs."""
        return files.mounts(self.tracing)


class RealProcesses:
    """The clients, asked of /proc."""

    def comm(self, pid: int) -> str:
        """The name of a process; `fakesys` for the machine itself, `<...>` when it is gone."""
        if pid == 0:
            return "fakesys"
        return _read(f"/proc/{pid}/comm").rstrip("\n") or UNKNOWN

    def parent(self, pid: int) -> int:
        """The parent's pid, 0 when the process is gone."""
        # The name before it may hold blanks and parentheses.
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return int(fields[1]) if len(fields) > 1 else 0

    def reaped(self, pid: int) -> int:
        """The page faults of all children that were waited for."""
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return int(fields[8]) + int(fields[10]) if len(fields) > 10 else 0

    def newest(self) -> int:
        """The pid given out last."""
        return int(_read("/proc/loadavg").split()[-1] or 0)

    def alive(self, pid: int) -> bool:
        """Does it exist? A zombie does not."""
        state = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1]
        return bool(state) and state != ["Z"]


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode("latin-1")
    except OSError:
        return ""
