"""The files of `sys/kernel/tracing`: tables of rows, and open files that are more than a text.

* `top.py`: the top directory, `instances/`, and `mounts`, the two places where it is mounted.
* `instance.py`: the rows that every instance has; `per_cpu.py`, `options.py`, `events.py`: its
  directories.
* `settings.py`: texts of simple files. `hist.py`, `readme.py`: longer texts.
* `open_files.py`: `TraceFile`, `PipeFile`, `RawPipeFile`, `WriteOnlyFile`, the handles of files
  that stream; `snapshot.py`: `SnapshotFile`. `markers.py`: what a write to `trace_marker` does.

The model of a row is an `Instance`, or a read-only pair of it and what the directory is about:
`CpuDirectory`, `OptionFile`, `SystemDirectory`, `EventDirectory`. These pairs are made at each
lookup and compare by value, so a directory is the same as long as instance and event are.

Between two commands holds: `Instance.opened` is the number of open files that keep the instance,
`Instance.pipe_readers` holds the CPUs of open pipes, `CpuBuffer.readers` counts open `trace` files.

Follows kernel/trace/trace.c:init_tracer_tracefs and trace_events.c:event_create_dir (v6.1,
eventfs v6.18). Example:

    machine.write("sys/kernel/tracing/set_event", "kvm:*")
    print(machine.read("sys/kernel/tracing/trace"))
"""
