"""What every model builds on: refusals, formats, events, devices, time, commands, tracepoints.

* `Kernel` (`kernel.py`) is handed to every model. It owns the `Bus`, the `Clock`, the `Devices` of
  the driver core and the only random numbers, and knows the `Caller` of the present system call.
* `Bus` (`events.py`) passes events synchronously and in order: `Changed`, `Notified` for
  the tree, `Uevent` and `LogLine` for the journals (`journal.py`), tracepoints for tracefs.
* `KernelError` (`errors.py`) is the only refusal: an errno and a reason. `Blocked` makes a request
  wait for `Waiters` (`errors.py`).
* `Tracepoint` (`tracepoint.py`) with the types of `c_types.py` declares an event; `EventFormat`
  (`event_format.py`) is the event as one kernel has it, chosen by `Feature` (`features.py`).
* `Interpreter` (`commands.py`) parses control commands by a table of `Verb` rows; `text.py` has the
  kernel's number and mask formats.

Order in a model: check everything and raise, then change, then call `Devices` or emit. A watcher of
the bus never calls back into a model, so between two emits every model is consistent. Time moves
only by `Clock.advance` and `Clock.catch_up`, never inside a request.

Follows lib/kstrtox.c, lib/vsprintf.c, lib/kobject_uevent.c, drivers/base/core.c,
include/trace/trace_events.h (v6.1).

    kernel = Kernel(seed=1)
    kernel.bus.subscribe(LogLine, lambda line: print(line.text))
    kernel.clock.after(2.0, lambda: kernel.log("two seconds"))
    kernel.clock.advance(3.0)
"""
