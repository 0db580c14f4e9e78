"""TOML with limits: the same as the standard library reads, or refused with the line."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakesys.machine.scenario import SHIPPED
from fakesys.machine.untrusted.toml import DEEPEST, MOST_PARTS, TomlError, table_of

DEEP = "[" * DEEPEST + "]" * DEEPEST
KEY = ".".join("k" * MOST_PARTS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"a = {DEEP}",
        f"[{KEY}]\n{KEY} = 1.5",
        "a.b = [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]",
        f"a = 'x' # {'[' * 99} {'.' * 99}",
        f'a = "{"[" * 99}{"." * 99}"',
        f'a = "\\"{"[" * 99}"',
        f"a = '{'[' * 99}'",
        f'a = """\n"" {"[" * 99} \\""" {"." * 99}"""',
        f"a = '''\n'' {'[' * 99}'''",
        f'a = """x"""""\nb = {DEEP}',
        'a = "\\u0000"',
        *(path.read_text() for path in SHIPPED.glob("*.toml")),
    ],
)
def test_what_is_within_the_limits(text: str) -> None:
    assert table_of(text.encode()) == tomllib.loads(text)


LONG = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"a = {LONG}", "nested more than 32 deep (at line 1)"),
        (f"\n\na = [{DEEP}]", "nested more than 32 deep (at line 3)"),
        ("a = 1\nb = " + "{a=" * 5000, "nested more than 32 deep (at line 2)"),
        (f"b = '''\n'''\na = {LONG}", "nested more than 32 deep (at line 3)"),
        (f'b = "\\\\"\na = {LONG}', "nested more than 32 deep (at line 2)"),
        ("[" * 100_000, "nested more than 32 deep (at line 1)"),
        ("x" + ".a" * 100_000 + " = 1", "a key of more than 4 parts (at line 1)"),
        (f"a = 1\n[{KEY}.k]", "a key of more than 4 parts (at line 2)"),
        ("a = {b = 1, 'c'.\"d\" . e.f.g = 1}", "a key of more than 4 parts (at line 1)"),
        ("a = " + "1" * 5000, "not TOML: Exceeds the limit (4300 digits)"),
        ("a = ", "not TOML: Invalid value (at end of document)"),
        ("a = 'x\0y'", "not TOML: Found invalid character '\\x00' (at line 1, column 7)"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(TomlError) as error:
        table_of(text.encode())
    assert str(error.value).startswith(why)


def test_other_bytes() -> None:
    with pytest.raises(TomlError, match=r"byte 0xfe is not UTF-8 \(at line 3\)"):
        table_of(b"a = 1\n\nb = '\xfe'")


PIECES = st.sampled_from(
    ['"""', "'''", '"', "'", "\\", "#", "\n", "[", "]", "{", "}", "=", ".", ",", "a", "1", " "]
)


@given(st.lists(PIECES, max_size=60).map("".join))
def test_limits_change_nothing_else(text: str) -> None:
    try:
        wanted = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(TomlError):
            table_of(text.encode())
        return
    try:
        assert table_of(text.encode()) == wanted
    except TomlError as error:
        assert str(error).startswith(("nested more", "a key of more"))
        assert text.count(".") >= MOST_PARTS or text.count("[") + text.count("{") > DEEPEST
