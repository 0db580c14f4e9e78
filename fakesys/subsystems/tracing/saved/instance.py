"""One set of buffers with its settings."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import Saved, check, check_range
from fakesys.subsystems.tracing.base.clocks import NAMES
from fakesys.subsystems.tracing.base.error_log import KEPT
from fakesys.subsystems.tracing.base.options import NOP_REFUSE, Options
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.instances.pid_list import PID_LIMIT
from fakesys.subsystems.tracing.saved.buffers import SavedBuffers, restore_buffers, save_buffers
from fakesys.subsystems.tracing.saved.events import SavedEvent, save_events
from fakesys.subsystems.tracing.saved.hists import Tables
from fakesys.subsystems.tracing.saved.records import PageReader
from fakesys.subsystems.tracing.saved.values import U64_END, Shown

# A bit for each CPU that a machine can have, as hexadecimal digits.
CpuMask = Annotated[str, Meta(pattern=r"\A[0-9a-f]{1,1024}\Z")]
ListedPid = Annotated[int, Meta(ge=0, lt=PID_LIMIT)]


class SavedInstance(Saved, frozen=True):
    """An instance. `options`: those that are on. `errors`: the entries of `error_log`."""

    tracing_on: bool
    tracer: str
    options: tuple[str, ...]
    clock: str
    started_at: int
    cpumask: CpuMask
    percent: Annotated[int, Meta(ge=0, le=100)]
    pids: tuple[ListedPid, ...]
    notrace_pids: tuple[ListedPid, ...]
    errors: Annotated[tuple[Shown, ...], Meta(max_length=KEPT)]
    events: dict[str, SavedEvent]
    buffers: SavedBuffers


def save_instance(instance: Instance, tables: Tables) -> SavedInstance:
    """Return an instance as plain values."""
    return SavedInstance(
        tracing_on=instance.on,
        tracer=instance.tracer,
        options=instance.options.switched_on(),
        clock=instance.clock,
        started_at=instance.started_at,
        cpumask=f"{instance.cpumask:x}",
        percent=instance.percent,
        pids=tuple(sorted(instance.pids.pids)),
        notrace_pids=tuple(sorted(instance.notrace_pids.pids)),
        errors=tuple(instance.errors.entries),
        events=save_events(instance, tables),
        buffers=save_buffers(instance.buffers),
    )


def restore_options(saved: SavedInstance, options: Options) -> None:
    """Set the options of an instance. Raises BadSnapshotError, KernelError for an unknown one."""
    check(NOP_REFUSE not in saved.options, f"the option {NOP_REFUSE} is on")
    check(len(set(saved.options)) == len(saved.options), "an option is on twice")
    for name in options.switched_on():
        options.switch(name, False)
    for name in saved.options:
        options.switch(name, True)


def restore_instance(saved: SavedInstance, instance: Instance, *, cpus: int) -> None:
    """Set all but options and events, which come before. Raises BadSnapshotError."""
    check(saved.tracer in instance.tracers, f"{saved.tracer!r} is no tracer of this instance")
    instance.tracer = saved.tracer
    check(saved.clock in NAMES, f"{saved.clock!r} is no clock")
    instance.clock = saved.clock
    instance.now = instance.shared.clocks.reader(saved.clock)
    instance.started_at = check_range(saved.started_at, U64_END, "started_at")
    instance.cpumask = check_range(int(saved.cpumask, 16), 1 << cpus, "tracing_cpumask")
    instance.percent = saved.percent
    instance.pids.pids.update(saved.pids)
    instance.notrace_pids.pids.update(saved.notrace_pids)
    instance.errors.clear()
    instance.errors.entries.extend(saved.errors)
    catalog = instance.shared.catalog
    reader = PageReader(catalog.by_id, catalog.defined_ids)
    overwrite = instance.options["overwrite"]
    restore_buffers(saved.buffers, instance.buffers, reader, cpus=cpus, overwrite=overwrite)
    instance.switch(saved.tracing_on)
