"""What all instances have in common: the kernel, its events, its clocks, the names of tasks."""

from __future__ import annotations

from fakesys.core.events import Task
from fakesys.core.kernel import Kernel
from fakesys.subsystems.tracing.base.clocks import Clocks
from fakesys.subsystems.tracing.base.policy import Build
from fakesys.subsystems.tracing.base.saved_cmdlines import SavedCmdlines
from fakesys.subsystems.tracing.events.catalog import EventCatalog
from fakesys.subsystems.tracing.filter.dialect import Dialect
from fakesys.subsystems.tracing.instances.task_watch import Processes


class Shared:
    """State below the instances, which knows none of them.

    `cpus`: how many buffers an instance has; it grows when an event comes from a further CPU.
    `processes`: where names of clients come from.
    """

    def __init__(
        self,
        kernel: Kernel,
        build: Build,
        catalog: EventCatalog,
        *,
        cpus: int,
        processes: Processes,
    ) -> None:
        self.kernel = kernel
        self.build = build
        self.catalog = catalog
        self.cpus = cpus
        self.processes = processes
        self.clocks = Clocks(kernel.clock)
        self.cmdlines = SavedCmdlines(build.cmdlines)

    @property
    def dialect(self) -> Dialect:
        """What filters of this kernel can express."""
        build = self.build
        return Dialect(
            cpus=self.cpus if build.cpu_filters else 0,
            open_ended=build.open_filters,
            functions=build.function_filters,
        )

    def client_task(self) -> Task:
        """Return the process behind the present system call, as a task on its CPU."""
        pid = self.kernel.caller.pid
        return Task(pid, self.processes.comm(pid), self.processes.cpu(pid))
