"""The file `snapshot`. Like kernel/trace/trace.c:tracing_snapshot_write, show_snapshot (v6.1)."""

from __future__ import annotations

from errno import EBUSY, EINVAL

from fakesys.core.errors import KernelError
from fakesys.core.text import c_string
from fakesys.subsystems.tracing.files.open_files import TraceFile
from fakesys.subsystems.tracing.files.settings import decimal
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.output.headers import tracer_line
from fakesys.subsystems.tracing.output.iterators import TraceIterator
from fakesys.subsystems.tracing.ring_buffer.buffer_set import ALL_CPUS
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import CpuBuffer

_COMMANDS = """# Snapshot commands:
# echo 0 > snapshot : frees the snapshot
# echo 1 > snapshot : keeps what is recorded now as the snapshot
# echo 2 > snapshot : clears the snapshot without freeing it
#                      (2 stands for any number but 0 and 1)
"""
_CPU_COMMANDS = """# Snapshot commands:
# echo 0 > snapshot : is refused for one CPU
# echo 1 > snapshot : keeps what this CPU recorded as its snapshot
# echo 2 > snapshot : clears the snapshot of this CPU
#                      (2 stands for any number but 0 and 1)
"""


class SnapshotFile(TraceFile):
    """An open `snapshot`: it reads like `trace`; what is written is a command."""

    def __init__(self, instance: Instance, cpu: int) -> None:
        super().__init__(instance, instance.buffers.chosen_snapshot(cpu), reading=False)
        self._cpu = cpu

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Obey a number. Raises EINVAL."""
        write_snapshot(self.instance, self._cpu, c_string(data))
        self._buffers = self.instance.buffers.chosen_snapshot(self._cpu)
        return len(data)

    def all_buffers(self) -> list[tuple[int, CpuBuffer]]:
        """Return the buffers of the snapshot, of all CPUs."""
        return self.instance.buffers.chosen_snapshot(ALL_CPUS)

    def head(self, counted: TraceIterator, *, empty: bool) -> bytes:
        """Return the comment lines of `trace` or, without events, how to use the file."""
        if not empty:
            return super().head(counted, empty=empty)
        state = "freed" if self.instance.buffers.snapshot is None else "allocated"
        commands = _COMMANDS if self._cpu == ALL_CPUS else _CPU_COMMANDS
        first = tracer_line(self.instance.tracer)
        return f"{first}#\n# * Snapshot is {state} *\n#\n{commands}".encode()


def write_snapshot(instance: Instance, cpu: int, text: str) -> None:
    """Take, free or clear a snapshot.

    Raises EINVAL for what is no number, and 0 for one CPU; EBUSY while a histogram takes them.
    """
    command = decimal(text)
    if instance.watch is not None:
        raise KernelError(EBUSY, "a histogram takes the snapshots")
    if command == 0:
        if cpu != ALL_CPUS:
            raise KernelError(EINVAL, "a snapshot of one CPU cannot be freed")
        instance.buffers.free_snapshot()
    elif command == 1:
        if cpu == ALL_CPUS:
            instance.swap_snapshot()
        else:
            instance.buffers.swap_cpu(cpu)
    else:
        for _, buffer in instance.buffers.chosen_snapshot(cpu):
            buffer.reset()
