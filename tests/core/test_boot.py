"""The kernel command line, as kernel/params.c of 6.1 reads it."""

from __future__ import annotations

import pytest

from fakesys.core.boot.command_line import (
    BootLine,
    Word,
    param_bool,
    param_int,
    param_text,
    param_uint,
    wrong_parameter,
)
from fakesys.core.errors import KernelError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  quiet\troot=/dev/dasda1 ", [("quiet", None), ("root", "/dev/dasda1")]),
        ('a="b c" d', [("a", "b c"), ("d", None)]),
        ('"a=b c" d', [("a", "b c"), ("d", None)]),
        ('a="b c', [("a", "b c")]),
        ('a=b" "c', [("a", 'b" "c')]),
        ("a= b==c =d", [("a", ""), ("b", "=c"), ("", "d")]),
        ("a -- b=1", [("a", None)]),
        ("a --b", [("a", None), ("--b", None)]),
    ],
)
def test_words(text: str, words: list[tuple[str, str | None]]) -> None:
    assert list(BootLine(text).words()) == [Word(*word) for word in words]


def test_parameters_of_a_module() -> None:
    line = BootLine("ap.apmask=-5 kvm-amd.avic zcrypt.hwrng-seed=0 apx.a=1 ap=2 ap.apmask=+1")
    assert line.of("ap") == (Word("apmask", "-5"), Word("apmask", "+1"))
    assert line.of("kvm_amd") == (Word("avic", None),)
    assert line.of("zcrypt") == (Word("hwrng-seed", "0"),)


def test_values() -> None:
    assert (param_int("-0x10"), param_uint("7"), param_text("x y")) == (-16, 7, "x y")
    assert (param_bool(None), param_bool("off"), param_bool("Yes")) == (True, False, True)


@pytest.mark.parametrize(
    ("parse", "value", "errno"),
    [
        (param_int, None, "EINVAL"),
        (param_int, "", "EINVAL"),
        (param_int, "1x", "EINVAL"),
        (param_int, str(2**31), "ERANGE"),
        (param_uint, "-1", "EINVAL"),
        (param_uint, str(2**32), "ERANGE"),
        (param_bool, "maybe", "EINVAL"),
        (param_text, None, "EINVAL"),
        (param_text, "x" * 1025, "ENOSPC"),
    ],
)
def test_refused_values(parse: object, value: str | None, errno: str) -> None:
    assert callable(parse)
    with pytest.raises(KernelError) as error:
        parse(value)
    assert error.value.name == errno
    why = "too large" if errno == "ENOSPC" else "invalid"
    line = wrong_parameter("Booting kernel", "ap.domain", value, error.value)
    assert line == f"Booting kernel: `{value or ''}' {why} for parameter `ap.domain'"
