"""The tracing side of a machine: which events there are, and where tracefs stands."""

from __future__ import annotations

import os

from fakesys.core.kernel import Kernel
from fakesys.core.tracepoint import Tracepoint
from fakesys.profiles import TRACE_KERNELS
from fakesys.subsystems.apicv.trace import EVENTS as APICV_EVENTS
from fakesys.subsystems.kvm.trace import EVENTS as KVM_EVENTS
from fakesys.subsystems.kvm.trace_order import in_order
from fakesys.subsystems.kvm_mmu.trace import EVENTS as MMU_EVENTS
from fakesys.subsystems.tracing import files
from fakesys.subsystems.tracing.model import Tracing
from fakesys.tree.attr import Mount

# All events, in the order of `available_events`; their numbers follow from it.
TRACEPOINTS: tuple[type[Tracepoint], ...] = in_order((*KVM_EVENTS, *APICV_EVENTS, *MMU_EVENTS))

COMM = "/proc/{pid}/comm"


class TraceSide:
    """tracefs of the kernel that was chosen last."""

    def __init__(
        self,
        kernel: Kernel,
        name: str,
        features: frozenset[str],
    ) -> None:
        self._kernel = kernel
        self.use(name, features)

    def use(self, name: str, features: frozenset[str]) -> None:
        """Begin anew with the events and rules of this kernel."""
        self.tracing = Tracing(
            self._kernel,
            TRACE_KERNELS[name],
            TRACEPOINTS,
            features,
            cpus=os.cpu_count() or 1,
            comm_of=comm_of,
        )

    def change(self, name: str, features: frozenset[str]) -> None:
        """Another kernel: what was recorded is gone."""
        self.tracing.close()
        self.use(name, features)

    def mounts(self) -> tuple[Mount, ...]:
        """Both places of tracefs."""
        return files.mounts(self.tracing)


def comm_of(pid: int) -> str:
    """The name of a running process as the kernel keeps it; `fakesys` for the machine itself."""
    if pid == 0:
        return "fakesys"
    try:
        with open(COMM.format(pid=pid), "rb") as file:
            return file.read().rstrip(b"\n").decode("latin-1")
    except OSError:
        return "<...>"
