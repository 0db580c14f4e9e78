"""tracefs in a machine: which events there are, and where it is mounted."""

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
