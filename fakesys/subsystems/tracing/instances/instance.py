"""One set of buffers with its own events, filters, triggers, clock and options."""

from __future__ import annotations

from errno import EBUSY, EINVAL
from typing import TYPE_CHECKING, Any, ClassVar

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.core.events import Task
from fakesys.core.waiters import Waiters
from fakesys.subsystems.tracing.base.clocks import NAMES, NOT_NS
from fakesys.subsystems.tracing.base.error_log import ErrorLog
from fakesys.subsystems.tracing.base.options import Options
from fakesys.subsystems.tracing.filter.filters import FilterError
from fakesys.subsystems.tracing.instances.event_file import NO_EXPRESSION, EventFile
from fakesys.subsystems.tracing.instances.pid_list import PidList
from fakesys.subsystems.tracing.output.render import Renderer
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import CpuBuffer, pages_for

if TYPE_CHECKING:
    from fakesys.subsystems.tracing.instances.tracing import Tracing

DEFAULT_KB = 1408
MINIMUM_PAGES = 2
WHOLE = -1
"""As a CPU number: all of them."""


class Instance:
    """The model behind the top directory and behind each directory in `instances/`."""

    # Open files of the process that it was saved in.
    UNSAVED: ClassVar = {"opened": int, "pauses": int, "pipe_readers": set}

    def __init__(self, tracing: Tracing, name: str = "") -> None:
        self.tracing = tracing
        self.name = name
        top = tracing.top_or_none
        self.options = Options(top=top is None, young=tracing.build.fields_option)
        if top is not None:
            self.options.copy(top.options)
        self.on = True
        # How many readers hold the recording (pause-on-trace).
        self.pauses = 0
        self.recording = True
        # How many open files keep the directory from being removed.
        self.opened = 0
        self.expanded = top is not None
        self.asked_kb: dict[int, int] = {}
        pages = pages_for(DEFAULT_KB) if self.expanded else MINIMUM_PAGES
        self.buffers = [CpuBuffer(pages) for _ in range(tracing.cpus)]
        for buffer in self.buffers:
            buffer.overwrite = self.options["overwrite"]
        self.snapshot: list[CpuBuffer] | None = None
        self.clock = NAMES[0]
        self.now = tracing.clocks.reader(self.clock)
        self.started_at = self.now()
        self.cpumask = (1 << tracing.cpus) - 1
        self.percent = 50
        self.pids = PidList()
        self.notrace_pids = PidList()
        self.errors = ErrorLog()
        self.waiters = Waiters()
        # Who reads which pipe: CPU numbers, WHOLE for the one of all CPUs.
        self.pipe_readers: set[int] = set()
        self._files: dict[str, EventFile] = {}

    def after_load(self) -> None:
        """No reader holds the recording."""
        self._update_recording()

    # Recording.

    def record(
        self,
        form: EventFormat,
        event: Any,
        task: Task,
        reserved: list[CpuBuffer] | None = None,
    ) -> bool:
        """Put an event into the buffer of its CPU; False when it was not recorded.

        `reserved`: the buffers in which it had its place before a trigger changed anything.
        """
        if not self.recording and reserved is None:
            return False
        tracing = self.tracing
        tracing.learn(task)
        return self.store(task.cpu, form.encode(event, task.pid), reserved)

    def store(self, cpu: int, payload: bytes, reserved: list[CpuBuffer] | None = None) -> bool:
        """Put an encoded event into the buffer of a CPU; False when it was dropped."""
        if cpu >= len(self.buffers):
            self.tracing.grow(cpu + 1)
        if not self.cpumask >> cpu & 1:
            return False
        buffers = self.buffers if reserved is None else reserved
        if not buffers[cpu].write(self.now(), payload):
            return False
        self.waiters.wake()
        return True

    @property
    def has_pid_lists(self) -> bool:
        """Is recording bound to some tasks?"""
        return bool(self.pids or self.notrace_pids)

    def traces_pid(self, pid: int) -> bool:
        """Are events of this task recorded?"""
        if self.pids and pid not in self.pids.pids:
            return False
        return pid not in self.notrace_pids.pids

    # Events.

    def file(self, form: EventFormat) -> EventFile:
        """The state of an event here; made when first asked for."""
        found = self._files.get(form.name)
        if found is None:
            found = self._files[form.name] = EventFile(self, form)
        return found

    def enabled_files(self) -> list[EventFile]:
        """All that are on or armed, in the order of `available_events`, `ftrace` last."""
        on = [file for file in self._files.values() if file.enabled]
        return sorted(on, key=lambda file: self.tracing.rank[file.form.name])

    def known_files(self) -> list[EventFile]:
        """All whose state somebody touched."""
        return list(self._files.values())

    def lists_changed(self) -> None:
        """After a change of the pid lists."""
        for file in self._files.values():
            file.refresh()
        self.tracing.update_watch()

    @property
    def follows_forks(self) -> bool:
        """Do children inherit their parents' places on the lists?"""
        return self.has_pid_lists and self.options["event-fork"]

    def family_changed(self, pid: int, child: int | None) -> None:
        """A task on a list has a child, or has ended (None)."""
        for pids in (self.pids.pids, self.notrace_pids.pids):
            if child is None:
                pids.discard(pid)
            elif pid in pids:
                pids.add(child)

    def log_filter_error(self, text: str, error: FilterError) -> None:
        """Note a wrong filter in `error_log`."""
        message = error.message or NO_EXPRESSION
        now = self.tracing.kernel.clock.now_ns
        self.errors.add(now, "event filter parse error", text, message, error.position)

    # Switches.

    def switch(self, on: bool) -> None:
        """`tracing_on`."""
        self.on = on
        self._update_recording()

    def pause(self, by: int) -> None:
        """One more (1) or one less (-1) reader that holds the recording."""
        self.pauses += by
        self._update_recording()

    def set_option(self, name: str, on: bool) -> None:
        """One of the switches. Raises EINVAL for an unknown name, and as `Tracing.option_changed`.

        Like kernel/trace/trace.c:set_tracer_flag (v6.18).
        """
        if self.options[name] is on:
            self.options.switch(name, on)
            return
        self.tracing.check_option(self, name, on)
        self.options.switch(name, on)
        if name == "overwrite":
            for buffer in self.all_buffers():
                buffer.overwrite = on
        self.tracing.option_changed(self, name, on)

    def set_clock(self, name: str) -> None:
        """Another clock, or the same; the buffer is cleared. Raises EINVAL."""
        self.now = self.tracing.clocks.reader(name)
        self.clock = name
        self.clear()

    @property
    def in_ns(self) -> bool:
        """Does the clock count nanoseconds?"""
        return self.clock not in NOT_NS

    def set_cpumask(self, mask: int) -> None:
        """Record on these CPUs only."""
        self.cpumask = mask

    # Buffers.

    def all_buffers(self) -> list[CpuBuffer]:
        """Those that record and those of the snapshot."""
        return [*self.buffers, *(self.snapshot or ())]

    def chosen(self, cpu: int) -> list[tuple[int, CpuBuffer]]:
        """The buffers of one CPU or, for WHOLE, of all, with their numbers."""
        if cpu == WHOLE:
            return list(enumerate(self.buffers))
        return [(cpu, self.buffers[cpu])]

    def clear(self, cpu: int = WHOLE) -> None:
        """Forget the events."""
        for _, buffer in self.chosen(cpu):
            buffer.reset()
        self.started_at = self.now()

    def resize(self, kilobytes: int, cpu: int = WHOLE) -> None:
        """Another size for each CPU or one. Raises EINVAL for 0, EBUSY while `trace` is open.

        Like kernel/trace/ring_buffer.c:ring_buffer_resize (v6.1), which looks at the size of a
        single CPU before it looks for readers.
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
        """The least that a buffer can be, as closing `free_buffer` does, unless it is read."""
        if any(buffer.readers for buffer in self.buffers):
            return
        self.asked_kb.clear()
        for buffer in self.buffers:
            buffer.resize(MINIMUM_PAGES)

    def expand(self) -> None:
        """Give the buffers the default size, on the first real use."""
        if self.expanded:
            return
        self.expanded = True
        for buffer in self.buffers:
            buffer.resize(pages_for(DEFAULT_KB))

    def size_kb(self, cpu: int) -> int:
        """The size of a CPU's buffer as `buffer_size_kb` shows it."""
        if self.tracing.build.size_shown == "allotted":
            return self.buffers[cpu].size_kb
        if self.buffers[cpu].limit == MINIMUM_PAGES and cpu not in self.asked_kb:
            return self.buffers[cpu].size_kb
        return self.asked_kb.get(cpu, DEFAULT_KB)

    def grow(self, cpus: int) -> None:
        """The machine has more CPUs than before."""
        for buffers in (self.buffers, self.snapshot or []):
            while buffers and len(buffers) < cpus:
                self.cpumask |= 1 << len(buffers)
                buffer = CpuBuffer(buffers[0].limit)
                buffer.overwrite = buffers[0].overwrite
                buffers.append(buffer)

    def swap_snapshot(self) -> None:
        """Change the buffers for those of the snapshot, whatever is in them.

        Like kernel/trace/trace.c:update_max_tr (v6.1), which clears neither.
        """
        kept = self.allot_snapshot()
        self.buffers, self.snapshot = kept, self.buffers
        self.waiters.wake()

    def allot_snapshot(self) -> list[CpuBuffer]:
        """The buffers of the snapshot, as large as those that record."""
        if self.snapshot is None:
            self.snapshot = [CpuBuffer(buffer.limit) for buffer in self.buffers]
        for kept, buffer in zip(self.snapshot, self.buffers, strict=True):
            kept.resize(buffer.limit)
            kept.overwrite = buffer.overwrite
        return self.snapshot

    def renderer(self) -> Renderer:
        """What makes lines with the options of this moment."""
        tracing = self.tracing
        return Renderer(tracing.by_id, self.options, tracing.cmdlines, self.clock, self.started_at)

    def close(self) -> None:
        """The directory is removed."""
        for file in self._files.values():
            file.close()
        self.waiters.wake()

    def _update_recording(self) -> None:
        self.recording = self.on and self.pauses == 0
        if not self.recording:
            self.waiters.wake()
