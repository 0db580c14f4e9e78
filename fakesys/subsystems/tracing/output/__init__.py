"""From buffers to text: which records, in which order, and the line of each.

* `iterators.py`: `TraceIterator`, the unread events of one moment, for `trace`; `Consumer`, which
  takes events out of the buffers, for `trace_pipe`. Both merge the CPUs by time.
* `render.py`: `Renderer`, made from options, clock and names of tasks, makes the line of a record.
* `plain.py`: `PlainLines` does so for the usual options and many records at once.
* `headers.py`: the comment lines that begin `trace`.

A renderer keeps the options with which it was made; code that keeps a renderer must compare
`Options.version`, clock and start. It follows `SavedCmdlines.version` itself. Iterators yield
records lazily: use a `Consumer` within one read call only.

Follows kernel/trace/trace_output.c and trace.c:print_trace_line, trace_default_header,
find_next_entry (v6.1). Example:

    render = instance.renderer()
    for cpu, record, lost in Consumer(instance.buffers.chosen(ALL_CPUS)):
        print(render.line(record.stamp, cpu, record.payload), end="")
"""
