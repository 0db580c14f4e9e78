"""The kernel's number and mask grammars at their edges."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakesys.core import text
from fakesys.core.errors import KernelError


def errno_of(call: Callable[[], object]) -> str:
    with pytest.raises(KernelError) as refusal:
        call()
    assert refusal.value.strerror == os.strerror(refusal.value.errno or 0)
    return refusal.value.name


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("0", 0),
        ("5\n", 5),
        ("+5", 5),
        ("0x1F\n", 31),
        ("0X1f", 31),
        ("010", 8),
        ("00", 0),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_kstrtoull_accepts(written: str, value: int) -> None:
    assert text.kstrtoull(written) == value


@pytest.mark.parametrize(
    "written",
    ["", "\n", " 5", "5 ", "-1", "5,6", "08", "0x", "5\n\n", "++5", "5\n6\n", "0x1g", "\t5", "٣"],
)
def test_kstrtoull_refuses_other_text(written: str) -> None:
    assert errno_of(lambda: text.kstrtoull(written)) == "EINVAL"


@pytest.mark.parametrize(
    ("written", "bits"), [("18446744073709551616", 64), ("4294967296", 32), ("0x80000000", 31)]
)
def test_kstrtoull_refuses_too_many_bits(written: str, bits: int) -> None:
    assert errno_of(lambda: text.kstrtoull(written, bits=bits)) == "ERANGE"


def test_kstrtoull_in_base_10_takes_no_prefix() -> None:
    assert text.kstrtoull("010", 10) == 10
    assert errno_of(lambda: text.kstrtoull("0x10", 10)) == "EINVAL"


def test_kstrtoull_in_base_16_takes_the_prefix_or_none() -> None:
    assert text.kstrtoull("0x10", 16) == text.kstrtoull("10\n", 16) == 16
    assert errno_of(lambda: text.kstrtoull("g", 16)) == "EINVAL"


@pytest.mark.parametrize(
    ("written", "bits", "value"),
    [
        ("-1\n", 64, -1),
        ("+7", 64, 7),
        ("-2147483648", 32, -(2**31)),
        ("2147483647", 32, 2**31 - 1),
        ("-0x10", 64, -16),
    ],
)
def test_kstrtoll_accepts(written: str, bits: int, value: int) -> None:
    assert text.kstrtoll(written, bits=bits) == value


@pytest.mark.parametrize(
    ("written", "name"),
    [("-+1", "EINVAL"), ("--1", "EINVAL"), ("2147483648", "ERANGE"), ("-2147483649", "ERANGE")],
)
def test_kstrtoll_refuses(written: str, name: str) -> None:
    assert errno_of(lambda: text.kstrtoll(written, bits=32)) == name


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("y", True),
        ("Yes\n", True),
        ("1", True),
        ("on", True),
        ("On\n", True),
        ("n", False),
        ("No", False),
        ("0\n", False),
        ("off", False),
        ("OF", False),
    ],
)
def test_kstrtobool_accepts(written: str, value: bool) -> None:
    assert text.kstrtobool(written) is value


@pytest.mark.parametrize("written", ["", "\n", "2", "o", "x", " 1"])
def test_kstrtobool_refuses(written: str) -> None:
    assert errno_of(lambda: text.kstrtobool(written)) == "EINVAL"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("10abc", 10),
        (" \n\t7", 7),
        ("-3", -3),
        ("0x1", 0),
        ("4294967297", 1),
        ("2147483648", -(2**31)),
    ],
)
def test_scan_d_accepts(written: str, value: int) -> None:
    assert text.scan_d(written) == value


@pytest.mark.parametrize("written", ["", "abc", "+5", "- 5", "\n"])
def test_scan_d_refuses(written: str) -> None:
    assert errno_of(lambda: text.scan_d(written)) == "EINVAL"


def test_scan_i_knows_hex_and_octal() -> None:
    assert [text.scan_i(word) for word in ("0x1f", "010", "-0x2", "9z")] == [31, 8, -2, 9]


def test_c_string_ends_at_the_first_nul() -> None:
    assert text.c_string(b"1400\0junk\n") == "1400"
    assert text.c_string(b"\xff\n") == "\xff\n"


def test_masks_have_id_0_leftmost() -> None:
    assert text.parse_absolute_mask("0x8") == 1
    assert text.format_mask(1) == "0x8" + "0" * 63
    assert text.format_mask(1 << 255) == "0x" + "0" * 63 + "1"


@pytest.mark.parametrize("written", ["", "\n", "0x", "0x\n", "x"])
def test_a_mask_without_digits_is_empty(written: str) -> None:
    assert text.parse_absolute_mask(written) == 0


@pytest.mark.parametrize("written", ["0x" + "0" * 65, "0X1", "0xx1", "0x1,2", "0x 1", " 1", "0xg"])
def test_absolute_masks_refuse(written: str) -> None:
    assert errno_of(lambda: text.parse_absolute_mask(written)) == "EINVAL"


@pytest.mark.parametrize(
    ("written", "before", "after"),
    [
        ("+1+2", 0, {1, 2}),
        ("+1,+2\n", 0, {1, 2}),
        ("-5-6", {4, 5, 6, 7}, {4, 7}),
        ("-5,-6", {4, 5, 6, 7}, {4, 7}),
        ("+5-5", 0, {5}),
        ("+0x10,+010", 0, {16, 8}),
        ("+7,-7", 0, set()),
        ("-7,+7", {7}, {7}),
        ("+3,,\n,+4\n\n", 0, {3, 4}),
        ("+0-255", 0, set(range(256))),
    ],
)
def test_relative_masks(written: str, before: set[int] | int, after: set[int]) -> None:
    mask = sum(1 << bit for bit in before) if isinstance(before, set) else before
    assert set(text.ids(text.parse_mask(written, mask))) == after


@pytest.mark.parametrize(
    "written",
    [
        "+256",
        "+5-4",
        "+",
        "-",
        "+ 1",
        "+1 ",
        "+0x",
        "-08",
        "+1,2",
        "+1-",
        "+-1",
        "+1-256",
        f"+{2**64 + 256}",
        "+1,+",
        "+1x",
    ],
)
def test_relative_masks_refuse(written: str) -> None:
    assert errno_of(lambda: text.apply_relative_mask(written, 0)) == "EINVAL"


def test_numbers_of_relative_masks_wrap_at_64_bits() -> None:
    assert text.apply_relative_mask(f"+{2**64 + 5},+0x10000000000000007", 0) == 1 << 5 | 1 << 7


@given(st.integers(0, text.ALL_IDS))
def test_a_printed_mask_reads_back(mask: int) -> None:
    assert text.parse_mask(text.format_mask(mask) + "\n", 0) == mask
    assert sum(1 << bit for bit in text.ids(mask)) == mask


@given(st.text(alphabet="+-0123456789xXabf, \n", max_size=12))
def test_any_mask_text_is_taken_or_refused_cleanly(written: str) -> None:
    try:
        mask = text.parse_mask(written, 5)
    except KernelError as refusal:
        assert refusal.name == "EINVAL"
    else:
        assert 0 <= mask <= text.ALL_IDS


def test_words_of_control_files() -> None:
    assert text.one_word(" linux-boot\n") == "linux-boot"
    assert [text.zero_or_one(written) for written in ("1", "0\n")] == [True, False]
    text.require_one("1\n")


@pytest.mark.parametrize(
    ("parse", "written"),
    [
        (text.one_word, "two words"),
        (text.one_word, ""),
        (text.zero_or_one, "2"),
        (text.zero_or_one, "1\n\n"),
        (text.require_one, "0"),
        (text.require_one, "1 "),
    ],
)
def test_other_words_are_refused(parse: Callable[[str], object], written: str) -> None:
    assert errno_of(lambda: parse(written)) == "EINVAL"
