"""The language of hist triggers: what a histogram counts by, adds up and sorts by.

* `parse.py`: `parse_hist` turns what follows `hist:` into a `Spec`: keys, values, sort order, size,
  name, variables and command.
* `fields.py`: `HistField`, one key or value with its modifier, and how it is printed; `HistError`.
* `expressions.py`: `Expression`, the value of a variable.

Nothing here has state: the counts are in `instances/hist_trigger.py:Table`, and `files/hist.py`
prints them. A `Spec` is read-only, and its `spelling` parses to the same histogram again; two
triggers of one spelling and filter are the same histogram.

Follows kernel/trace/trace_events_hist.c:parse_hist_trigger_attrs, create_key_field, parse_expr,
create_sort_keys (v6.1). Differs: no references to variables of other events and no actions.
Example:

    spec = parse_hist("keys=port.hex:vals=size:sort=size.descending", form, context)
    assert spec.spelling.endswith(":sort=size.descending:size=2048")
"""
