"""Compiled print formats against the texts of the tracepoints, and C's rules for numbers."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from fakesys.core.c_types import KU8, KU32, KU64, S8, Holds, Int, c_type
from fakesys.core.event_format import EventFormat, Field, lay_out
from fakesys.core.print_fmt.compiler import compile_printer
from fakesys.core.print_fmt.tokens import CannotCompileError
from fakesys.machine.machine import Machine
from fakesys.subsystems.tracing.events.host import Arguments
from tests.long import LONG

ROUNDS = 1000 if LONG else 40
# What names constants of the kernel, prints symbols of addresses or is a statement of C.
NOT_COMPILED = {
    "hrtimer_init",
    "hrtimer_setup",
    "hrtimer_start",
    "itimer_state",
    "mm_page_alloc",
    "mm_page_alloc_extfrag",
    "mm_page_alloc_zone_locked",
    "mm_page_free",
    "mm_page_free_batched",
    "mm_page_pcpu_drain",
    "sched_skip_cpuset_numa",
    "fast_page_fault",
    "kvm_apicv_inhibit_changed",
    "kvm_mmu_get_page",
    "kvm_mmu_prepare_zap_page",
    "kvm_mmu_sync_page",
    "kvm_mmu_unsync_page",
    "kvm_nested_vmenter_failed",
    "kvm_track_tsc",
    "kvm_update_master_clock",
}
FIELDS = lay_out(
    [(name, c_type(kind)) for name, kind in (("a", KU32), ("b", Int), ("c", KU8), ("d", S8))]
    + [("e", c_type(KU64))]
)


def printed(print_fmt: str, *values: int) -> str:
    record = bytes(8) + struct.pack("<IiBb6xQ", *values)
    line = compile_printer("event", print_fmt, FIELDS)(b"task ", 21, record)
    assert line.startswith(b"task 000021: event: ")
    return line.decode("latin-1").removeprefix("task 000021: event: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("print_fmt", "values", "text"),
    [
        ('"%d %u %x", REC->a, REC->b, REC->b', (2**32 - 1, -1, 0, 0, 0), "-1 4294967295 ffffffff"),
        ('"%d %u", REC->c, REC->d', (0, 0, 255, -1, 0), "255 4294967295"),
        ('"%llx %lld", REC->e, REC->e', (0, 0, 0, 0, 2**64 - 1), "ffffffffffffffff -1"),
        ('"%u", REC->a - REC->b', (1, 2, 0, 0, 0), "4294967295"),
        ('"%#08x|%-5d|%5d|%%", REC->a, REC->b, REC->b', (31, 7, 0, 0, 0), "0x00001f|7    |    7|%"),
        ('"%s", REC->d < 0 ? "yes" : "no"', (0, 0, 0, -1, 0), "yes"),
        ('"%s", REC->a > -1 ? "yes" : "no"', (5, 0, 0, 0, 0), "no"),
        ('"%u", (u8)(REC->e >> 8)', (0, 0, 0, 0, 0x1234), "18"),
        ('"%d", REC->a == 3 && !REC->c', (3, 0, 0, 0, 0), "1"),
        ('"%s", __print_symbolic(REC->a, {1, "o" "ne"}, {1 << 1, "two"})', (2, 0, 0, 0, 0), "two"),
        ('"%s", __print_symbolic(REC->a, {1, "one"})', (9, 0, 0, 0, 0), "0x9"),
        ('"%s", __print_flags(REC->e, "|", {1, "P"}, {2, "W"})', (0, 0, 0, 0, 11), "P|W|0x8"),
        ('"%s", __print_flags(REC->e, "|", {1, "P"})', (0, 0, 0, 0, 0), ""),
        ('"%x", ~REC->a', (0, 0, 0, 0, 0), "ffffffff"),
        ('"%d", 1 + 2 * 3 - (REC->b | 4)', (0, 1, 0, 0, 0), "2"),
    ],
)
def test_numbers_are_those_of_c(print_fmt: str, values: tuple[int, ...], text: str) -> None:
    assert printed(print_fmt, *values) == text


def test_an_array_is_indexed() -> None:
    fields = lay_out([("args", c_type(Arguments))])
    record = bytes(8) + struct.pack("<6Q", 1, 2, 3, 4, 5, 255)
    make = compile_printer("call", '"%lx %lx", REC->args[5], REC->args[0]', fields)
    assert make(b"", 0, record) == b"000000: call: ff 1\n"


@pytest.mark.parametrize(
    "print_fmt",
    [
        '"%pS", (void *)REC->e',
        '"%x", SOME_CONSTANT',
        '"%s", REC->a',
        '"%d", "text"',
        '"%d", REC->missing',
        '"%d", REC->a; while (1)',
        '"%d", REC->a REC->b',
        '"%d"',
        '"%d", REC->b / REC->b',
        '"%s", ({ static int x; x; })',
        "REC->a",
        '"%*d", REC->a, REC->b',
        '"%s", REC->a ? "text" : 1',
    ],
)
def test_what_is_not_understood_is_refused(print_fmt: str) -> None:
    with pytest.raises(CannotCompileError):
        compile_printer("event", print_fmt, FIELDS)


def formats() -> list[Any]:
    found: dict[Any, EventFormat] = {}
    for profile in ("seed", "6.1", "6.12", "6.18"):
        for form in Machine(profile).subsystems.tracing.tracing.shared.catalog.events:
            found.setdefault((form.name, form.print_fmt, form.fields), form)
    return [pytest.param(form, id=f"{form.event}-{n}") for n, form in enumerate(found.values())]


@pytest.mark.parametrize("form", formats())
def test_a_compiled_line_is_the_text_of_the_event(form: EventFormat) -> None:
    """Events whose formats were recorded have no other text than that."""
    chance = random.Random(form.event)
    try:
        make = compile_printer(
            form.event, form.print_fmt, form.fields, lambda address, offset: "symbol"
        )
    except CannotCompileError:
        assert form.event in NOT_COMPILED
        return
    for _ in range(ROUNDS):
        values = dict.fromkeys(form.cls.__struct_fields__, 0)
        values |= {field.name: random_value(chance, form, field) for field in form.fields}
        record = form.encode(form.cls(**values), 7)
        line = make(b"task ", 21, record).decode("latin-1")
        assert line.startswith(f"task 000021: {form.event}: ")
        if form.system in ("kvm", "kvmmmu"):
            assert line == f"task 000021: {form.event}: {form.text(form.decode(record))}\n"


def random_value(chance: random.Random, form: EventFormat, field: Field) -> Any:
    kind = field.ctype
    match kind.holds:
        case Holds.BOOL:
            return chance.random() < 0.5
        case Holds.CHARS | Holds.DYNAMIC:
            return chance.choice(["", "abc", "x%s\xff"])
        case Holds.BYTES:
            return chance.randbytes(kind.size)
    bits = 8 * kind.size
    value = chance.choice([chance.getrandbits(bits), chance.getrandbits(4), 1 << bits - 2, 0])
    if field.name == "errno":
        # The least number is printed as its own negative, which no errno is.
        value &= 0xFFFF
    return value - (1 << bits) if kind.signed and value >> bits - 1 else value
