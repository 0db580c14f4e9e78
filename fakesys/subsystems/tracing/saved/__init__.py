"""Tracing as plain values, and back: what a snapshot of the machine holds of it.

* `tracing.py`: `SavedTracing`, the whole, with `save` and `restore`.
* `shared.py`: `SavedShared`, clocks, names of tasks and the watch of clients.
* `instance.py`: `SavedInstance`, one set of buffers with its settings.
* `events.py`: `SavedEvent`, one event of an instance: filter, soft mode, triggers.
* `triggers.py`: `SavedSwitch`, `hists.py`: `SavedHist`, triggers as the lines that make them.
* `synthetic.py`: `SavedSynthetic`, events that clients have defined.
* `buffers.py`: `SavedBuffer`, the pages of one CPU; `records.py` reads pages that may be wrong.
* `values.py`: types of texts and numbers.

Saved is what a client wrote and what has happened since: lines of filters and triggers, counts,
rows of histograms, pages. Made again is what follows from it: formats and numbers of events,
compiled filters, what an event file records, who listens to the bus, the counts of a buffer that
its pages tell, the watch of clients. Open files and pauses of readers are not saved.

`restore` takes a new `Tracing` of the same kernel whose clock has its time already, and fills it in
an order that matters: instances and options, then who hears of which event, then soft mode,
filters and triggers, then buffers and clocks, which the steps before have moved. It raises
BadSnapshotError; the model is of no use then. What it accepts is a state that writes to files could
have made, so nothing that reads it later needs to check anything.

    saved = msgspec.json.decode(text, type=SavedTracing)
    restore(saved, machine.subsystems.tracing.tracing)
"""
