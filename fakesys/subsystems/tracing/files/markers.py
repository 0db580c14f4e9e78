"""`trace_marker` and `trace_marker_raw`. Like kernel/trace/trace.c:tracing_mark_write (v6.1)."""

from __future__ import annotations

from errno import EBADF, EINVAL

from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.subsystems.tracing.events.ftrace import Print, RawData
from fakesys.subsystems.tracing.events.stacks import MARKER_IP
from fakesys.subsystems.tracing.instances.instance import Instance

ID_SIZE = 4
# Offset of common_preempt_count.
_PREEMPT_AT = 3


def mark(instance: Instance, data: bytes) -> int:
    """Record a text; return the number of bytes taken.

    Raises EINVAL while the option `markers` is off, EBADF if nothing can be recorded, ENODEV
    if no instance takes the markers of the top directory.
    """
    _check_option(instance)
    taken = data[: instance.shared.build.marker_limit]
    for receiver in instance.owner.marker_receivers(instance):
        _mark_one(receiver, taken)
    return len(taken)


def mark_raw(instance: Instance, data: bytes) -> int:
    """Record an id and bytes. Raises EINVAL for a wrong length, and as `mark`."""
    _check_option(instance)
    shared = instance.shared
    limit = shared.build.raw_marker_limit
    if not ID_SIZE <= len(data) <= limit:
        raise KernelError(EINVAL, f"a raw marker has {ID_SIZE} to {limit} bytes")
    task = shared.client_task()
    event = RawData(int.from_bytes(data[:ID_SIZE], "little"), data[ID_SIZE:])
    for receiver in instance.owner.marker_receivers(instance):
        _store(receiver, shared.catalog.raw_data.encode(event, task.pid), task)
    return len(data)


def _check_option(instance: Instance) -> None:
    if not instance.options["markers"]:
        raise KernelError(EINVAL, "the option markers is off")


def _mark_one(instance: Instance, taken: bytes) -> None:
    form = instance.shared.catalog.print
    task = instance.shared.client_task()
    file = instance.file(form)
    text = taken if taken.endswith(b"\n") else taken + b"\n"
    # As many bytes as the kernel reserves: room for a newline and a NUL.
    event = Print(MARKER_IP, text.ljust(len(taken) + 2, b"\0"))
    stamp = file.stamp_of_triggers()
    _store(instance, form.encode(event, task.pid), task, stamp)
    for act in file.run_triggers(Print(MARKER_IP, taken + b"\0"), task, stamp or 0):
        act()


def _store(instance: Instance, payload: bytes, task: Task, stamp: int | None = None) -> None:
    if not instance.recording:
        raise KernelError(EBADF, "tracing is off")
    if instance.owner.hears_anything:
        # While any event is enabled, the kernel saves the names of all tasks that run.
        instance.shared.cmdlines.learn(task)
    depth = instance.shared.build.marker_preempt
    if payload[_PREEMPT_AT] != depth:
        payload = payload[:_PREEMPT_AT] + bytes((depth,)) + payload[_PREEMPT_AT + 1 :]
    if not instance.store(task.cpu, payload, stamp=stamp):
        raise KernelError(EBADF, "this CPU does not record, or its buffer must not be overwritten")
