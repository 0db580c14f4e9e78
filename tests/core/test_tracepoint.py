"""A declared tracepoint: offsets as in C, records packed and unpacked, variants by feature."""

from __future__ import annotations

import pytest

from fakesys.core import c_types as c
from fakesys.core.event_format import EventFormat, event_format
from fakesys.core.features import Feature, FeatureSet
from fakesys.core.tracepoint import Tracepoint, Variant, hashed

NOTHING: FeatureSet = frozenset()


class ToyFeature(Feature):
    """What the toy kernels differ in."""

    EXEC = "toy.exec"
    GONE = "toy.gone"
    VALUE = "toy.value"


class Pio(Tracepoint):
    """An event with numbers of every width, and less of them on other kernels."""

    system = "toy"
    event = "pio"
    print_fmt = '"pio %u", REC->port'
    common_preempt_count = 1

    rw: c.Bool
    port: c.U16
    value: c.KU64
    sign: c.SignedChar

    def text(self) -> str:
        return f"pio {self.port} {self.value:x} {self.sign}"

    variants = (
        Variant(
            unless=ToyFeature.VALUE,
            fields=("sign", ("port", c.chars(4))),
            print_fmt='"old"',
            text=lambda self: f"old {self.sign}",
        ),
        Variant(needs=ToyFeature.GONE, absent=True),
    )


class Exec(Tracepoint):
    """An event with texts in and behind the record."""

    system = "toy"
    event = "exec"
    print_fmt = '"%s", __get_str(name)'
    needs = ToyFeature.EXEC

    name: c.DynamicString
    pid: c.Pid
    comm: c.Comm
    insn: c.Insn
    other: c.DynamicString

    def text(self) -> str:
        return f"{self.name} {self.pid} {self.comm} {self.insn.hex()} {self.other}"


class Raw(Tracepoint):
    """An event that ends with bytes of any length."""

    system = "toy"
    event = "raw"
    print_fmt = '"raw"'

    number: c.UnsignedInt
    buf: c.TailBytes

    def text(self) -> str:
        return self.buf.hex()


VALUE: FeatureSet = frozenset({ToyFeature.VALUE})


def _bound(cls: type[Tracepoint], features: FeatureSet) -> EventFormat:
    found = event_format(cls, 7, features)
    assert found is not None
    return found


def test_format_has_offsets_and_signs() -> None:
    lines = _bound(Pio, VALUE).format_text().splitlines()
    assert lines[:3] == ["name: pio", "ID: 7", "format:"]
    assert lines[3] == "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;"
    assert lines[8:12] == [
        "\tfield:bool rw;\toffset:8;\tsize:1;\tsigned:0;",
        "\tfield:__u16 port;\toffset:10;\tsize:2;\tsigned:0;",
        "\tfield:u64 value;\toffset:16;\tsize:8;\tsigned:0;",
        "\tfield:signed char sign;\toffset:24;\tsize:1;\tsigned:1;",
    ]
    assert lines[13] == 'print fmt: "pio %u", REC->port'


def test_record_comes_back() -> None:
    form = _bound(Pio, VALUE)
    record = form.encode(Pio(True, 0x3F8, 1 << 63, -1), pid=42)
    assert len(record) == 32
    assert record[:8].hex() == "070000012a000000"
    assert form.decode(record) == Pio(True, 0x3F8, 1 << 63, -1)


@pytest.mark.parametrize(("value", "seen"), [(-1, (1 << 64) - 1), (1 << 64, 0)])
def test_too_large_numbers_are_cut_as_in_c(value: int, seen: int) -> None:
    form = _bound(Pio, VALUE)
    assert form.decode(form.encode(Pio(False, 1, value, 0), pid=1)).value == seen


def test_variant_records_its_fields_only() -> None:
    form = _bound(Pio, NOTHING)
    assert [(f.name, f.offset) for f in form.fields] == [("sign", 8), ("port", 9)]
    assert form.print_fmt == '"old"'


def test_variant_takes_away_the_event() -> None:
    assert event_format(Pio, 7, VALUE | {ToyFeature.GONE}) is None


def test_event_is_absent_without_its_feature() -> None:
    assert event_format(Exec, 7, NOTHING) is None


def test_strings_lie_behind_the_fields() -> None:
    form = _bound(Exec, frozenset({ToyFeature.EXEC}))
    event = Exec("/bin/true", 9, "a-comm-of-more-than-15", b"\x90" * 15, "")
    record = form.encode(event, pid=9)
    assert len(record) % 4 == 0
    back = form.decode(record)
    assert (back.name, back.pid, back.insn, back.other) == ("/bin/true", 9, b"\x90" * 15, "")
    assert back.comm == "a-comm-of-more-"
    assert form.text(back).startswith("/bin/true 9 ")


@pytest.mark.parametrize("size", [0, 1, 4, 113])
def test_tail_bytes_are_padded_to_four(size: int) -> None:
    form = _bound(Raw, NOTHING)
    record = form.encode(Raw(5, b"x" * size), pid=0)
    assert len(record) == 12 + (size + 3) // 4 * 4
    assert form.decode(record).buf == (b"x" * size).ljust((size + 3) // 4 * 4, b"\0")


def test_field_finds_common_fields() -> None:
    form = _bound(Raw, NOTHING)
    found = form.field("common_pid")
    assert found is not None
    assert found.offset == 4
    assert form.field("nosuch") is None


def test_pointers_are_hidden_and_stable() -> None:
    assert hashed(0) == "0" * 16
    assert hashed(0xFFFF888000001000) == hashed(0xFFFF888000001000)
    assert len(hashed(0xFFFF888000001000)) == 16


def test_events_are_compared_and_shown_by_their_fields() -> None:
    one, same, other = Pio(True, 1, 2, -3), Pio(True, 1, 2, -3), Pio(True, 1, 2, 3)
    assert one == same
    assert one != other
    of_another_kind: object = (True, 1, 2, -3)
    assert one != of_another_kind
    assert repr(one) == "Pio(rw=True, port=1, value=2, sign=-3)"
    with pytest.raises(TypeError):
        hash(one)
