"""How tracefs differs between kernels: numbers and switches, as one `Build` per kernel.

A kernel profile picks one of them; models read its fields and know no version. Files that only
some kernels have are chosen by feature, in the tables of `files/`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from fakesys.core.features import Feature, FeatureSet


class TraceFeature(Feature):
    """Differences between kernels in the files of tracefs."""

    EVENTFS = "tracefs.eventfs"
    """Directories of events do not count as links and are made when needed (6.6)."""

    SUBBUF_SIZE = "tracefs.subbuf_size"
    """The size of the pages of a buffer can be chosen (6.8)."""


SizeShown = Literal["allotted", "asked"]


class Build(Struct, frozen=True):
    """The properties of one kernel that show in tracefs.

    `release`, `preemption`: as the header of latency format prints them.
    `marker_limit`, `raw_marker_limit`: the most bytes of one marker.
    `pipe_buffer`: the most bytes of whole lines per read of `trace_pipe`.
    `size_shown`: does `buffer_size_kb` show the size asked for or the size allotted?
    `cmdlines`: entries of saved_cmdlines. `marker_preempt`: preempt count of a marker.
    `first_id`: number of the first event. `raw_data_id`: number of ftrace:raw_data.
    `host_formats`: which kernel's formats the events of the systems around KVM have.
    `char_signed`: is C's `char` signed, as `format` files state?
    `absent_options`: the options of `base/options.py` that it does not have.
    `cpu_filters`: can filters compare with lists of CPUs (6.6)?
    `open_filters`: can a filter end with `&&` or `||`?
    `function_filters`: can filters use `FIELD.function` (6.5) and the stack (6.3)?
    `snapshot`, `hist`: CONFIG_TRACER_SNAPSHOT, CONFIG_HIST_TRIGGERS.
    `features`: which optional rows of the tables it has.
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
    host_formats: Literal["6.1", "6.18"]
    char_signed: bool
    absent_options: frozenset[str]
    cpu_filters: bool
    open_filters: bool
    function_filters: bool
    snapshot: bool
    hist: bool
    features: FeatureSet = frozenset()


# Numbers of events have 16 bits. A kernel gives the lowest free one to each of its events, a few
# thousand, so none of a host is as high as these: perf_event_open(2) refuses them.
FIRST_ID = 0xF000

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
    first_id=FIRST_ID,
    raw_data_id=19,
    host_formats="6.18",
    char_signed=False,
    absent_options=frozenset(),
    cpu_filters=True,
    open_filters=True,
    function_filters=True,
    snapshot=True,
    hist=True,
    features=frozenset({TraceFeature.EVENTFS, TraceFeature.SUBBUF_SIZE}),
)
# A distribution's kernel, with everything built in: 6.12.117, from its source. The ends of filters
# are those of later stable kernels, which refuse an operator there.
V6_12 = replace(
    V6_18,
    release="6.12.117",
    preemption="desktop",
    marker_preempt=0,
    first_id=FIRST_ID,
    raw_data_id=18,
    host_formats="6.1",
    absent_options=frozenset({"copy_trace_marker"}),
    open_filters=False,
    snapshot=True,
    hist=True,
)
# The same of 6.1.
V6_1 = Build(
    release="6.1.0",
    preemption="desktop",
    marker_limit=1024,
    raw_marker_limit=3072,
    pipe_buffer=4096,
    size_shown="asked",
    cmdlines=128,
    marker_preempt=0,
    first_id=FIRST_ID,
    raw_data_id=16,
    host_formats="6.1",
    char_signed=True,
    absent_options=frozenset({"fields", "trace_printk_dest", "copy_trace_marker"}),
    cpu_filters=False,
    open_filters=False,
    function_filters=False,
    snapshot=True,
    hist=True,
)
