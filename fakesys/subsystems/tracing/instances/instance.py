"""One set of buffers with its own events, filters, triggers, clock and options.

Like `struct trace_array` of kernel/trace/trace.h (v6.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import EBUSY, EINVAL
from typing import Any, ClassVar, Protocol

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.core.events import Task
from fakesys.core.waiters import Waiters
from fakesys.subsystems.tracing.base.clocks import NAMES, NOT_NS
from fakesys.subsystems.tracing.base.error_log import ErrorLog
from fakesys.subsystems.tracing.base.options import Options
from fakesys.subsystems.tracing.filter.dialect import Dialect, FilterError
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.pid_list import PidList
from fakesys.subsystems.tracing.instances.shared import Shared
from fakesys.subsystems.tracing.output.render import Renderer
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import CpuBuffer, pages_for

DEFAULT_KB = 1408
MINIMUM_PAGES = 2
WHOLE = -1
"""As a CPU number: all CPUs (RING_BUFFER_ALL_CPUS)."""
NO_EXPRESSION = "Error"


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


class Instance:
    """The model of the top directory and of each directory in `instances/`.

    `expanded`: have the buffers their default size? The top directory's get it on first use.
    """

    # Open files of the process that it was saved in.
    UNSAVED: ClassVar = {"opened": int, "pauses": int, "pipe_readers": set}

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
        self.expanded = expanded
        self.asked_kb: dict[int, int] = {}
        pages = pages_for(DEFAULT_KB) if expanded else MINIMUM_PAGES
        overwrite = options["overwrite"]
        self.buffers = [CpuBuffer(pages, overwrite=overwrite) for _ in range(shared.cpus)]
        self.snapshot: list[CpuBuffer] | None = None
        self.clock = NAMES[0]
        self.now = shared.clocks.reader(self.clock)
        self.started_at = self.now()
        self.cpumask = (1 << shared.cpus) - 1
        self.percent = 50
        self.pids = PidList()
        self.notrace_pids = PidList()
        self.errors = ErrorLog()
        self.waiters = Waiters()
        # Which pipes have a reader: CPU numbers, WHOLE for the pipe of all CPUs.
        self.pipe_readers: set[int] = set()
        self._files: dict[str, EventFile] = {}

    def after_load(self) -> None:
        """Record again if it was a reader of the saved process that held the recording."""
        self._update_recording()

    # Recording.

    def record(
        self,
        form: EventFormat,
        event: Any,
        task: Task,
        reserved: list[CpuBuffer] | None = None,
    ) -> bool:
        """Put an event into the buffer of its CPU; return False if it was not recorded.

        `reserved`: the buffers in which it had its place before a trigger changed anything.
        """
        if not self.recording and reserved is None:
            return False
        self.shared.cmdlines.learn(task)
        return self.store(task.cpu, form.encode(event, task.pid), reserved)

    def store(self, cpu: int, payload: bytes, reserved: list[CpuBuffer] | None = None) -> bool:
        """Put an encoded event into the buffer of a CPU; return False if it was dropped."""
        if cpu >= len(self.buffers):
            self.owner.grow(cpu + 1)
        if not self.cpumask >> cpu & 1:
            return False
        buffers = self.buffers if reserved is None else reserved
        if not buffers[cpu].write(self.now(), payload):
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
        self.expand()
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
            for buffer in self.all_buffers():
                buffer.overwrite = on
        self.owner.option_changed(self, name, on)

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

    def all_buffers(self) -> list[CpuBuffer]:
        """Return the buffers that record and those of the snapshot."""
        return [*self.buffers, *(self.snapshot or ())]

    def chosen(self, cpu: int) -> list[tuple[int, CpuBuffer]]:
        """Return the buffer of one CPU or, for WHOLE, all buffers, with their numbers."""
        if cpu == WHOLE:
            return list(enumerate(self.buffers))
        return [(cpu, self.buffers[cpu])]

    def clear(self, cpu: int = WHOLE) -> None:
        """Drop the recorded events."""
        for _, buffer in self.chosen(cpu):
            buffer.reset()
        self.started_at = self.now()

    def resize(self, kilobytes: int, cpu: int = WHOLE) -> None:
        """Change the size of one CPU's buffer or of each.

        Raises EINVAL for 0, EBUSY while `trace` is open. Like
        kernel/trace/ring_buffer.c:ring_buffer_resize (v6.1), which looks at the size of a single
        CPU before it looks for readers.
        """
        if kilobytes == 0:
            raise KernelError(EINVAL, "a buffer has at least one KB")
        self.expand()
        pages = pages_for(kilobytes)
        chosen = self.chosen(cpu)
        if any(buffer.readers for _, buffer in chosen if cpu == WHOLE or buffer.limit != pages):
            raise KernelError(EBUSY, "an open file shows the events of this buffer")
        for number, buffer in chosen:
            self.asked_kb[number] = kilobytes
            buffer.resize(pages)

    def shrink(self) -> None:
        """Make the buffers as small as possible, as closing `free_buffer` does.

        Does nothing while a file shows the events of one.
        """
        if any(buffer.readers for buffer in self.buffers):
            return
        self.asked_kb.clear()
        for buffer in self.buffers:
            buffer.resize(MINIMUM_PAGES)

    def expand(self) -> None:
        """Give the buffers the default size, on the first use."""
        if self.expanded:
            return
        self.expanded = True
        for buffer in self.buffers:
            buffer.resize(pages_for(DEFAULT_KB))

    def size_kb(self, cpu: int) -> int:
        """Return the size of a CPU's buffer in KB, as `buffer_size_kb` shows it."""
        if self.shared.build.size_shown == "allotted":
            return self.buffers[cpu].size_kb
        if self.buffers[cpu].limit == MINIMUM_PAGES and cpu not in self.asked_kb:
            return self.buffers[cpu].size_kb
        return self.asked_kb.get(cpu, DEFAULT_KB)

    def grow(self, cpus: int) -> None:
        """Add buffers for further CPUs, which record too."""
        for buffers in (self.buffers, self.snapshot or []):
            while buffers and len(buffers) < cpus:
                self.cpumask |= 1 << len(buffers)
                buffers.append(CpuBuffer(buffers[0].limit, overwrite=buffers[0].overwrite))

    def swap_snapshot(self) -> None:
        """Exchange the buffers with those of the snapshot, whatever is in them.

        Like kernel/trace/trace.c:update_max_tr (v6.1), which clears neither.
        """
        kept = self.allot_snapshot()
        self.buffers, self.snapshot = kept, self.buffers
        self.waiters.wake()

    def swap_cpu_snapshot(self, cpu: int) -> None:
        """Exchange the buffer of one CPU. Like kernel/trace/trace.c:update_max_tr_single (v6.1)."""
        kept = self.allot_snapshot()
        self.buffers[cpu], kept[cpu] = kept[cpu], self.buffers[cpu]

    def allot_snapshot(self) -> list[CpuBuffer]:
        """Return the buffers of the snapshot, made as large as those that record."""
        if self.snapshot is None:
            self.snapshot = [CpuBuffer(buffer.limit) for buffer in self.buffers]
        for kept, buffer in zip(self.snapshot, self.buffers, strict=True):
            kept.resize(buffer.limit)
            kept.overwrite = buffer.overwrite
        return self.snapshot

    def free_snapshot(self) -> None:
        """Drop the snapshot and its buffers."""
        self.snapshot = None

    def renderer(self) -> Renderer:
        """Return a renderer of lines with the options of this moment."""
        shared = self.shared
        formats = shared.catalog.by_id
        return Renderer(formats, self.options, shared.cmdlines, self.clock, self.started_at)

    def close(self) -> None:
        """Detach all events and wake all waiters: the directory is removed."""
        for file in self._files.values():
            file.close()
        self.waiters.wake()

    def _update_recording(self) -> None:
        self.recording = self.on and self.pauses == 0
        if not self.recording:
            self.waiters.wake()
