"""`trace_marker` and `trace_marker_raw`. Like kernel/trace/trace.c:tracing_mark_write (v6.1)."""

from __future__ import annotations

from errno import EBADF, EINVAL

from fakesys.core.errors import KernelError
from fakesys.subsystems.tracing.instance import Instance
from fakesys.subsystems.tracing.ring import CpuBuffer
from fakesys.subsystems.tracing.trace import MARKER_IP, Print, RawData

RAW_LIMIT = 3072
ID_SIZE = 4
_PREEMPT_AT = 3


def mark(instance: Instance, data: bytes) -> int:
    """Record a text; the bytes taken.

    Raises EINVAL while the option `markers` is off, EBADF when nothing can be recorded.
    """
    _check(instance)
    taken = data[: instance.tracing.build.marker_limit]
    tracing = instance.tracing
    file = instance.file(tracing.print)
    task = tracing.client_task()
    text = taken if taken.endswith(b"\n") else taken + b"\n"
    # As many bytes as the kernel reserves: room for a newline and a NUL.
    event = Print(MARKER_IP, text.ljust(len(taken) + 2, b"\0"))
    buffers, late = instance.buffers, []
    if file.triggers:
        late = file.run_triggers(Print(MARKER_IP, taken + b"\0"), task)
    _store(instance, tracing.print.encode(event, task.pid), task.cpu, buffers)
    for trigger in late:
        trigger.fire(file, event, task)
    return len(taken)


def mark_raw(instance: Instance, data: bytes) -> int:
    """Record an id and bytes. Raises EINVAL for a wrong length, and as `mark`."""
    _check(instance)
    if not ID_SIZE <= len(data) <= RAW_LIMIT:
        raise KernelError(EINVAL, f"a raw marker has {ID_SIZE} to {RAW_LIMIT} bytes")
    tracing = instance.tracing
    task = tracing.client_task()
    event = RawData(int.from_bytes(data[:ID_SIZE], "little"), data[ID_SIZE:])
    _store(instance, tracing.raw_data.encode(event, task.pid), task.cpu, instance.buffers)
    return len(data)


def _check(instance: Instance) -> None:
    if not instance.options["markers"]:
        raise KernelError(EINVAL, "the option markers is off")
    if not instance.recording:
        raise KernelError(EBADF, "tracing is off")
    tracing = instance.tracing
    if tracing.hears_anything and tracing.record_cmd:
        # While any event is on, the kernel learns the names of all tasks that run.
        task = tracing.client_task()
        tracing.cmdlines.save(task.pid, task.comm)


def _store(instance: Instance, payload: bytes, cpu: int, buffers: list[CpuBuffer]) -> None:
    depth = instance.tracing.build.marker_preempt
    if payload[_PREEMPT_AT] != depth:
        payload = payload[:_PREEMPT_AT] + bytes((depth,)) + payload[_PREEMPT_AT + 1 :]
    if not instance.store(cpu, payload, buffers):
        raise KernelError(EBADF, "the buffer is full and not to be overwritten")
