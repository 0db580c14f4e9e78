"""Histograms: what they count by, add up, keep and sort by, and what they do.

* `attributes.py`: `parse_attributes`, the parts of a trigger text. `actions.py`: `Action`.
* `histogram.py`: `Histogram`, its `HistField`s and `Row`s; `Flag`, what a field is.
* `fields.py`: fields of the event, with modifiers. `expressions.py`: `ExpressionParser`.
* `variables.py`: `Place`, where a histogram is made; variables across histograms.
* `parse.py`: `parse_histogram`, a text becomes a histogram; `create.py`: `create_actions`.
* `count.py`: `count`, what an event does to a histogram; `Outcome`, what that does beyond it.

A `Histogram` belongs to its trigger, `instances/hist_trigger.py:HistTrigger`; triggers of one name
share one. A field refers to the histogram that owns its variable. `files/hist.py` prints them.

Order matters: actions are parsed before fields, values before variables before keys, for that is
the order of the entries of `error_log`; actions are created last, when it is clear that the
histogram is new. What they make on other events, they make through `Place.count_too`.

Follows kernel/trace/trace_events_hist.c (v6.1), with the flags of `enum hist_field_flags`, since
two histograms are equal if these are. Example:

    histogram = parse_histogram("keys=pid:s=prio:onmax($s).save(comm)", form, place)
    create_actions(histogram, place)
    count(histogram, event, task, stamp, outcome)
"""
