"""Open files of tracefs that are more than a text: `trace`, pipes, raw pages, markers.

Like kernel/trace/trace.c:tracing_fops, tracing_pipe_fops, tracing_buffers_fops (v6.1).
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from errno import EAGAIN, EBUSY, EINTR, EINVAL

from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.output.headers import header
from fakesys.subsystems.tracing.output.iterators import Consumer, TraceIterator
from fakesys.subsystems.tracing.output.render import LineMaker, Renderer
from fakesys.subsystems.tracing.ring_buffer.buffer_set import ALL_CPUS
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import PAGE_HEADER, CpuBuffer
from fakesys.subsystems.tracing.ring_buffer.raw_page import RawPage

READABLE = select.POLLIN | select.POLLRDNORM
# The kernel asks for a page to be spliced once to read ahead, and once more in vain.
REQUESTS_OF_A_PAGE = 2
ALWAYS = READABLE | select.POLLOUT | select.POLLWRNORM


def is_read(flags: int) -> bool:
    """Return whether open(2) flags allow reading."""
    return flags & os.O_ACCMODE != os.O_WRONLY


class InstanceFile:
    """The base of these files: while one is open, its instance cannot be removed."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        instance.opened += 1
        self._open = True

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Refuse to read: raises EINVAL."""
        raise KernelError(EINVAL, "this file cannot be read")

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Refuse to write: raises EINVAL."""
        raise KernelError(EINVAL, "this file cannot be written")

    def poll(self) -> int:
        """Return that the file is always ready."""
        return ALWAYS

    def waiters(self) -> Waiters | None:
        """Return None: the answer of `poll` never changes."""
        return None

    def release(self) -> None:
        """Let the instance go; a second call does nothing."""
        if self._open:
            self._open = False
            self.instance.opened -= 1
            self.closed()

    def closed(self) -> None:
        """Undo what a subclass did at open."""


class TraceFile(InstanceFile):
    """`trace`: header and all unread events as they were when reading began.

    `reading`: is it open for reading? Then its buffers keep their size, and with the option
    pause-on-trace the instance records nothing.
    """

    def __init__(
        self, instance: Instance, buffers: list[tuple[int, CpuBuffer]], reading: bool
    ) -> None:
        super().__init__(instance)
        self._buffers = buffers
        self._held = [buffer for _, buffer in buffers] if reading else []
        for buffer in self._held:
            buffer.readers += 1
        self._chunks: Iterator[bytes] = iter(())
        self._buffered = b""
        # Where the buffered text begins in the file; None before the first read.
        self._start: int | None = None
        self._pausing = reading and instance.options["pause-on-trace"]
        if self._pausing:
            instance.pause()

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Return the text at this offset; 0 or an earlier one begins a new text."""
        if self._start is None or offset < self._start or offset == 0:
            self._restart()
        assert self._start is not None
        while True:
            have = self._start + len(self._buffered) - offset
            if have > 0:
                break
            self._start += len(self._buffered)
            self._buffered = next(self._chunks, b"")
            if not self._buffered:
                return b""
        begin = offset - self._start
        pieces = [self._buffered[begin : begin + size]]
        missing = size - len(pieces[0])
        while missing > 0 and (chunk := next(self._chunks, b"")):
            self._start += len(self._buffered)
            self._buffered = chunk
            pieces.append(chunk[:missing])
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Ignore the data: only opening with O_TRUNC clears the buffer."""
        return len(data)

    def closed(self) -> None:
        """Release the buffers and go on recording."""
        for buffer in self._held:
            buffer.readers -= 1
        if self._pausing:
            self.instance.resume()

    def _restart(self) -> None:
        self._start = 0
        self._buffered = b""
        self._chunks = self._text()

    def _text(self) -> Iterator[bytes]:
        instance = self.instance
        events = TraceIterator(self._buffers)
        yield self.head(TraceIterator(self.all_buffers()), empty=not events.entries)
        annotate = instance.options["annotate"] and events.overrun > 0
        for chunk in events.chunks(instance.renderer(), annotate=annotate):
            if chunk:
                yield chunk

    def all_buffers(self) -> list[tuple[int, CpuBuffer]]:
        """Return the buffers that the header counts, also for one CPU: trace.c:print_event_info."""
        return self.instance.buffers.chosen(ALL_CPUS)

    def head(self, counted: TraceIterator, *, empty: bool) -> bytes:
        """Return the comment lines. `empty`: no event follows."""
        instance = self.instance
        shared = instance.shared
        entries, written = counted.entries, counted.entries + counted.overrun
        return header(
            instance.tracer,
            instance.options,
            entries,
            written,
            shared.cpus,
            shared.build,
            empty=empty,
        ).encode()


class PipeFile(InstanceFile):
    """`trace_pipe` of all CPUs or one: reading consumes the events.

    Opening raises EBUSY while a pipe is open that consumes from the same buffers.
    """

    def __init__(self, instance: Instance, cpu: int) -> None:
        readers = instance.pipe_readers
        if cpu in readers or ALL_CPUS in readers or (cpu == ALL_CPUS and readers):
            raise KernelError(EBUSY, "another reader has this pipe open")
        super().__init__(instance)
        readers.add(cpu)
        self._cpu = cpu
        self._rest = b""
        # Has this reader got anything yet? Only then a read while tracing is off is the end.
        self._served = False
        self._renderer: Renderer | None = None
        self._rendered_as: tuple[int, str, int] | None = None

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Return lines of about `size` bytes, consumed.

        Without an event: raises EAGAIN or Blocked; the end after tracing was switched off.
        """
        if not self._rest:
            self._rest = self._lines(size)
        if self._rest:
            self._served = True
            taken, self._rest = self._rest[:size], self._rest[size:]
            return taken
        if nonblock:
            raise KernelError(EAGAIN, "no event")
        if self._served and not self.instance.recording:
            return b""
        raise Blocked(self.instance.waiters)

    def poll(self) -> int:
        """Return whether the file is readable, see `has_enough`."""
        return READABLE if self._rest or has_enough(self.instance, self._cpu) else 0

    def waiters(self) -> Waiters | None:
        """Return the waiters that each event wakes."""
        return self.instance.waiters

    def closed(self) -> None:
        """Let another reader in."""
        self.instance.pipe_readers.discard(self._cpu)

    def _lines(self, size: int) -> bytes:
        instance = self.instance
        consumer = Consumer(instance.buffers.chosen(self._cpu))
        make = self._line_maker()
        room = instance.shared.build.pipe_buffer
        lines: list[str] = []
        length = 0
        for cpu, record, lost in consumer:
            if length >= size:
                break
            line = make(record.stamp, cpu, record.payload)
            if lost:
                line = f"CPU:{cpu} [LOST {lost} EVENTS]\n{line}"
            if length and length + len(line) > room:
                break
            lines.append(line)
            length += len(line)
        return "".join(lines).encode("latin-1")

    def _line_maker(self) -> LineMaker:
        """Return the maker of lines, kept as long as options, clock and start are the same."""
        instance = self.instance
        now = instance.options.version, instance.clock, instance.started_at
        if self._renderer is None or self._rendered_as != now:
            self._renderer, self._rendered_as = instance.renderer(), now
        return self._renderer.line


class RawPipeFile(InstanceFile):
    """`trace_pipe_raw`: one page of records per read."""

    def __init__(self, instance: Instance, cpu: int) -> None:
        super().__init__(instance)
        self._cpu = cpu
        self._rest = b""
        # How much was read and spliced, which is the position in the file.
        self._position = 0
        # The page that was spliced last.
        self._spliced = b""
        # How often splice must not wait, because pages of the same call may be in its pipe.
        self._impatient = 0

    def page(self, offset: int, *, nonblock: bool) -> bytes:
        """Return a full page for splice(2). Raises EAGAIN, EINTR or Blocked if there is none.

        A call that has moved pages ends with them. It shows only by its next request, so that is
        interrupted; a call without pages then waits. Raises EINVAL within a page.
        Like kernel/trace/trace.c:tracing_buffers_splice_read (v6.1).
        Differs: refuses pages of more than a page of memory; they are for read(2) only.
        """
        if self.instance.buffers.order:
            raise KernelError(EINVAL, "FUSE moves pages of memory")
        if self._spliced and offset == self._position - len(self._spliced):
            return self._spliced
        if self._rest or offset != self._position:
            raise KernelError(EINVAL, "a page was read in part")
        if not self.instance.buffers.live[self._cpu].has_full_page():
            if nonblock:
                raise KernelError(EAGAIN, "no full page")
            if self._impatient:
                self._impatient -= 1
                raise KernelError(EINTR, "no further page")
            raise Blocked(self.instance.waiters)
        self._spliced = self._take(PAGE_HEADER + self.instance.buffers.room)
        self._position += len(self._spliced)
        self._impatient = REQUESTS_OF_A_PAGE
        return self._spliced

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Return a page, or the rest of one. Raises EAGAIN or Blocked without an event.

        The size of the read that begins a page limits its records too: b"" if the first one has
        no room. Like kernel/trace/trace.c:tracing_buffers_read (v6.1).
        """
        if not self._rest:
            buffer = self.instance.buffers.live[self._cpu]
            if not buffer.entries:
                if nonblock:
                    raise KernelError(EAGAIN, "no event")
                raise Blocked(self.instance.waiters)
            self._rest = self._take(size)
        page, self._rest = self._rest[:size], self._rest[size:]
        self._position += len(page)
        return page

    def _take(self, size: int) -> bytes:
        """Return the oldest events as a page, as many as fit a read of this size."""
        buffer = self.instance.buffers.live[self._cpu]
        taken = buffer.take_page(max(size - PAGE_HEADER, 0))
        if taken is None:
            return b""
        stamp, records, lost = taken
        return RawPage(stamp, records, lost or None, buffer.room).encode() if records else b""

    def poll(self) -> int:
        """Return whether the file is readable, see `has_enough`."""
        return READABLE if self._rest or has_enough(self.instance, self._cpu) else 0

    def waiters(self) -> Waiters | None:
        """Return the waiters that each event wakes."""
        return self.instance.waiters


class WriteOnlyFile(InstanceFile):
    """`trace_marker`, `trace_marker_raw`, `free_buffer`: each write calls `store`."""

    def __init__(
        self,
        instance: Instance,
        store: Callable[[Instance, bytes], int],
        at_close: Callable[[Instance], None] | None = None,
    ) -> None:
        super().__init__(instance)
        self._store = store
        self._at_close = at_close

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Return the number of bytes taken; the client must write the rest again."""
        return self._store(self.instance, data)

    def closed(self) -> None:
        """Call `at_close`."""
        if self._at_close is not None:
            self._at_close(self.instance)


def has_enough(instance: Instance, cpu: int) -> bool:
    """Return whether there is an event or, for one CPU, `buffer_percent` of its buffer in use.

    Like kernel/trace/ring_buffer.c:ring_buffer_poll_wait, full_hit (v6.1).
    """
    if instance.options["block"]:
        return True
    if cpu == ALL_CPUS or instance.percent == 0:
        return any(buffer.entries for _, buffer in instance.buffers.chosen(cpu))
    buffer = instance.buffers.live[cpu]
    # The reader's page is not in the ring and does not count; the writer's does.
    pages = max(len(buffer.ring), 1)
    return buffer.entries > 0 and pages * 100 >= instance.percent * buffer.limit
