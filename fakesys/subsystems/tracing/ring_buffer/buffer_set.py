"""The buffers of one instance: one per CPU that records, and as many for the snapshot.

Like `array_buffer` and `max_buffer` of kernel/trace/trace.h:struct trace_array (v6.1).
"""

from __future__ import annotations

from errno import EBUSY, EINVAL

from fakesys.core.errors import KernelError
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import (
    PAGE_SIZE,
    CpuBuffer,
    pages_for,
    room_of,
)

DEFAULT_KB = 1408
MINIMUM_PAGES = 2
MOST_ORDER = 7
ALL_CPUS = -1
"""As a CPU number: all CPUs (RING_BUFFER_ALL_CPUS)."""


class BufferSet:
    """`live` are the buffers that record now, by CPU; `snapshot` is None without a snapshot.

    `expanded`: do the buffers have their default size? If not, the first use expands them.
    """

    def __init__(self, cpus: int, *, expanded: bool, overwrite: bool) -> None:
        pages = pages_for(DEFAULT_KB) if expanded else MINIMUM_PAGES
        self.live = [CpuBuffer(pages, overwrite=overwrite) for _ in range(cpus)]
        self.snapshot: list[CpuBuffer] | None = None
        self.expanded = expanded
        # A page of a buffer is 2^order pages of memory.
        self.order = 0
        # The KB that were asked for, by CPU.
        self.asked: dict[int, int] = {}

    def __len__(self) -> int:
        """Return the number of CPUs."""
        return len(self.live)

    def chosen(self, cpu: int) -> list[tuple[int, CpuBuffer]]:
        """Return the live buffer of one CPU or, for ALL_CPUS, all of them, with their numbers."""
        if cpu == ALL_CPUS:
            return list(enumerate(self.live))
        return [(cpu, self.live[cpu])]

    def chosen_snapshot(self, cpu: int) -> list[tuple[int, CpuBuffer]]:
        """Return the same of the snapshot; nothing if there is none."""
        return [
            (number, buffer)
            for number, buffer in enumerate(self.snapshot or ())
            if cpu in (ALL_CPUS, number)
        ]

    def set_overwrite(self, on: bool) -> None:
        """Choose what a full buffer drops: its oldest page or, if off, new events."""
        for buffer in (*self.live, *(self.snapshot or ())):
            buffer.overwrite = on

    # Sizes.

    @property
    def room(self) -> int:
        """The bytes of records that a page has."""
        return room_of(self.order)

    def set_page_kb(self, kilobytes: int) -> None:
        """Change the size of pages, to the next power of two of pages of memory.

        All events are lost unless it stays the same. Raises EINVAL for 0 and more than 512 KB.
        Like kernel/trace/trace.c:buffer_subbuf_size_write (v6.18).
        """
        order = (-(-kilobytes * 1024 // PAGE_SIZE) - 1).bit_length()
        if kilobytes == 0 or order > MOST_ORDER:
            raise KernelError(EINVAL, f"a page cannot have {kilobytes} KB")
        if order == self.order:
            return
        self.order = order
        for buffer in (*self.live, *(self.snapshot or ())):
            buffer.set_room(self.room)

    def resize(self, kilobytes: int, cpu: int = ALL_CPUS) -> None:
        """Change the size of one CPU's buffer or of each.

        Raises EINVAL for 0, EBUSY while `trace` is open. Like
        kernel/trace/ring_buffer.c:ring_buffer_resize (v6.1), which looks at the size of a single
        CPU before it looks for readers.
        """
        if kilobytes == 0:
            raise KernelError(EINVAL, "a buffer has at least one KB")
        self.expand()
        pages = pages_for(kilobytes, self.room)
        chosen = self.chosen(cpu)
        if any(buffer.readers for _, buffer in chosen if cpu == ALL_CPUS or buffer.limit != pages):
            raise KernelError(EBUSY, "an open file shows the events of this buffer")
        for number, buffer in chosen:
            self.asked[number] = kilobytes
            buffer.resize(pages)

    def shrink(self) -> None:
        """Make the buffers as small as possible, unless a file shows the events of one."""
        if any(buffer.readers for buffer in self.live):
            return
        self.asked.clear()
        for buffer in self.live:
            buffer.resize(MINIMUM_PAGES)

    def expand(self) -> None:
        """Give the buffers the default size; later calls do nothing."""
        if self.expanded:
            return
        self.expanded = True
        for buffer in self.live:
            buffer.resize(pages_for(DEFAULT_KB, self.room))

    def asked_kb(self, cpu: int) -> int:
        """Return the size in KB that was asked for, or the present size of a minimal buffer."""
        if self.live[cpu].limit == MINIMUM_PAGES and cpu not in self.asked:
            return self.live[cpu].size_kb
        return self.asked.get(cpu, DEFAULT_KB)

    def grow(self, cpus: int) -> None:
        """Add buffers for further CPUs: of the size of the others if that is one, else the least.

        Like kernel/trace/ring_buffer.c:trace_rb_cpu_prepare (v6.1).
        """
        for buffers in (self.live, self.snapshot or []):
            limits = {buffer.limit for buffer in buffers}
            limit = limits.pop() if len(limits) == 1 else MINIMUM_PAGES
            while buffers and len(buffers) < cpus:
                if buffers is self.live and limit == buffers[0].limit and 0 in self.asked:
                    self.asked[len(buffers)] = self.asked[0]
                first = buffers[0]
                made = CpuBuffer(limit, overwrite=first.overwrite, room=first.room)
                made.size_bytes = first.size_bytes if limit == first.limit else made.size_bytes
                buffers.append(made)

    # The snapshot.

    def allot_snapshot(self) -> list[CpuBuffer]:
        """Return the buffers of the snapshot, made as large as the live ones."""
        if self.snapshot is None:
            self.snapshot = [CpuBuffer(buffer.limit, room=buffer.room) for buffer in self.live]
        for kept, buffer in zip(self.snapshot, self.live, strict=True):
            kept.resize(buffer.limit)
            kept.overwrite = buffer.overwrite
        return self.snapshot

    def free_snapshot(self) -> None:
        """Drop the snapshot and its buffers."""
        self.snapshot = None

    def swap(self) -> None:
        """Exchange the live buffers with those of the snapshot, whatever is in them.

        Like kernel/trace/trace.c:update_max_tr (v6.1), which clears neither.
        """
        self.live, self.snapshot = self.allot_snapshot(), self.live

    def swap_cpu(self, cpu: int) -> None:
        """Exchange the buffer of one CPU. Like kernel/trace/trace.c:update_max_tr_single (v6.1)."""
        kept = self.allot_snapshot()
        self.live[cpu], kept[cpu] = kept[cpu], self.live[cpu]
