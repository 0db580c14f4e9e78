"""The tables of `sys/kernel/tracing`: the top directory, an instance, a CPU, the options."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from errno import EBADF, EBUSY, EINVAL, ENODEV, EOVERFLOW, EPERM, ERANGE

from msgspec import Struct

from fakesys.subsystems.tracing.base.error_log import ErrorLog
from fakesys.subsystems.tracing.files import markers
from fakesys.subsystems.tracing.files import settings as texts
from fakesys.subsystems.tracing.files.events import EVENTS
from fakesys.subsystems.tracing.files.open_files import (
    PipeFile,
    RawPipeFile,
    TraceFile,
    WriteOnlyFile,
)
from fakesys.subsystems.tracing.files.readme import readme
from fakesys.subsystems.tracing.files.snapshot import SnapshotFile
from fakesys.subsystems.tracing.instances import set_event as grammar
from fakesys.subsystems.tracing.instances.instance import WHOLE, Instance
from fakesys.subsystems.tracing.instances.pid_list import PidList
from fakesys.subsystems.tracing.instances.tracing import Tracing
from fakesys.tree.attr import Attr, Children, Dir, Files, Handle, Layout, Mount
from fakesys.tree.kinds import (
    TRACEFS,
    TRACEFS_SEQ,
    TRACEFS_STREAM,
    TRACEFS_WHOLE,
    TRACEFS_WORDS,
)

NUMBER = {EINVAL: "not a number, or not one that is allowed"}
PIDS = {EINVAL: "not a pid", EPERM: "a pid has at most 30 bits"}
SHOWN = {EBUSY: "an open `trace` shows the events of the buffer"}
ONE_READER = {EBUSY: "somebody reads this pipe, or one that takes from the same buffers"}
MARKER = {
    EINVAL: "the option markers is off, or a raw marker of a wrong length",
    EBADF: "nothing is recorded, or the buffer is full and must not be overwritten",
    ENODEV: "no instance takes the markers of the top directory",
}
PLACES = ("sys/kernel/tracing", "sys/kernel/debug/tracing")


class CpuView(Struct, frozen=True):
    """One CPU of an instance."""

    instance: Instance
    cpu: int


class Switch(Struct, frozen=True):
    """One option of an instance."""

    instance: Instance
    name: str


def _reads(flags: int) -> bool:
    return flags & os.O_ACCMODE != os.O_WRONLY


def _open_trace(instance: Instance, flags: int) -> Handle:
    return TraceFile(instance, instance.chosen(WHOLE), _reads(flags))


def _open_cpu_trace(view: CpuView, flags: int) -> Handle:
    return TraceFile(view.instance, view.instance.chosen(view.cpu), _reads(flags))


def _write_only(store: Callable[[Instance, bytes], int]) -> Callable[[Instance, int], Handle]:
    return lambda instance, flags: WriteOnlyFile(instance, store)


def _open_free_buffer(instance: Instance, flags: int) -> Handle:
    return WriteOnlyFile(instance, lambda _, data: len(data), texts.free_on_close)


def _cpu_names(instance: Instance) -> Iterable[str]:
    return (f"cpu{cpu}" for cpu in range(len(instance.buffers)))


def _cpu(instance: Instance, name: str) -> CpuView | None:
    digits = name.removeprefix("cpu")
    if not name.startswith("cpu") or not digits.isdigit() or str(int(digits)) != digits:
        return None
    cpu = int(digits)
    return CpuView(instance, cpu) if cpu < len(instance.buffers) else None


def _option_names(instance: Instance) -> Iterable[str]:
    return instance.options.names()


def _option(instance: Instance, name: str) -> Switch | None:
    return Switch(instance, name) if name in instance.options.names() else None


def _write_switch(switch: Switch, text: str) -> None:
    switch.instance.set_option(switch.name, texts.zero_or_one(text))


def _write_pids(choose: Callable[[Instance], PidList]) -> Callable[[Instance, str], int]:
    def store(instance: Instance, text: str) -> int:
        taken = choose(instance).add(text)
        instance.lists_changed()
        return taken

    return store


def _clear_pids(choose: Callable[[Instance], PidList]) -> Callable[[Instance], None]:
    def clear(instance: Instance) -> None:
        choose(instance).clear()
        instance.lists_changed()

    return clear


def _pids(instance: Instance) -> PidList:
    return instance.pids


def _notrace_pids(instance: Instance) -> PidList:
    return instance.notrace_pids


def _errors(instance: Instance) -> ErrorLog:
    return instance.errors


def _instance_names(tracing: Tracing) -> Iterable[str]:
    return tracing.instances


def _has_snapshot(instance: Instance) -> bool:
    return instance.tracing.build.snapshot


def _tracing(instance: Instance) -> Tracing:
    return instance.tracing


PER_CPU: Layout[CpuView] = Layout(
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
            kind=TRACEFS_STREAM,
            open=lambda view, flags: RawPipeFile(view.instance, view.cpu),
            doc="The binary pages of this CPU, taken away by reading.",
        ),
        Attr(
            name="stats",
            mode=0o440,
            show=lambda view: texts.stats_text(view.instance, view.cpu),
            doc="How many events are in the buffer, were lost, dropped, read.",
        ),
        Attr(
            name="buffer_size_kb",
            mode=0o640,
            show=lambda view: texts.cpu_size_text(view.instance, view.cpu),
            store=lambda view, text: view.instance.resize(texts.decimal(text), view.cpu),
            doc="Size of the buffer of this CPU.",
            errors=NUMBER | SHOWN,
        ),
        Attr(
            name="snapshot",
            mode=0o640,
            kind=TRACEFS_SEQ,
            present=lambda view: view.instance.tracing.build.snapshot,
            open=lambda view, flags: SnapshotFile(view.instance, view.cpu),
            doc="The snapshot of this CPU.",
            errors={EINVAL: "not a number; or 0 for one CPU"},
        ),
    ),
    mode=0o750,
)
CPUS: Layout[Instance] = Layout(
    rows=(Children(names=_cpu_names, get=_cpu, layout=PER_CPU),), mode=0o750
)
OPTIONS: Layout[Instance] = Layout(
    rows=(
        Files(
            names=_option_names,
            get=_option,
            attr=Attr(
                name="*",
                mode=0o640,
                show=lambda switch: f"{int(switch.instance.options[switch.name])}\n",
                store=_write_switch,
                doc="The same switch as in trace_options.",
                errors={EINVAL: "neither 0 nor 1, or it cannot be changed"},
            ),
        ),
    ),
    mode=0o750,
)
COMMON: tuple[Attr[Instance] | Dir[Instance], ...] = (
    Attr(
        name="trace",
        mode=0o640,
        kind=TRACEFS_SEQ,
        open=_open_trace,
        truncate=Instance.clear,
        doc="The recorded events as text; opening it with O_TRUNC clears them.",
    ),
    Attr(
        name="trace_pipe",
        mode=0o440,
        kind=TRACEFS_STREAM,
        open=lambda instance, flags: PipeFile(instance, WHOLE),
        doc="The same as a stream: reading takes the events away and waits for more.",
        errors=ONE_READER,
    ),
    Attr(
        name="trace_marker",
        mode=0o220,
        kind=TRACEFS_STREAM,
        open=_write_only(markers.mark),
        doc="Each write puts a text into the buffer.",
        errors=MARKER,
    ),
    Attr(
        name="trace_marker_raw",
        mode=0o220,
        kind=TRACEFS_STREAM,
        open=_write_only(markers.mark_raw),
        doc="Each write puts a 4-byte id and bytes into the buffer.",
        errors=MARKER,
    ),
    Attr(
        name="free_buffer",
        mode=0o200,
        kind=TRACEFS_STREAM,
        open=_open_free_buffer,
        doc="Closing it shrinks the buffers to the least.",
    ),
    Attr(
        name="set_event",
        mode=0o640,
        kind=TRACEFS_WORDS,
        show=grammar.set_event_text,
        store=grammar.write_set_event,
        truncate=grammar.clear_events,
        hold=texts.held,
        doc="The enabled events; one word per write: SYSTEM:EVENT, SYSTEM:*, EVENT, !...",
        errors={EINVAL: "no event is called so"},
    ),
    Attr(
        name="set_event_pid",
        mode=0o640,
        kind=TRACEFS_WORDS,
        show=lambda m: m.pids.text(),
        store=_write_pids(_pids),
        truncate=_clear_pids(_pids),
        hold=texts.held,
        doc="Only events of these tasks are recorded.",
        errors=PIDS,
    ),
    Attr(
        name="set_event_notrace_pid",
        mode=0o640,
        kind=TRACEFS_WORDS,
        show=lambda m: m.notrace_pids.text(),
        store=_write_pids(_notrace_pids),
        truncate=_clear_pids(_notrace_pids),
        hold=texts.held,
        doc="No events of these tasks are recorded.",
        errors=PIDS,
    ),
    Attr(
        name="current_tracer",
        mode=0o640,
        show=lambda m: "nop\n",
        store=texts.write_tracer,
        hold=texts.held,
        doc="nop.",
        errors={EINVAL: "there is no such tracer"},
    ),
    Attr(
        name="available_tracers",
        mode=0o440,
        kind=TRACEFS_SEQ,
        show=lambda m: "nop\n",
        doc="nop.",
    ),
    Attr(
        name="tracing_on",
        mode=0o640,
        show=lambda m: f"{int(m.on)}\n",
        store=texts.write_tracing_on,
        hold=texts.held,
        doc="0: nothing is recorded, the buffers stay as they are.",
        errors=NUMBER | {ERANGE: "it does not fit into 64 bits"},
    ),
    Attr(
        name="trace_clock",
        mode=0o640,
        kind=TRACEFS_SEQ,
        show=texts.clock_text,
        store=texts.write_clock,
        hold=texts.held,
        doc="Which clock stamps the events; writing one clears the buffers.",
        errors={EINVAL: "there is no such clock"},
    ),
    Attr(
        name="timestamp_mode",
        mode=0o440,
        kind=TRACEFS_SEQ,
        show=lambda m: "[delta] absolute\n",
        doc="Time stamps are stored as differences.",
    ),
    Attr(
        name="trace_options",
        mode=0o640,
        kind=TRACEFS_SEQ,
        show=lambda m: m.options.text(),
        store=texts.write_option,
        hold=texts.held,
        doc="Switches; one NAME or noNAME per write.",
        errors={EINVAL: "there is no such option, or it cannot be changed"},
    ),
    Attr(
        name="tracing_cpumask",
        mode=0o640,
        kind=TRACEFS_WHOLE,
        show=texts.cpumask_text,
        store=texts.write_cpumask,
        hold=texts.held,
        doc="Which CPUs record, as a hex mask.",
        errors={
            EINVAL: "not a hex mask; reading: fewer bytes than the mask",
            EOVERFLOW: "there are fewer CPUs",
        },
    ),
    Attr(
        name="buffer_size_kb",
        mode=0o640,
        show=texts.size_text,
        store=lambda m, text: m.resize(texts.decimal(text)),
        hold=texts.held,
        doc="Size of each CPU's buffer; X when they differ.",
        errors=NUMBER | SHOWN,
    ),
    Attr(
        name="buffer_total_size_kb",
        mode=0o440,
        show=texts.total_size_text,
        doc="Size of all buffers.",
    ),
    Attr(
        name="buffer_percent",
        mode=0o640,
        show=lambda m: f"{m.percent}\n",
        store=texts.write_percent,
        hold=texts.held,
        doc="How full a buffer must be to wake who polls.",
        errors={EINVAL: "not a number up to 100"},
    ),
    Attr(
        name="error_log",
        mode=0o640,
        kind=TRACEFS_SEQ,
        show=lambda m: m.errors.text(),
        store=lambda m, text: None,
        truncate=lambda m: m.errors.clear(),
        hold=texts.held,
        doc="The last eight mistakes in filters and triggers; O_TRUNC clears them.",
    ),
    Attr(
        name="snapshot",
        mode=0o640,
        kind=TRACEFS_SEQ,
        present=_has_snapshot,
        open=lambda m, flags: SnapshotFile(m, WHOLE),
        doc="0 frees the snapshot, 1 takes one, another number clears it.",
        errors={EINVAL: "not a number; or 0 for one CPU"},
    ),
    *EVENTS,
    Dir(name="options", layout=OPTIONS),
    Dir(name="per_cpu", layout=CPUS),
)
INSTANCE: Layout[Instance] = Layout(rows=COMMON, mode=0o750)
INSTANCES: Layout[Tracing] = Layout(
    rows=(
        Children(
            names=_instance_names,
            get=lambda tracing, name: tracing.instances.get(name),
            layout=INSTANCE,
        ),
    ),
    mode=0o750,
    mkdir=Tracing.make_instance,
    rmdir=Tracing.remove_instance,
)
TOP: Layout[Instance] = Layout(
    rows=(
        *COMMON,
        Attr(
            name="README",
            mode=0o440,
            show=lambda m: readme(m.tracing.build),
            doc="What the files here are for.",
        ),
        Attr(
            name="available_events",
            mode=0o440,
            kind=TRACEFS_SEQ,
            show=lambda m: texts.available_events(m.tracing),
            doc="All events, SYSTEM:EVENT.",
        ),
        Attr(
            name="saved_cmdlines",
            mode=0o440,
            kind=TRACEFS_SEQ,
            show=lambda m: m.tracing.cmdlines.text(),
            doc="Names of the tasks seen in events.",
        ),
        Attr(
            name="saved_cmdlines_size",
            mode=0o640,
            kind=TRACEFS_STREAM,
            show=lambda m: f"{m.tracing.cmdlines.size}\n",
            store=lambda m, text: texts.write_cmdlines_size(m.tracing, text),
            doc="How many names are kept.",
            errors={EINVAL: "not a number from 1 to 32768"},
        ),
        Attr(
            name="saved_tgids",
            mode=0o440,
            kind=TRACEFS_SEQ,
            show=lambda m: m.tracing.cmdlines.tgids_text(),
            doc="Thread groups of tasks, while record-tgid is on.",
        ),
        Attr(
            name="printk_formats",
            mode=0o440,
            kind=TRACEFS_SEQ,
            show=lambda m: "",
            doc="Formats of trace_printk: none.",
        ),
        Dir(name="instances", layout=INSTANCES, of=_tracing),
    ),
    mode=0o700,
    kind=TRACEFS,
)


def mounts(tracing: Tracing) -> tuple[Mount, ...]:
    """One tree at two places."""
    return tuple(Mount(place, TOP, lambda: tracing.top) for place in PLACES)
