"""One set of buffers with its own events, filters, triggers, clock and options.

Like `struct trace_array` of kernel/trace/trace.h (v6.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import EINVAL
from typing import Any, Protocol

from msgspec import Struct

from fakesys.core.errors import KernelError, Waiters
from fakesys.core.event_format import EventFormat
from fakesys.core.events import Task
from fakesys.subsystems.tracing.base.clocks import NAMES, NOT_NS
from fakesys.subsystems.tracing.base.error_log import ErrorLog
from fakesys.subsystems.tracing.base.options import Options
from fakesys.subsystems.tracing.events.ftrace import stack_of
from fakesys.subsystems.tracing.events.stacks import MARKER_STACK, PROBE, chain_of
from fakesys.subsystems.tracing.filter.dialect import Dialect, FilterError
from fakesys.subsystems.tracing.hist.histogram import Histogram, Key
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.pid_list import PidList
from fakesys.subsystems.tracing.instances.shared import Shared
from fakesys.subsystems.tracing.instances.synthetic import SyntheticEvents
from fakesys.subsystems.tracing.output.render import Renderer
from fakesys.subsystems.tracing.ring_buffer.buffer_set import ALL_CPUS, BufferSet
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import CpuBuffer

NO_EXPRESSION = "Error"
NOP, BLK = "nop", "blk"


class Owner(Protocol):
    """What an instance, and the files that show it, need of all of tracing."""

    @property
    def instances(self) -> Mapping[str, Instance]:
        """All instances but the top directory, by name."""

    @property
    def hears_anything(self) -> bool:
        """Is any event recorded or needed in any instance?"""

    def every_instance(self) -> list[Instance]:
        """Return the top directory and all other instances."""

    def make_instance(self, name: str) -> None:
        """Do what `mkdir instances/NAME` does."""

    def remove_instance(self, name: str) -> None:
        """Do what `rmdir instances/NAME` does."""

    def marker_receivers(self, instance: Instance) -> list[Instance]:
        """Return the instances that record a marker written to this one."""

    def check_option(self, instance: Instance, name: str, on: bool) -> None:
        """Refuse a change of an option that the whole of tracing does not allow."""

    def option_changed(self, instance: Instance, name: str, on: bool) -> None:
        """Do what a changed option means beyond its instance."""

    def attach(self, file: EventFile) -> None:
        """Send the event to this file from now on."""

    def detach(self, file: EventFile) -> None:
        """Stop sending the event to this file."""

    def grow(self, cpus: int) -> None:
        """Give every instance the buffers of this many CPUs."""

    def update_watch(self) -> None:
        """Watch the requests of clients if any instance needs that."""

    @property
    def synthetic(self) -> SyntheticEvents:
        """The events that histograms make."""

    def next_serial(self) -> int:
        """Return a number for a new histogram."""


class Watch(Struct):
    """What a histogram that takes snapshots has seen: the last value, its key, and its task.

    Like `struct cond_snapshot` of kernel/trace/trace.h, `struct track_data` of
    kernel/trace/trace_events_hist.c (v6.1).
    """

    histogram: Histogram
    value: int = 0
    key: Key = ()
    comm: str = ""
    updated: bool = False


class Instance:
    """The model of the top directory and of each directory in `instances/`.

    `expanded`: have the buffers their default size? The top directory's get it on first use.
    """

    def __init__(self, owner: Owner, shared: Shared, options: Options, *, expanded: bool) -> None:
        self.owner = owner
        self.shared = shared
        self.options = options
        self.on = True
        # How many readers hold the recording (pause-on-trace).
        self.pauses = 0
        self.recording = True
        # How many open files keep the directory from being removed.
        self.opened = 0
        overwrite = options["overwrite"]
        self.buffers = BufferSet(shared.cpus, expanded=expanded, overwrite=overwrite)
        self.tracer = NOP
        self.clock = NAMES[0]
        self.now = shared.clocks.reader(self.clock)
        self.started_at = self.now()
        self.cpumask = (1 << shared.cpus) - 1
        self.percent = 50
        self.pids = PidList()
        self.notrace_pids = PidList()
        self.errors = ErrorLog()
        # The histogram that takes snapshots, if one does.
        self.watch: Watch | None = None
        self.waiters = Waiters()
        # Which pipes have a reader: CPU numbers, ALL_CPUS for the pipe of all CPUs.
        self.pipe_readers: set[int] = set()
        self._files: dict[str, EventFile] = {}

    # Recording.

    def record(
        self,
        form: EventFormat,
        event: Any,
        task: Task,
        reserved: list[CpuBuffer] | None = None,
        stamp: int | None = None,
    ) -> bool:
        """Put an event into the buffer of its CPU; return False if it was not recorded.

        `reserved`: the buffers in which it had its place before a trigger changed anything.
        `stamp`: the time that triggers took it to be.
        """
        if not self.recording and reserved is None:
            return False
        cmdlines = self.shared.cmdlines
        if task is not cmdlines.newest:
            cmdlines.learn(task)
        cpu = task.cpu
        buffers = self.buffers.live if reserved is None else reserved
        if cpu >= len(buffers):
            self.owner.grow(cpu + 1)
        if not self.cpumask >> cpu & 1:
            return False
        # The time, then the record: `write` of the buffer does not ask the clock.
        now = self.now() if stamp is None else stamp
        if not buffers[cpu].put(now, form, event, task.pid):
            return False
        self.waiters.wake()
        if self.options.stacks:
            self.record_stack(form, task)
        return True

    def record_stack(self, form: EventFormat, task: Task) -> None:
        """Record the call chain that led to an event. Like trace.c:ftrace_trace_stack (v6.1)."""
        if not self.recording:
            return
        self.shared.cmdlines.learn(task)
        catalog = self.shared.catalog
        if form is catalog.print:
            chain = MARKER_STACK
        else:
            chain = (PROBE, *chain_of(form.system, form.event, task))
        self.store(task.cpu, catalog.stack.encode(stack_of(chain), task.pid))

    def store(
        self,
        cpu: int,
        payload: bytes,
        reserved: list[CpuBuffer] | None = None,
        stamp: int | None = None,
    ) -> bool:
        """Put an encoded event into the buffer of a CPU; return False if it was dropped."""
        if reserved is None:
            reserved = self.buffers.live
        if cpu >= len(reserved):
            self.owner.grow(cpu + 1)
        if not self.cpumask >> cpu & 1:
            return False
        if not reserved[cpu].write(self.now() if stamp is None else stamp, payload):
            return False
        self.waiters.wake()
        return True

    @property
    def has_pid_lists(self) -> bool:
        """Is recording restricted to some tasks?"""
        return bool(self.pids or self.notrace_pids)

    def traces_pid(self, pid: int) -> bool:
        """Return whether events of this task are recorded."""
        if self.pids and pid not in self.pids.pids:
            return False
        return pid not in self.notrace_pids.pids

    # Events.

    def file(self, form: EventFormat) -> EventFile:
        """Return the state of an event in this instance; made when first asked for."""
        found = self._files.get(form.name)
        if found is None:
            found = self._files[form.name] = EventFile(self, form)
        return found

    def known_file(self, form: EventFormat) -> EventFile | None:
        """Return the state of an event if it was asked for before."""
        return self._files.get(form.name)

    def forget(self, form: EventFormat) -> None:
        """Drop the state of an event that is gone."""
        self._files.pop(form.name, None)

    def enabled_files(self) -> list[EventFile]:
        """Return the attached event files in the order of `available_events`, `ftrace` last."""
        rank = self.shared.catalog.rank
        return sorted(
            (file for file in self._files.values() if file.enabled),
            key=lambda file: rank(file.form),
        )

    def known_files(self) -> list[EventFile]:
        """Return the event files that were asked for so far, in that order."""
        return list(self._files.values())

    def attach(self, file: EventFile) -> None:
        """Send the event to this file from now on; the first one gives the buffers their size."""
        self.buffers.expand()
        self.owner.attach(file)

    def detach(self, file: EventFile) -> None:
        """Stop sending the event to this file."""
        self.owner.detach(file)

    @property
    def dialect(self) -> Dialect:
        """What filters can express."""
        return self.shared.dialect

    def log_filter_error(self, text: str, error: FilterError) -> None:
        """Append a wrong filter to `error_log`."""
        message = error.message or NO_EXPRESSION
        now = self.shared.kernel.clock.now_ns
        self.errors.add(now, "event filter parse error", text, message, error.position)

    def log_mistake(self, where: str, command: str, message: str, at: str | None) -> None:
        """Append a mistake in a command to `error_log`; `at`: the wrong part, None for all."""
        position = max(0, command.find(at)) if at else 0
        self.errors.add(self.shared.kernel.clock.now_ns, where, command, message, position)

    # Lists of pids.

    def pids_changed(self) -> None:
        """Follow a change of `pids` or `notrace_pids`; to be called after each."""
        for file in self._files.values():
            file.refresh()
        self.owner.update_watch()

    @property
    def follows_forks(self) -> bool:
        """Do children inherit their parents' places on the lists?"""
        return self.has_pid_lists and self.options["event-fork"]

    def forked(self, parent: int, child: int) -> None:
        """Put the child of a task on the lists that the task is on."""
        for pids in (self.pids.pids, self.notrace_pids.pids):
            if parent in pids:
                pids.add(child)

    def exited(self, pid: int) -> None:
        """Take a task off the lists."""
        for pids in (self.pids.pids, self.notrace_pids.pids):
            pids.discard(pid)

    # Switches.

    def switch(self, on: bool) -> None:
        """Set `tracing_on`."""
        self.on = on
        self._update_recording()

    def pause(self) -> None:
        """Stop recording until `resume`: a reader with the option pause-on-trace."""
        self.pauses += 1
        self._update_recording()

    def resume(self) -> None:
        """Undo one `pause`."""
        self.pauses -= 1
        self._update_recording()

    def set_option(self, name: str, on: bool) -> None:
        """Set or clear an option.

        Raises EINVAL for an unknown name and for what `Owner.check_option` refuses.
        Like kernel/trace/trace.c:set_tracer_flag (v6.18).
        """
        if self.options[name] is on:
            self.options.switch(name, on)
            return
        self.owner.check_option(self, name, on)
        self.options.switch(name, on)
        if name == "overwrite":
            self.buffers.set_overwrite(on)
        self.owner.option_changed(self, name, on)

    @property
    def tracers(self) -> tuple[str, ...]:
        """The tracers that it can have: that of block devices is for the top directory only."""
        return (BLK, NOP) if self.options.top else (NOP,)

    def set_tracer(self, name: str) -> None:
        """Choose a tracer; another than the present one clears the buffers. Raises EINVAL.

        Like kernel/trace/trace.c:tracing_set_tracer (v6.1).
        """
        self.buffers.expand()
        if name not in self.tracers:
            raise KernelError(EINVAL, f"there is no tracer {name!r}")
        if name != self.tracer:
            self.tracer = name
            self.clear()

    def set_clock(self, name: str) -> None:
        """Choose a clock and clear the buffers, even if it is the same. Raises EINVAL."""
        self.now = self.shared.clocks.reader(name)
        self.clock = name
        self.clear()

    @property
    def in_ns(self) -> bool:
        """Does the clock count nanoseconds?"""
        return self.clock not in NOT_NS

    # Buffers.

    def clear(self, cpu: int = ALL_CPUS) -> None:
        """Drop the recorded events."""
        for _, buffer in self.buffers.chosen(cpu):
            buffer.reset()
        self.started_at = self.now()

    def size_kb(self, cpu: int) -> int:
        """Return the size of a CPU's buffer in KB, as `buffer_size_kb` shows it."""
        if self.shared.build.size_shown == "allotted":
            return self.buffers.live[cpu].size_kb
        return self.buffers.asked_kb(cpu)

    def grow(self, cpus: int) -> None:
        """Record on further CPUs too."""
        for cpu in range(len(self.buffers), cpus):
            self.cpumask |= 1 << cpu
        self.buffers.grow(cpus)

    def swap_snapshot(self) -> None:
        """Make what is recorded now the snapshot, and go on with the buffers of the last one."""
        self.buffers.swap()
        self.waiters.wake()

    def renderer(self) -> Renderer:
        """Return a renderer of lines with the options of this moment."""
        shared = self.shared
        catalog = shared.catalog
        return Renderer(
            catalog.by_id,
            catalog.printers,
            self.options,
            shared.cmdlines,
            self.clock,
            self.started_at,
        )

    def close(self) -> None:
        """Detach all events and wake all waiters: the directory is removed."""
        for file in self._files.values():
            file.close()
        self.waiters.wake()

    def _update_recording(self) -> None:
        self.recording = self.on and self.pauses == 0
        if not self.recording:
            self.waiters.wake()
