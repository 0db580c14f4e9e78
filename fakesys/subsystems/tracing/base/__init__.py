"""The parts of an instance that know no event, and what kernels differ in.

* `policy.py`: `Build`, the properties of one kernel; a kernel profile picks one.
* `options.py`: `Options`, the flags of `trace_options` of one instance.
* `clocks.py`: `Clocks`, the trace clocks; all instances share them, so that no two events have
  the same stamp.
* `saved_cmdlines.py`: `SavedCmdlines`, names and thread groups of tasks, shared too.
* `error_log.py`: `ErrorLog`, the last eight errors of one instance.
* `trace_parser.py`: `first_word`, how a written text is divided into words.

All are state with a few methods; none refers to its owner. `Options.version` and
`SavedCmdlines.version` are incremented with every change, so that a renderer can be kept.

Follows kernel/trace/trace.c and trace.h (v6.1, v6.18). Example:

    options = Options.at_boot(frozenset())
    options.switch("irq-info", False)
    assert "noirq-info" in options.text("nop")
"""
