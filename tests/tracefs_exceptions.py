"""Recorded tracefs operations that fakesys answers otherwise, each with its reason.

There is one of 765, by choice, and four more on a mount whose host has not two CPUs, as that of
the recording had. What no FUSE server sees, writes of nothing and seeks to the end, is not in it.
"""

from __future__ import annotations

import os
from typing import Any

# (case, index of the operation) -> why.
ALWAYS: dict[tuple[str, int], str] = {
    (
        "tracers",
        0,
    ): "the recorded kernel traces functions and block devices; here is no tracer of functions",
}
# What the recording's number of CPUs shows in.
TWO_CPUS: dict[tuple[str, int], str] = {
    ("buffer-size", 3): "the size of all buffers, of two CPUs there",
    ("cpumask", 0): "the mask of all CPUs, two there",
    ("cpumask", 4): "a mask of two CPUs",
    ("cpumask", 5): "a mask of two CPUs",
}


def is_known(case: dict[str, Any], index: int) -> bool:
    """May this operation give something else here?"""
    place = (case["name"], index)
    return place in ALWAYS or (place in TWO_CPUS and os.cpu_count() != 2)


# The recorded kernel was built without snapshots and histograms, as few are.
_TRIGGERS = "# traceon traceoff stacktrace enable_event disable_event\n"
_ALL_TRIGGERS = (
    "# traceon traceoff snapshot stacktrace enable_event disable_event"
    " enable_hist disable_hist hist\n"
)


def with_histograms(got: Any) -> Any:
    """Return what the recorded kernel would answer if it had snapshots and histograms."""
    if isinstance(got, str):
        return got.replace(_TRIGGERS, _ALL_TRIGGERS)
    if not isinstance(got, list):
        return got
    # Of the lists of events, only that without `enable` is of all names.
    names = [str(entry).rpartition(" ")[2] for entry in got]
    if "trigger" in names and "enable" not in names:
        place = names.index("format") + 1
        return [*got[:place], str(got[place - 1]).replace("format", "hist"), *got[place:]]
    return [with_histograms(each) for each in got]
