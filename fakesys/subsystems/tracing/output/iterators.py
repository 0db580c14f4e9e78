"""Reading records out of the buffers, merged over the CPUs: with and without consuming them.

Like kernel/trace/trace.c:trace_iterator, find_next_entry, and ring_buffer.c:ring_buffer_consume.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, pairwise, repeat

from fakesys.subsystems.tracing.output.render import AheadMaker, Renderer
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import CpuBuffer, Page, Record

CHUNK_LINES = 512


class TraceIterator:
    """The unread events of one moment: later ones are not seen, ones consumed since are."""

    def __init__(self, buffers: list[tuple[int, CpuBuffer]]) -> None:
        self.entries = sum(buffer.entries for _, buffer in buffers)
        self.overrun = sum(buffer.overrun for _, buffer in buffers)
        self._pages = [(cpu, pages) for cpu, buffer in buffers if (pages := buffer.pages())]

    def chunks(self, render: Renderer, *, annotate: bool) -> Iterator[bytes]:
        """Return the lines, many at once. `annotate`: mark where the events of a CPU begin."""
        lines: list[str] = []
        started: set[int] = set()
        for cpu, line in self._lines(render):
            if annotate and cpu not in started:
                if started:
                    lines.append(f"##### CPU {cpu} buffer started ####\n")
                started.add(cpu)
            lines.append(line)
            if len(lines) >= CHUNK_LINES:
                yield "".join(lines).encode("latin-1")
                lines.clear()
        yield "".join(lines).encode("latin-1")

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
