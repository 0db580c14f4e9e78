"""Open files of tracefs that are more than a text: trace, pipes, raw pages, markers."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from errno import EAGAIN, EBUSY, EINVAL

from fakesys.core.errors import Blocked, KernelError
from fakesys.core.waiters import Waiters
from fakesys.subsystems.tracing.instances.instance import WHOLE, Instance
from fakesys.subsystems.tracing.output.headers import header
from fakesys.subsystems.tracing.output.iterators import Consumer, Snapshot
from fakesys.subsystems.tracing.output.render import LineMaker, Renderer
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import PAGE_HEADER, CpuBuffer
from fakesys.subsystems.tracing.ring_buffer.raw_page import RawPage

READABLE = select.POLLIN | select.POLLRDNORM
ALWAYS = READABLE | select.POLLOUT | select.POLLWRNORM


class InstanceFile:
    """What all of these have: while one is open the instance cannot be removed."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        instance.opened += 1
        self._open = True

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """EINVAL: nothing can be read here, unless a kind of file says otherwise."""
        raise KernelError(EINVAL, "this file cannot be read")

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """EINVAL: nothing can be written here, unless a kind of file says otherwise."""
        raise KernelError(EINVAL, "this file cannot be written")

    def poll(self) -> int:
        """Always ready, unless a kind of file says otherwise."""
        return ALWAYS

    def waiters(self) -> Waiters | None:
        """Nobody: the answer of poll never changes."""
        return None

    def release(self) -> None:
        """The instance may go."""
        if self._open:
            self._open = False
            self.instance.opened -= 1
            self.closed()

    def closed(self) -> None:
        """What else ends with the last descriptor."""


class TraceFile(InstanceFile):
    """`trace`: header and all unread events as they were when the reading began."""

    def __init__(
        self, instance: Instance, buffers: list[tuple[int, CpuBuffer]], reading: bool
    ) -> None:
        super().__init__(instance)
        self._buffers = buffers
        # Whose size cannot be changed while this file is open.
        self._held = [buffer for _, buffer in buffers] if reading else []
        for buffer in self._held:
            buffer.readers += 1
        self._chunks: Iterator[bytes] = iter(())
        self._buffered = b""
        # Where the buffered text begins in the file; None before the first read.
        self._start: int | None = None
        self._pausing = reading and instance.options["pause-on-trace"]
        if self._pausing:
            instance.pause(1)

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """The text at this place; going back to an earlier one makes it anew."""
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
        """Taken and forgotten: only opening with O_TRUNC clears the buffer."""
        return len(data)

    def closed(self) -> None:
        """Recording goes on, and the size of the buffers may be changed."""
        for buffer in self._held:
            buffer.readers -= 1
        if self._pausing:
            self.instance.pause(-1)

    def _restart(self) -> None:
        self._start = 0
        self._buffered = b""
        self._chunks = self._text()

    def _text(self) -> Iterator[bytes]:
        instance = self.instance
        snapshot = Snapshot(self._buffers)
        yield self.head(Snapshot(self.all_buffers()), empty=not snapshot.entries)
        annotate = instance.options["annotate"] and snapshot.overrun > 0
        for chunk in snapshot.chunks(instance.renderer(), annotate=annotate):
            if chunk:
                yield chunk

    def all_buffers(self) -> list[tuple[int, CpuBuffer]]:
        """Those that the head counts, also for one CPU: trace.c:print_event_info (v6.1)."""
        return self.instance.chosen(WHOLE)

    def head(self, counted: Snapshot, *, empty: bool) -> bytes:
        """The comment lines. `empty`: no event follows."""
        instance = self.instance
        tracing = instance.tracing
        entries, written = counted.entries, counted.entries + counted.overrun
        return header(
            instance.options, entries, written, tracing.cpus, tracing.build, empty=empty
        ).encode()


class PipeFile(InstanceFile):
    """`trace_pipe` of all CPUs or one: reading takes the events away. Raises EBUSY at open."""

    def __init__(self, instance: Instance, cpu: int) -> None:
        readers = instance.pipe_readers
        if cpu in readers or WHOLE in readers or (cpu == WHOLE and readers):
            raise KernelError(EBUSY, "somebody reads this pipe already")
        super().__init__(instance)
        readers.add(cpu)
        self._cpu = cpu
        self._rest = b""
        # Has this reader got anything yet? Then it sees the end when tracing is off.
        self._served = False
        self._renderer: Renderer | None = None
        self._rendered_as: tuple[int, str, int] | None = None

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Lines until `size` is reached; EAGAIN or waiting when there is no event."""
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
        """Readable when the buffer is as full as `buffer_percent` asks."""
        return READABLE if self._rest or has_enough(self.instance, self._cpu) else 0

    def waiters(self) -> Waiters | None:
        """Woken by each event."""
        return self.instance.waiters

    def closed(self) -> None:
        """Another reader may come."""
        self.instance.pipe_readers.discard(self._cpu)

    def _lines(self, size: int) -> bytes:
        instance = self.instance
        consumer = Consumer(instance.chosen(self._cpu))
        make = self._line_maker()
        room = instance.tracing.build.pipe_buffer
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
        """What makes lines; kept as long as nothing that they depend on has changed."""
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

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """A page, or the rest of one; EAGAIN or waiting when there is no event.

        The size of the read that begins a page bounds its records too: nothing at all if the
        first has no room. Like kernel/trace/trace.c:tracing_buffers_read (v6.1).
        """
        if not self._rest:
            room = max(size - PAGE_HEADER, 0)
            taken = self.instance.buffers[self._cpu].take_page(room)
            if taken is None:
                if nonblock:
                    raise KernelError(EAGAIN, "no event")
                raise Blocked(self.instance.waiters)
            stamp, records, lost = taken
            if not records:
                return b""
            self._rest = RawPage(stamp, records, lost or None).encode()
        page, self._rest = self._rest[:size], self._rest[size:]
        return page

    def poll(self) -> int:
        """Readable when the buffer is as full as `buffer_percent` asks."""
        return READABLE if self._rest or has_enough(self.instance, self._cpu) else 0

    def waiters(self) -> Waiters | None:
        """Woken by each event."""
        return self.instance.waiters


class WriteOnlyFile(InstanceFile):
    """`trace_marker`, `trace_marker_raw`, `free_buffer`: each write is one call of a model."""

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
        """Bytes taken; the rest is for the client to write again."""
        return self._store(self.instance, data)

    def closed(self) -> None:
        """What the file does when it is closed."""
        if self._at_close is not None:
            self._at_close(self.instance)


def has_enough(instance: Instance, cpu: int) -> bool:
    """Is there an event or, for one CPU, is its buffer as full as `buffer_percent` asks?

    Like kernel/trace/ring_buffer.c:ring_buffer_poll_wait, full_hit (v6.1).
    """
    if instance.options["block"]:
        return True
    if cpu == WHOLE or instance.percent == 0:
        return any(buffer.entries for _, buffer in instance.chosen(cpu))
    buffer = instance.buffers[cpu]
    # The page of the reader is not in the ring and does not count, the writer's does.
    pages = max(len(buffer.ring), 1)
    return buffer.entries > 0 and pages * 100 >= instance.percent * buffer.limit
