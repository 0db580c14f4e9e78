"""Time stamps of events after jumps of the clock, and the end of simulated time."""

from __future__ import annotations

import re
import struct
from errno import EINVAL

import pytest

from fakesys.core.clock import FASTEST, LAST_NS, NS
from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import (
    EXTEND_BITS,
    EXTEND_MAX,
    TIME_STAMP,
    CpuBuffer,
    Page,
    encode_record,
)
from fakesys.subsystems.tracing.ring_buffer.raw_page import RawPage

F = "sys/kernel/debug/fakesys"
T = "sys/kernel/tracing"


def machine_without_timers() -> Machine:
    """A machine that can be moved by years at once."""
    machine = Machine("6.1")
    machine.clock._heap.clear()
    return machine


def stamps(buffer: CpuBuffer) -> list[int]:
    found = []
    while (taken := buffer.take_page()) is not None:
        stamp, records, lost = taken
        page = RawPage.decode(RawPage(stamp, records, lost or None).encode())
        found += [record.stamp for record in page.events()]
    return found


@pytest.mark.parametrize("jump", [EXTEND_MAX, EXTEND_MAX + 1, EXTEND_MAX + 2, 3 << EXTEND_BITS])
def test_every_jump_is_read_as_it_was(jump: int) -> None:
    buffer = CpuBuffer(10)
    wanted = [5, 5 + jump, 6 + jump]
    for stamp in wanted:
        assert buffer.write(stamp, b"data")
    assert stamps(buffer) == wanted


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (7, EXTEND_MAX),
        (5 << EXTEND_BITS, (5 << EXTEND_BITS) + 9),
        ((5 << EXTEND_BITS) + 9, (6 << EXTEND_BITS) + 3),
    ],
)
def test_a_time_stamp_takes_its_highest_bits_from_the_event_before(before: int, after: int) -> None:
    """ring_buffer.c:rb_fix_abs_ts, as a kernel writes such records for triggers with timestamps."""
    stamp = after & EXTEND_MAX
    words = struct.pack("<II", (stamp & (1 << 27) - 1) << 5 | TIME_STAMP, stamp >> 27)
    page = Page(before)
    data = encode_record(0, b"one.") + words + encode_record(0, b"two.")
    page.data[: len(data)] = data
    page.commit = len(data)
    assert [(record.stamp, record.payload) for record in page.records()] == [
        (before, b"one."),
        (after, b"two."),
    ]


@pytest.mark.parametrize("clock", ["local", "tai", "x86-tsc", "mono"])
def test_a_marker_after_the_longest_jump(clock: str) -> None:
    machine = machine_without_timers()
    machine.write(f"{T}/trace_clock", clock)
    machine.write(f"{T}/trace_marker", "before")
    machine.write(f"{F}/clock/advance", str(LAST_NS // NS))
    machine.write(f"{T}/trace_marker", "after")
    lines = machine.read(f"{T}/trace").splitlines()
    assert [line.split(": ")[-1] for line in lines[-2:]] == ["before", "after"]
    if clock == "local":
        assert re.search(rf" {LAST_NS // NS}\.000000: ", lines[-1])


def refused(machine: Machine, path: str, text: str) -> str:
    with pytest.raises(KernelError) as caught:
        machine.write(f"{F}/{path}", text)
    assert caught.value.errno == EINVAL
    return machine.read(f"{F}/last_error")


def test_the_clock_is_not_moved_beyond_its_last_moment() -> None:
    machine = machine_without_timers()
    machine.write(f"{F}/clock/advance", "10")
    assert "beyond the last moment" in refused(machine, "clock/advance", str(LAST_NS // NS))
    assert "beyond the last moment" in refused(machine, "clock/advance", "999999999999999")
    assert machine.read(f"{F}/clock/now") == "10.000000\n"
    assert "is not between 0 and" in refused(machine, "clock/rate", "1000000000")
    machine.write(f"{F}/clock/rate", str(FASTEST))


def test_a_fast_clock_stands_still_at_its_last_moment() -> None:
    machine = machine_without_timers()
    real = [0]
    machine.clock.follow(lambda: real[0])
    machine.write(f"{F}/clock/rate", str(FASTEST))
    real[0] = 10**18
    assert machine.clock.now_ns <= LAST_NS
    machine.clock.catch_up()
    machine.clock.after(5, lambda: None)
    assert machine.clock.now_ns == LAST_NS
    machine.write(f"{T}/trace_marker", "late")
