"""What differs between kernels in tracefs, in numbers; names and rows differ by feature.

A kernel profile picks one of these; the models ask it and know no version.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from fakesys.core.features import Feature, FeatureSet


class TraceFeature(Feature):
    """Differences between kernels in the files of tracefs."""

    EVENTFS = "tracefs.eventfs"
    """Directories of events do not count as links and are made when needed (6.6)."""


SizeShown = Literal["allotted", "asked"]


class Build(Struct, frozen=True):
    """How one kernel was built.

    `release`, `preemption`: what it calls itself, and how it can be preempted.
    `marker_limit`, `raw_marker_limit`: bytes of one marker.
    `pipe_buffer`: bytes of whole lines per read of a pipe.
    `size_shown`: does `buffer_size_kb` show what was asked for or what was allotted?
    `cmdlines`: entries of saved_cmdlines. `marker_preempt`: preempt count of a marker.
    `first_id`: number of the first event. `raw_data_id`: number of ftrace:raw_data.
    `char_signed`: is C's `char` signed, so that formats say so?
    `cpu_filters`: may filters compare with lists of CPUs?
    `open_filters`: may a filter end with `&&` or `||`?
    `function_filters`: can filters ask for `FIELD.function` and for the stack?
    `snapshot`, `hist`: CONFIG_TRACER_SNAPSHOT, CONFIG_HIST_TRIGGERS.
    `features`: which rows of the tables it has.
    """

    release: str
    preemption: str
    marker_limit: int
    raw_marker_limit: int
    pipe_buffer: int
    size_shown: SizeShown
    cmdlines: int
    marker_preempt: int
    first_id: int
    raw_data_id: int
    char_signed: bool
    fields_option: bool
    cpu_filters: bool
    open_filters: bool
    function_filters: bool
    snapshot: bool
    hist: bool
    features: FeatureSet = frozenset()


# The kernel that the recordings in tests/oracle/tracefs come from.
V6_18 = Build(
    release="6.18.44",
    preemption="PREEMPT(none)",
    marker_limit=4054,
    raw_marker_limit=4064,
    pipe_buffer=8192,
    size_shown="allotted",
    cmdlines=6552,
    marker_preempt=1,
    first_id=25,
    raw_data_id=19,
    char_signed=False,
    fields_option=True,
    cpu_filters=True,
    open_filters=True,
    function_filters=True,
    snapshot=False,
    hist=False,
    features=frozenset({TraceFeature.EVENTFS}),
)
# A distribution's kernel, with everything built in.
V6_1 = Build(
    release="6.1.0",
    preemption="desktop",
    marker_limit=1024,
    raw_marker_limit=3072,
    pipe_buffer=4096,
    size_shown="asked",
    cmdlines=128,
    marker_preempt=0,
    first_id=22,
    raw_data_id=16,
    char_signed=True,
    fields_option=False,
    cpu_filters=False,
    open_filters=False,
    function_filters=False,
    snapshot=True,
    hist=True,
)
