"""Tracing as plain data, for the machine's state. Records are counted, not shown."""

from __future__ import annotations

from typing import Any

from fakesys.subsystems.tracing.instances.event_file import NO_FILTER, EventFile
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.instances.tracing import Tracing


def state(tracing: Tracing) -> dict[str, Any]:
    """Return the state of the top directory and of each instance."""
    return {
        "instances": {name: _instance(each) for name, each in tracing.instances.items()},
        "top": _instance(tracing.top),
    }


def _instance(instance: Instance) -> dict[str, Any]:
    options = instance.options
    return {
        "buffers": [_buffer(instance, cpu) for cpu in range(len(instance.buffers))],
        "clock": instance.clock,
        "cpumask": f"{instance.cpumask:x}",
        "events": [file.form.name for file in instance.enabled_files()],
        "events_changed": {
            file.form.name: _event(file) for file in instance.known_files() if _event(file)
        },
        "options": [name for name in options.names() if options[name]],
        "percent": instance.percent,
        "pids": sorted(instance.pids.pids),
        "notrace_pids": sorted(instance.notrace_pids.pids),
        "snapshot": instance.buffers.snapshot is not None,
        "tracing_on": instance.on,
    }


def _buffer(instance: Instance, cpu: int) -> dict[str, int]:
    buffer = instance.buffers.live[cpu]
    return {
        "dropped": buffer.dropped,
        "entries": buffer.entries,
        "overrun": buffer.overrun,
        "read": buffer.read_events,
        "size_kb": instance.size_kb(cpu),
    }


def _event(file: EventFile) -> dict[str, Any]:
    """Return filter and triggers of an event, as far as it has any."""
    found: dict[str, Any] = {}
    if file.filter_text != NO_FILTER:
        found["filter"] = file.filter_text
    if file.triggers:
        found["triggers"] = [trigger.text() for trigger in file.triggers]
    if file.soft_disabled:
        found["soft_disabled"] = True
    return found
