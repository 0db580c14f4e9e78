"""Reading records out of the buffers, merged over the CPUs: with and without consuming them.

Like kernel/trace/trace.c:trace_iterator, find_next_entry, and ring_buffer.c:ring_buffer_consume.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain, pairwise, repeat

from fakesys.subsystems.tracing.output.render import AheadMaker, Renderer
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import CpuBuffer, Page, Record

CHUNK_LINES = 512

# A CPU, and the stamps and payloads of events on it.
Run = tuple[int, list[int], list[bytes]]


class TraceIterator:
    """The unread events of one moment: later ones are not seen, ones consumed since are."""

    def __init__(self, buffers: list[tuple[int, CpuBuffer]]) -> None:
        self.entries = sum(buffer.entries for _, buffer in buffers)
        self.overrun = sum(buffer.overrun for _, buffer in buffers)
        self._pages = [(cpu, pages) for cpu, buffer in buffers if (pages := buffer.pages())]

    def chunks(self, render: Renderer, *, annotate: bool) -> Iterator[bytes]:
        """Return the lines, many at once. `annotate`: mark where the events of a CPU begin."""
        lines: list[bytes] = []
        started: set[int] = set()
        for cpu, some in self._line_runs(render):
            if annotate and cpu not in started:
                if started:
                    lines.append(b"##### CPU %d buffer started ####\n" % cpu)
                started.add(cpu)
            lines += some
            if len(lines) >= CHUNK_LINES:
                yield b"".join(lines)
                lines.clear()
        yield b"".join(lines)

    def _line_runs(self, render: Renderer) -> Iterator[tuple[int, list[bytes]]]:
        """Return the lines, those that follow each other on one CPU together."""
        if render.plain is None:
            return ((cpu, [line.encode("latin-1")]) for cpu, line in self._lines(render))
        make = render.plain.lines
        return ((cpu, make(cpu, stamps, payloads)) for cpu, stamps, payloads in self._runs())

    def _runs(self) -> Iterator[Run]:
        """Return events that follow each other on one CPU: their stamps and payloads."""
        sources = {cpu: _decoded(pages) for cpu, pages in self._pages}
        heads = {cpu: next(source) for cpu, source in sources.items()}
        while heads:
            # Equal stamps: the lower CPU first, as trace.c:__find_next_entry does.
            (_, cpu), *others = sorted((stamps[0], cpu) for cpu, (stamps, _) in heads.items())
            stamps, payloads = heads.pop(cpu)
            end = len(stamps)
            if others:
                limit, other = others[0]
                end = bisect_right(stamps, limit) if cpu < other else bisect_left(stamps, limit)
            yield cpu, stamps[:end], payloads[:end]
            if end < len(stamps):
                heads[cpu] = stamps[end:], payloads[end:]
            elif (following := next(sources[cpu], None)) is not None:
                heads[cpu] = following

    def _lines(self, render: Renderer) -> Iterator[tuple[int, str]]:
        make, ahead = render.line, render.ahead
        if ahead is None:
            return ((cpu, make(stamp, cpu, data)) for cpu, (stamp, data, _) in self._merged())
        return self._lines_ahead(ahead)

    def _lines_ahead(self, make: AheadMaker) -> Iterator[tuple[int, str]]:
        events = chain(self._merged(), (None,))
        for index, (one, following) in enumerate(pairwise(events)):
            assert one is not None
            cpu, record = one
            then = None if following is None else following[1].stamp
            yield cpu, make(record.stamp, cpu, record.payload, then, index)

    def _merged(self) -> Iterator[tuple[int, Record]]:
        if len(self._pages) == 1:
            cpu, pages = self._pages[0]
            return zip(repeat(cpu), _records(pages), strict=False)
        return self._by_time()

    def _by_time(self) -> Iterator[tuple[int, Record]]:
        sources = {cpu: _records(pages) for cpu, pages in self._pages}
        heads = {cpu: next(source) for cpu, source in sources.items()}
        while heads:
            # Equal stamps: the lower CPU first, as trace.c:__find_next_entry does.
            cpu = min(heads, key=lambda number: (heads[number].stamp, number))
            yield cpu, heads[cpu]
            following = next(sources[cpu], None)
            if following is None:
                del heads[cpu]
            else:
                heads[cpu] = following


def _decoded(pages: list[tuple[Page, int, int, int]]) -> Iterator[tuple[list[int], list[bytes]]]:
    return (found for page, *place in pages if (found := page.decoded(*place))[0])


def _records(pages: list[tuple[Page, int, int, int]]) -> Iterator[Record]:
    return chain.from_iterable(page.records(*place) for page, *place in pages)


class Consumer:
    """Consumes events, oldest first over all CPUs; used within one read call.

    Precondition: nothing else writes to or reads from the buffers while it is in use.
    """

    def __init__(self, buffers: list[tuple[int, CpuBuffer]]) -> None:
        self._buffers = dict(buffers)
        self._sources: dict[int, Iterator[Record]] = {}
        self._heads: dict[int, Record] = {}
        for cpu in self._buffers:
            self._open(cpu)

    def __iter__(self) -> Iterator[tuple[int, Record, int]]:
        """Return CPU, event, and how many events of this CPU were lost before it.

        An event is consumed when the next one is asked for: a loop that breaks leaves its last
        event in the buffer.
        """
        heads = self._heads
        while heads:
            if len(heads) == 1:
                cpu = next(iter(heads))
            else:
                cpu = min(heads, key=lambda number: (heads[number].stamp, number))
            buffer, record = self._buffers[cpu], heads[cpu]
            yield cpu, record, buffer.lost
            buffer.consumed(record)
            following = next(self._sources[cpu], None)
            if following is None:
                self._open(cpu)
            else:
                heads[cpu] = following

    def _open(self, cpu: int) -> None:
        source = self._buffers[cpu].unread_of_page()
        head = next(source, None)
        if head is None:
            self._heads.pop(cpu, None)
            return
        self._sources[cpu] = source
        self._heads[cpu] = head
