"""Lines of `trace` for what no recorded case has: flags, unknown records, fields, delays."""

from __future__ import annotations

import re
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields

from fakesys.core.event_format import EventFormat
from fakesys.core.tracepoint import declared_fields
from fakesys.machine.machine import Machine
from fakesys.machine.tracing import TRACEPOINTS
from fakesys.subsystems.kvm.events.guest import KvmPio
from fakesys.subsystems.tracing.events.ftrace import Print, stack_of
from fakesys.subsystems.tracing.events.stacks import MARKER_IP, symbol
from fakesys.subsystems.tracing.filter.dialect import Dialect
from fakesys.subsystems.tracing.filter.filters import compile_filter
from fakesys.subsystems.tracing.filter.patterns import exact, glob
from fakesys.subsystems.tracing.output.iterators import TraceIterator
from fakesys.subsystems.tracing.output.render import Renderer, delay_mark, flag_letters
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import CpuBuffer
from tests.long import LONG

TRACING = Machine("6.18").subsystems.tracing.tracing
TASK_BYTES = struct.pack("<BBi", 0, 0, 100)


@pytest.mark.parametrize(
    ("flags", "preempt", "letters"),
    [
        (0x00, 0x00, "....."),
        (0x01, 0x01, "d..1."),
        (0x80, 0xFF, "b..ff"),
        (0x81, 0x20, "D...2"),
        (0x04, 0x00, ".n..."),
        (0x20, 0x00, ".p..."),
        (0x24, 0x00, ".N..."),
        (0x08, 0x00, "..h.."),
        (0x10, 0x00, "..s.."),
        (0x18, 0x00, "..H.."),
        (0x40, 0x00, "..z.."),
        (0x48, 0x00, "..Z.."),
    ],
)
def test_flags_as_letters(flags: int, preempt: int, letters: str) -> None:
    assert flag_letters(flags, preempt) == letters


@pytest.mark.parametrize(
    ("microseconds", "mark"),
    [
        (0, " "),
        (10, " "),
        (11, "+"),
        (101, "!"),
        (1001, "#"),
        (10_001, "*"),
        (100_001, "@"),
        (1_000_001, "$"),
    ],
)
def test_delays_as_marks(microseconds: int, mark: str) -> None:
    assert delay_mark(microseconds) == mark


def renderer(**options: bool) -> Renderer:
    """Of an instance of its own, with these options."""
    machine = Machine("6.18")
    instance = machine.subsystems.tracing.tracing.top
    for name, on in options.items():
        instance.set_option(name.replace("_", "-"), on)
    return instance.renderer()


def test_records_that_no_format_knows() -> None:
    payload = struct.pack("<H", 9999) + TASK_BYTES
    assert renderer(context_info=False).line(0, 0, payload) == "Unknown type 9999\n"
    assert renderer(context_info=False, raw=True).line(0, 0, payload) == "9999 ?\n"
    assert renderer(context_info=False, fields=True).line(0, 0, payload) == "UNKNOWN TYPE 9999\n"


def form_and_event(name: str, **values: Any) -> tuple[EventFormat, Any]:
    form = TRACING.shared.catalog.by_name[name]
    empty = {int: 0, bool: False, str: "", bytes: b""}
    for field in fields(form.cls):
        if field.name not in values:
            code = declared_fields(form.cls)[field.name]
            values[field.name] = bytes(code.size) if code.holds.value == "bytes" else empty[int]
    return form, form.cls(**values)


@pytest.mark.parametrize(
    ("name", "values", "line"),
    [
        # As a real 6.18 printed them.
        (
            "kvm:kvm_pio",
            {"rw": 1, "port": 0x80, "size": 1, "count": 1, "val": 0x41},
            "kvm_pio: rw=0x1 (1) port=0x80 (128) size=0x1 (1) count=0x1 (1) val=0x41 (65)\n",
        ),
        (
            "kvm:kvm_emulate_insn",
            {"rip": 0x1000, "len": 2},
            "kvm_emulate_insn: rip=0x1000 (4096) csbase=0x0 (0) len=(2) insn=<INVALID-SIZE> "
            "flags=(0) failed=(0)\n",
        ),
        (
            "kvm:kvm_write_tsc_offset",
            {"next_tsc_offset": 0xFFFFFA1EEC5D9D77},
            "kvm_write_tsc_offset: vcpu_id=0x0 (0) previous_tsc_offset=0x0 (0) "
            "next_tsc_offset=0xfffffa1eec5d9d77 (-6464255189641)\n",
        ),
        (
            "kvmmmu:kvm_mmu_get_page",
            {"gfn": 0x40000, "role": 0x1782, "created": True},
            "kvm_mmu_get_page: mmu_valid_gen=(0) gfn=0x40000 (262144) role=0x1782 (6018) "
            "root_count=0x0 (0) unsync=(0) created=(1)\n",
        ),
        (
            "kvm:kvm_emulate_insn",
            {"rip": 0, "len": 0x41},
            "kvm_emulate_insn: rip=0x0 (0) csbase=0x0 (0) len='A'(65) insn=<INVALID-SIZE> "
            "flags=(0) failed=(0)\n",
        ),
    ],
)
def test_fields_of_events(name: str, values: dict[str, Any], line: str) -> None:
    form, event = form_and_event(name, **values)
    make = renderer(context_info=False, fields=True).line
    assert make(0, 0, form.encode(event, 100)) == line


def test_every_class_is_made_of_its_fields() -> None:
    """Decoding calls the class with one argument per declared field."""
    for cls in TRACEPOINTS:
        declared = tuple(declared_fields(cls))
        found = fields(cls)
        assert tuple(field.name for field in found) == declared, cls
        assert all(field.required for field in found), cls


def test_names_that_change_show_in_the_next_line() -> None:
    machine = Machine("6.18")
    tracing = machine.subsystems.tracing.tracing
    make = tracing.top.renderer().line
    payload = tracing.shared.catalog.print.encode(Print(MARKER_IP, b"x\n\0\0"), 100)
    assert make(0, 0, payload).startswith("           <...>-100 ")
    tracing.shared.cmdlines.save(100, "known")
    assert make(0, 0, payload).startswith("           known-100 ")


def test_time_goes_on_over_seconds() -> None:
    make = renderer().line
    payload = TRACING.shared.catalog.print.encode(Print(MARKER_IP, b"x\n\0\0"), 100)
    stamps = (999_999_499, 999_999_500, 1_000_000_000, 61_000_001_000, 5_000)
    times = [re.findall(r" (\d+\.\d{6}): ", make(stamp, 0, payload)) for stamp in stamps]
    assert times == [["0.999999"], ["1.000000"], ["1.000000"], ["61.000001"], ["0.000005"]]


def test_texts_and_symbols() -> None:
    assert Print(MARKER_IP, b"hello\n\0").text() == "tracing_mark_write: hello\n"
    stack = stack_of(("vfs_write", "ksys_write"))
    assert stack.text() == "<stack trace>\n => vfs_write\n => ksys_write\n"
    address = stack.addresses()[0] + 4
    assert symbol(address, with_offset=True) == "vfs_write+0x4/0x1000"
    assert symbol(address, with_address=True) == f"vfs_write <{address:x}>"
    assert symbol(0x1234) == "0x1000"


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (r"a\*b*", ["a*b", "a*bc"], ["axb"]),
        (r"a\?", ["a?"], ["ab"]),
        ("a[bc]d", ["abd", "acd"], ["aed", "ad"]),
        ("a[!bc]d", ["aed"], ["abd"]),
        ("a[b-d]", ["ab", "ad"], ["ae", "a-"]),
        ("a[d-b]", [], ["ab", "ac", "ad"]),
        ("a[!d-b]", ["ab", "ax"], ["a"]),
        ("a[b", ["a[b"], ["ab"]),
        ("1*", ["1*"], ["12"]),
        ("*ab\\", ["ab", "xab"], ["abx"]),
        ("!ab*", ["b"], ["abc"]),
        ("*", ["", "x"], []),
        ("a*b*c", ["abc", "axbxc"], ["ab"]),
    ],
)
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    match = glob(pattern, None)
    assert [text for text in (*yes, *no) if match(text)] == yes


def test_the_room_of_a_field_matters_as_in_the_kernel() -> None:
    assert exact("abcdef", 4)("abcd")
    assert not glob("*cd", 0)("abcd")
    assert glob("*d", 5)("abcd")
    assert not glob("*d", 6)("abcd")
    assert not glob("abcdef*", 4)("abcdef")


@given(st.text("ab[]!-*?\\", max_size=8), st.text("ab", max_size=4), st.sampled_from([None, 0, 8]))
def test_any_pattern_answers(pattern: str, text: str, room: int | None) -> None:
    assert glob(pattern, room)(text) in (True, False)


def test_a_filter_of_a_real_event() -> None:
    form, event = form_and_event("kvm:kvm_pio", port=0x80)
    task = Machine("6.18").kernel.bus.task
    assert compile_filter("port == 0x80 && COMM ~ '<*'", form, Dialect()).test(event, task)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([0, 0, 1, 700, 999_999_500]), st.booleans()),
        max_size=60,
    ),
    st.booleans(),
)
@settings(max_examples=60 if not LONG else 2000, deadline=None)
def test_lines_made_together_are_those_made_one_by_one(
    events: list[tuple[int, int, bool]], annotate: bool
) -> None:
    """Of several CPUs, merged by time, with long jumps between and tasks that come later."""
    tracing = Machine("6.18").subsystems.tracing.tracing
    pio = tracing.shared.catalog.by_name["kvm:kvm_pio"]
    buffers = [CpuBuffer(9) for _ in range(4)]
    stamp = 5
    for number, (cpu, delta, is_pio) in enumerate(events):
        stamp += delta
        task = 100 + number % 3
        if is_pio:
            payload = pio.encode(KvmPio(rw=1, port=number, size=1, count=1, val=7), task)
        else:
            payload = tracing.shared.catalog.print.encode(Print(MARKER_IP, b"x%s\n\0"), task)
        buffers[cpu].write(stamp, payload)
    tracing.shared.cmdlines.save(101, "known")
    together, single = tracing.top.renderer(), tracing.top.renderer()
    single.plain = None
    iterator = TraceIterator(list(enumerate(buffers)))
    text = b"".join(iterator.chunks(together, annotate=annotate))
    assert text == b"".join(iterator.chunks(single, annotate=annotate))
    assert text.count(b"\n") == len(events) + annotate * max(0, len({e[0] for e in events}) - 1)
