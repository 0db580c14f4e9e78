"""The models: what records, where, and under which conditions.

* `tracing.py`: `Tracing`, all instances and what concerns more than one of them.
* `instance.py`: `Instance`, one set of buffers with its own events, options and clock, like
  `struct trace_array`.
* `event_file.py`: `EventFile`, one event in one instance, like `struct trace_event_file`.
* `shared.py`: `Shared`, what all instances have in common: kernel, catalog, clocks, names.
* `triggers.py`, `hist_trigger.py`, `hist_command.py`: what an event file does besides recording.
* `synthetic.py`: `SyntheticEvents`, defined by clients and made by histograms.
* `listeners.py`: which event files hear of which event.
* `set_event.py`: enabling events by name. `pid_list.py`: lists of pids. `state.py`: plain data.
* `task_watch.py`: `TaskWatch`, events of real processes, derived from their requests.

Ownership goes down: `Tracing`, `Instance`, `EventFile`, trigger. Below needs above only through
a Protocol that it declares: `Recorder` (an event file's instance), `Owner` (an instance's
tracing), `Followers` (who follows forks). `Shared` knows no instance.

Order matters in two places. An event file fires its triggers before it records, but a trigger that
looks at the record, or fires late, runs after the place in the buffer is reserved. After a change
of the pid lists `Instance.pids_changed` must be called.

Between two commands holds: `Instance.recording` is `on` and no reader pauses it; an event file is
attached if and only if it is `enabled`, and `enabled` if it has a trigger.

Follows kernel/trace/trace.c, trace_events.c, trace_events_trigger.c and trace_events_hist.c (v6.1;
options and markers v6.18). Example:

    form = tracing.shared.catalog.find("kvm", "kvm_exit")
    tracing.top.file(form).enable()
"""
