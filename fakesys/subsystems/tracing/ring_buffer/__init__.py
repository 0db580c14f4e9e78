r"""The ring buffers: binary records in pages, one buffer per CPU.

* `cpu_buffer.py`: `CpuBuffer` with the writer's side (`write`, `resize`, `reset`) and the reader's
  (`unread_of_page` with `consumed`, `take_page`, `pages`); `Page`; `Record`.
* `buffer_set.py`: `BufferSet`, the buffers of one instance and those of its snapshot.
* `raw_page.py`: `RawPage`, a page as `trace_pipe_raw` returns it, and the texts of `header_page`
  and `header_event`.

A buffer holds a reader page outside the ring and at most `limit` pages in the ring, oldest first.
A consumer reads the reader page to its end, then exchanges it for the oldest page of the ring; the
writer appends to the newest page, and drops the oldest or the event when the ring is full.
Reading without consuming (`pages`) changes nothing.

Between two calls holds: `entries_written == entries + overrun + read_events`, and stamps do not
decrease from record to record. The buffer knows no event: a payload is bytes, the first two of
which are the number of its event.

Follows kernel/trace/ring_buffer.c (v6.1): record headers, time extends, reader page, accounting;
the pages of tests/oracle/tracefs are reproduced byte for byte. Example:

    buffer = CpuBuffer(pages_for(4))
    buffer.write(1000, b"\5\0\0\0....")
    stamp, records, lost = buffer.take_page()
"""
