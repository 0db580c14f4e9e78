"""The table of an instance: the files that the top directory has too."""

from __future__ import annotations

from collections.abc import Callable
from errno import EBADF, EBUSY, EINVAL, ENODEV, EOVERFLOW, EPERM, ERANGE

from fakesys.subsystems.tracing.base.policy import TraceFeature
from fakesys.subsystems.tracing.files import markers, settings
from fakesys.subsystems.tracing.files.events import EVENTS
from fakesys.subsystems.tracing.files.open_files import PipeFile, TraceFile, WriteOnlyFile, is_read
from fakesys.subsystems.tracing.files.options import OPTIONS
from fakesys.subsystems.tracing.files.per_cpu import CPUS, NUMBER, ONE_READER, SHOWN
from fakesys.subsystems.tracing.files.snapshot import SnapshotFile
from fakesys.subsystems.tracing.instances import set_event
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.instances.pid_list import PidList
from fakesys.subsystems.tracing.ring_buffer.buffer_set import ALL_CPUS
from fakesys.tree.attr import Attr, Dir, Handle, Layout
from fakesys.tree.kinds import TRACEFS_SEQ, TRACEFS_STREAM, TRACEFS_WHOLE, TRACEFS_WORDS

PIDS = {EINVAL: "not a pid", EPERM: "a pid has at most 30 bits"}
MARKER = {
    EINVAL: "the option markers is off, or a raw marker of a wrong length",
    EBADF: "nothing is recorded, or the buffer is full and must not be overwritten",
    ENODEV: "no instance takes the markers of the top directory",
}


def _open_trace(instance: Instance, flags: int) -> Handle:
    return TraceFile(instance, instance.buffers.chosen(ALL_CPUS), is_read(flags))


def _write_only(store: Callable[[Instance, bytes], int]) -> Callable[[Instance, int], Handle]:
    return lambda instance, flags: WriteOnlyFile(instance, store)


def _open_free_buffer(instance: Instance, flags: int) -> Handle:
    return WriteOnlyFile(instance, lambda _, data: len(data), settings.free_on_close)


def _write_pids(choose: Callable[[Instance], PidList]) -> Callable[[Instance, str], int]:
    def store(instance: Instance, text: str) -> int:
        taken = choose(instance).add(text)
        instance.pids_changed()
        return taken

    return store


def _clear_pids(choose: Callable[[Instance], PidList]) -> Callable[[Instance], None]:
    def clear(instance: Instance) -> None:
        choose(instance).clear()
        instance.pids_changed()

    return clear


def _pids(instance: Instance) -> PidList:
    return instance.pids


def _notrace_pids(instance: Instance) -> PidList:
    return instance.notrace_pids


def _has_snapshot(instance: Instance) -> bool:
    return instance.shared.build.snapshot


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
        open=lambda instance, flags: PipeFile(instance, ALL_CPUS),
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
        show=set_event.set_event_text,
        store=set_event.write_set_event,
        truncate=set_event.clear_events,
        hold=settings.hold,
        doc="The enabled events; one word per write: SYSTEM:EVENT, SYSTEM:*, EVENT, !...",
        errors={EINVAL: "no event has this name"},
    ),
    Attr(
        name="set_event_pid",
        mode=0o640,
        kind=TRACEFS_WORDS,
        show=lambda instance: instance.pids.text(),
        store=_write_pids(_pids),
        truncate=_clear_pids(_pids),
        hold=settings.hold,
        doc="Only events of these tasks are recorded.",
        errors=PIDS,
    ),
    Attr(
        name="set_event_notrace_pid",
        mode=0o640,
        kind=TRACEFS_WORDS,
        show=lambda instance: instance.notrace_pids.text(),
        store=_write_pids(_notrace_pids),
        truncate=_clear_pids(_notrace_pids),
        hold=settings.hold,
        doc="No events of these tasks are recorded.",
        errors=PIDS,
    ),
    Attr(
        name="current_tracer",
        mode=0o640,
        show=lambda instance: f"{instance.tracer}\n",
        store=settings.write_tracer,
        hold=settings.hold,
        doc="nop or blk; a change clears the buffers.",
        errors={EINVAL: "there is no such tracer"},
    ),
    Attr(
        name="available_tracers",
        mode=0o440,
        kind=TRACEFS_SEQ,
        show=lambda instance: " ".join(instance.tracers) + "\n",
        doc="What can be written to current_tracer.",
    ),
    Attr(
        name="tracing_on",
        mode=0o640,
        show=lambda instance: f"{int(instance.on)}\n",
        store=settings.write_tracing_on,
        hold=settings.hold,
        doc="0: nothing is recorded, the buffers stay as they are.",
        errors=NUMBER | {ERANGE: "it does not fit into 64 bits"},
    ),
    Attr(
        name="trace_clock",
        mode=0o640,
        kind=TRACEFS_SEQ,
        show=settings.clock_text,
        store=settings.write_clock,
        hold=settings.hold,
        doc="Which clock stamps the events; writing one clears the buffers.",
        errors={EINVAL: "there is no such clock"},
    ),
    Attr(
        name="timestamp_mode",
        mode=0o440,
        kind=TRACEFS_SEQ,
        show=lambda instance: "[delta] absolute\n",
        doc="Time stamps are stored as differences.",
    ),
    Attr(
        name="trace_options",
        mode=0o640,
        kind=TRACEFS_SEQ,
        show=lambda instance: instance.options.text(instance.tracer),
        store=settings.write_option,
        hold=settings.hold,
        doc="Switches; one NAME or noNAME per write.",
        errors={EINVAL: "there is no such option, or it cannot be changed"},
    ),
    Attr(
        name="tracing_cpumask",
        mode=0o640,
        kind=TRACEFS_WHOLE,
        show=settings.cpumask_text,
        store=settings.write_cpumask,
        hold=settings.hold,
        doc="Which CPUs record, as a hex mask.",
        errors={
            EINVAL: "not a hex mask; reading: fewer bytes than the mask",
            EOVERFLOW: "there are fewer CPUs",
        },
    ),
    Attr(
        name="buffer_size_kb",
        mode=0o640,
        show=settings.size_text,
        store=lambda instance, text: instance.buffers.resize(settings.decimal(text)),
        hold=settings.hold,
        doc="Size of each CPU's buffer; X when they differ.",
        errors=NUMBER | SHOWN,
    ),
    Attr(
        name="buffer_subbuf_size_kb",
        mode=0o640,
        needs=TraceFeature.SUBBUF_SIZE,
        show=lambda instance: f"{4 << instance.buffers.order}\n",
        store=lambda instance, text: instance.buffers.set_page_kb(settings.decimal(text)),
        hold=settings.hold,
        doc="Size of a page of the buffers; a change drops all events.",
        errors=NUMBER,
    ),
    Attr(
        name="buffer_total_size_kb",
        mode=0o440,
        show=settings.total_size_text,
        doc="Size of all buffers.",
    ),
    Attr(
        name="buffer_percent",
        mode=0o640,
        show=lambda instance: f"{instance.percent}\n",
        store=settings.write_percent,
        hold=settings.hold,
        doc="How full a buffer must be to wake pollers.",
        errors={EINVAL: "not a number up to 100"},
    ),
    Attr(
        name="error_log",
        mode=0o640,
        kind=TRACEFS_SEQ,
        show=lambda instance: instance.errors.text(),
        store=lambda instance, text: None,
        truncate=lambda instance: instance.errors.clear(),
        hold=settings.hold,
        doc="The last eight mistakes in filters and triggers; O_TRUNC clears them.",
    ),
    Attr(
        name="snapshot",
        mode=0o640,
        kind=TRACEFS_SEQ,
        present=_has_snapshot,
        open=lambda instance, flags: SnapshotFile(instance, ALL_CPUS),
        doc="0 frees the snapshot, 1 takes one, another number clears it.",
        errors={
            EINVAL: "not a number; or 0 for one CPU",
            EBUSY: "a histogram takes the snapshots",
        },
    ),
    *EVENTS,
    Dir(name="options", layout=OPTIONS),
    Dir(name="per_cpu", layout=CPUS),
)
INSTANCE: Layout[Instance] = Layout(rows=COMMON, mode=0o750)
