"""Filters of events: a text becomes a function of an event and its task.

* `filters.py`: `compile_filter` returns a `Filter`, the text and its test. It parses `&&`, `||`,
  `!` and parentheses.
* `predicates.py`: one comparison, `FIELD OP VALUE`.
* `operands.py`: what a name on the left means and how to get its value; histograms use it too.
* `comparisons.py`, `patterns.py`, `cpulist.py`: the tests for numbers, texts and lists of CPUs.
* `dialect.py`: `Dialect`, what a kernel's filters can express, and `FilterError`.
* `scan.py`: steps over a text.

A compiled filter depends on the format of its event and on the dialect, on nothing else; it keeps
no state. `FilterError` has the errno, the message and the position of the caret, as the kernel
counts it.

Follows kernel/trace/trace_events_filter.c:predicate_parse, parse_pred, filter_parse_regex and
regex_match_* (v6.1, v6.18), lib/glob.c and lib/bitmap-str.c. Example:

    accepts = compile_filter('port >= 0x80 && comm ~ "qemu*"', form, Dialect())
    accepts.test(KvmPio(rw=1, port=0x80, size=1, count=1, val=0), Task(7, "qemu-kvm", 0))
"""
