"""The tables of `per_cpu/` of an instance: a directory for each CPU."""

from __future__ import annotations

from collections.abc import Iterable
from errno import EBUSY, EINVAL

from msgspec import Struct

from fakesys.subsystems.tracing.files import settings
from fakesys.subsystems.tracing.files.open_files import PipeFile, RawPipeFile, TraceFile, is_read
from fakesys.subsystems.tracing.files.snapshot import SnapshotFile
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.tree.attr import Attr, Children, Handle, Layout
from fakesys.tree.kinds import TRACEFS_PAGES, TRACEFS_SEQ, TRACEFS_STREAM

NUMBER = {EINVAL: "not a number, or not one that is allowed"}
SHOWN = {EBUSY: "an open `trace` shows the events of the buffer"}
ONE_READER = {EBUSY: "this pipe is open already, or one that takes from the same buffers"}


class CpuDirectory(Struct, frozen=True):
    """One CPU of an instance."""

    instance: Instance
    cpu: int


def _open_cpu_trace(view: CpuDirectory, flags: int) -> Handle:
    return TraceFile(view.instance, view.instance.buffers.chosen(view.cpu), is_read(flags))


def _cpu_names(instance: Instance) -> Iterable[str]:
    return (f"cpu{cpu}" for cpu in range(len(instance.buffers)))


def _cpu(instance: Instance, name: str) -> CpuDirectory | None:
    digits = name.removeprefix("cpu")
    if not name.startswith("cpu") or not digits.isdigit() or str(int(digits)) != digits:
        return None
    cpu = int(digits)
    return CpuDirectory(instance, cpu) if cpu < len(instance.buffers) else None


PER_CPU: Layout[CpuDirectory] = Layout(
    rows=(
        Attr(
            name="trace",
            mode=0o640,
            kind=TRACEFS_SEQ,
            open=_open_cpu_trace,
            truncate=lambda view: view.instance.clear(view.cpu),
            doc="The events of this CPU; O_TRUNC clears them.",
        ),
        Attr(
            name="trace_pipe",
            mode=0o440,
            kind=TRACEFS_STREAM,
            open=lambda view, flags: PipeFile(view.instance, view.cpu),
            doc="The same as a stream that takes the events away.",
            errors=ONE_READER,
        ),
        Attr(
            name="trace_pipe_raw",
            mode=0o440,
            kind=TRACEFS_PAGES,
            open=lambda view, flags: RawPipeFile(view.instance, view.cpu),
            doc="The binary pages of this CPU, taken away by reading.",
        ),
        Attr(
            name="stats",
            mode=0o440,
            show=lambda view: settings.stats_text(view.instance, view.cpu),
            doc="How many events are in the buffer, were lost, dropped, read.",
        ),
        Attr(
            name="buffer_size_kb",
            mode=0o640,
            show=lambda view: settings.cpu_size_text(view.instance, view.cpu),
            store=lambda view, text: view.instance.buffers.resize(settings.decimal(text), view.cpu),
            doc="Size of the buffer of this CPU.",
            errors=NUMBER | SHOWN,
        ),
        Attr(
            name="snapshot",
            mode=0o640,
            kind=TRACEFS_SEQ,
            present=lambda view: view.instance.shared.build.snapshot,
            open=lambda view, flags: SnapshotFile(view.instance, view.cpu),
            doc="The snapshot of this CPU.",
            errors={
                EINVAL: "not a number; or 0 for one CPU",
                EBUSY: "a histogram takes the snapshots",
            },
        ),
    ),
    mode=0o750,
)
CPUS: Layout[Instance] = Layout(
    rows=(Children(names=_cpu_names, get=_cpu, layout=PER_CPU),), mode=0o750
)
