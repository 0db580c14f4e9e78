"""The events that tracing itself declares, and the catalog of all events of a kernel.

* `ftrace.py`: system `ftrace`: `Print` and `RawData` for markers, `KernelStack` for the trigger
  stacktrace. They are recorded without the bus, and `available_events` does not list them.
* `stacks.py`: call chains by event and task, and the symbols of `/proc/kallsyms` in `exec`.
* `declared.py`: events of the systems around KVM, by the recorded formats in `formats/`.
* `host.py`: those of them that the real processes that use the mount cause; emitted by
  `instances/task_watch.py`.
* `synthetic.py`: `Definition`, `SyntheticFormat`: events that clients define.
* `catalog.py`: `EventCatalog`, made once per kernel from the declarations of all subsystems. It
  numbers the events and finds their `EventFormat` by number, by name and by system.
* `printing.py`: `Printers`, the functions that make the lines of events.

The order of the declarations is the order of `available_events` and determines the numbers, as
the linker's order does in the kernel. Only synthetic events come and go; another kernel makes
another catalog.

Follows include/trace/events/ (sched.h, signal.h, kmem.h, irq.h, syscalls.h),
kernel/trace/trace_entries.h and trace_events_synth.c (v6.1). Example:

    form = catalog.find("sched", "sched_switch")
    payload = form.encode(SchedSwitch("a", 1, 120, 0, "b", 2, 120), 1)
    print(form.text(form.decode(payload)))
"""
