"""`trace_marker` and `trace_marker_raw`. Like kernel/trace/trace.c:tracing_mark_write (v6.1)."""

from __future__ import annotations

from errno import EBADF, EINVAL, ENODEV

from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.subsystems.tracing.events.ftrace import MARKER_IP, Print, RawData
from fakesys.subsystems.tracing.instances.instance import Instance

ID_SIZE = 4
_PREEMPT_AT = 3


def mark(instance: Instance, data: bytes) -> int:
    """Record a text; the bytes taken.

    Raises EINVAL while the option `markers` is off, EBADF when nothing can be recorded, ENODEV
    when no instance takes the markers of the top directory.
    """
    _check(instance)
    taken = data[: instance.tracing.build.marker_limit]
    for receiver in _receivers(instance):
        _mark_one(receiver, taken)
    return len(taken)


def mark_raw(instance: Instance, data: bytes) -> int:
    """Record an id and bytes. Raises EINVAL for a wrong length, and as `mark`."""
    _check(instance)
    tracing = instance.tracing
    limit = tracing.build.raw_marker_limit
    if not ID_SIZE <= len(data) <= limit:
        raise KernelError(EINVAL, f"a raw marker has {ID_SIZE} to {limit} bytes")
    task = tracing.client_task()
    event = RawData(int.from_bytes(data[:ID_SIZE], "little"), data[ID_SIZE:])
    for receiver in _receivers(instance):
        _store(receiver, tracing.raw_data.encode(event, task.pid), task)
    return len(data)


def _check(instance: Instance) -> None:
    if not instance.options["markers"]:
        raise KernelError(EINVAL, "the option markers is off")


def _receivers(instance: Instance) -> list[Instance]:
    """Who records it. Like kernel/trace/trace.c:tracing_mark_write (v6.18)."""
    tracing = instance.tracing
    if instance is not tracing.top:
        return [instance]
    if not tracing.marker_copies:
        raise KernelError(ENODEV, "the option copy_trace_marker is off everywhere")
    return list(tracing.marker_copies)


def _mark_one(instance: Instance, taken: bytes) -> None:
    tracing = instance.tracing
    task = tracing.client_task()
    file = instance.file(tracing.print)
    text = taken if taken.endswith(b"\n") else taken + b"\n"
    # As many bytes as the kernel reserves: room for a newline and a NUL.
    event = Print(MARKER_IP, text.ljust(len(taken) + 2, b"\0"))
    _store(instance, tracing.print.encode(event, task.pid), task)
    if not file.triggers:
        return
    for trigger in file.run_triggers(Print(MARKER_IP, taken + b"\0"), task):
        trigger.fire(file, event, task)


def _store(instance: Instance, payload: bytes, task: Task) -> None:
    tracing = instance.tracing
    if not instance.recording:
        raise KernelError(EBADF, "tracing is off")
    if tracing.hears_anything:
        # While any event is on, the kernel learns the names of all tasks that run.
        tracing.learn(task)
    depth = tracing.build.marker_preempt
    if payload[_PREEMPT_AT] != depth:
        payload = payload[:_PREEMPT_AT] + bytes((depth,)) + payload[_PREEMPT_AT + 1 :]
    if not instance.store(task.cpu, payload):
        raise KernelError(EBADF, "this CPU does not record, or its buffer must not be overwritten")
