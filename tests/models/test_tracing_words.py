"""The words of set_event, lists of pids and masks, against their own rules in Python."""

from __future__ import annotations

from errno import EINVAL, EOVERFLOW, EPERM

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.subsystems.tracing.files.settings import mask_text, parse_mask
from fakesys.subsystems.tracing.instances.pid_list import PidList
from fakesys.subsystems.tracing.instances.set_event import match, set_event_text, write_set_event

TRACING = Machine("6.18").subsystems.tracing.tracing
NAMES = [form.name for form in TRACING.shared.catalog.events]
EVENT_NAMES = sorted({form.event for form in TRACING.shared.catalog.events})
SYSTEMS = sorted(TRACING.shared.catalog.systems)
HALF = ["", "*"]
WORDS = st.one_of(
    st.tuples(st.sampled_from(SYSTEMS + HALF), st.sampled_from(EVENT_NAMES + HALF)).map(":".join),
    st.sampled_from(SYSTEMS + EVENT_NAMES),
    st.text("kvm_:*!?", min_size=1, max_size=8),
)


def named(word: str) -> set[str]:
    """What a word stands for; empty: it is refused."""
    system, colon, event = word.partition(":")
    if not colon:
        return {name for name in NAMES if word in name.split(":")}
    return {
        name
        for name in NAMES
        if system in (*HALF, name.split(":")[0]) and event in (*HALF, name.split(":")[1])
    }


@given(WORDS)
@settings(max_examples=300)
def test_a_word_names_these_events(word: str) -> None:
    wanted = named(word)
    if not wanted:
        with pytest.raises(KernelError) as refusal:
            match(TRACING.shared.catalog, word)
        assert refusal.value.errno == EINVAL
        return
    assert {form.name for form in match(TRACING.shared.catalog, word)} == wanted


@given(st.lists(st.tuples(st.booleans(), WORDS), max_size=6))
@settings(max_examples=60, deadline=None)
def test_words_switch_events_one_after_the_other(words: list[tuple[bool, str]]) -> None:
    instance = TRACING.top
    on: set[str] = set()
    for enable, word in words:
        text = f" {'' if enable else '!'}{word} rest"
        names = named(word) if word[0] != "!" else named(word[1:])
        removes = not enable or word[0] == "!"
        # A second exclamation mark is part of a name that nothing has.
        if not names or (not enable and word[0] == "!"):
            with pytest.raises(KernelError):
                write_set_event(instance, text)
        else:
            # The word and the blank behind it are consumed, nothing of the rest.
            assert write_set_event(instance, text) == len(text) - len("rest")
            on = on - names if removes else on | names
        assert set_event_text(instance).split() == [name for name in NAMES if name in on]
    write_set_event(instance, "!*:*")
    assert set_event_text(instance) == ""


@given(st.sampled_from(["", " ", "\n", " \t\n "]))
def test_blanks_alone_do_nothing(text: str) -> None:
    assert write_set_event(TRACING.top, text) == len(text)


@given(st.lists(st.integers(0, (1 << 30) - 1), max_size=6), st.sampled_from([" ", "\n", "\t \n"]))
def test_pids_are_kept_once_and_in_order(pids: list[int], between: str) -> None:
    known = PidList()
    known.add(between.join(f"{pid:#o}".replace("0o", "0") if pid % 2 else str(pid) for pid in pids))
    assert known.text() == "".join(f"{pid}\n" for pid in sorted(set(pids)))
    assert bool(known) is bool(pids)
    known.clear()
    assert not known


@pytest.mark.parametrize(
    ("text", "errno"),
    [("1 x", EINVAL), ("-1", EINVAL), ("1073741824", EPERM), ("1 99999999999999999999", EINVAL)],
)
def test_a_wrong_pid_adds_none(text: str, errno: int) -> None:
    known = PidList()
    known.add("5")
    with pytest.raises(KernelError) as refusal:
        known.add(text)
    assert refusal.value.errno == errno
    assert known.text() == "5\n"


@given(st.integers(1, 100).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, (1 << n) - 1))))
def test_a_mask_is_read_as_it_is_printed(pair: tuple[int, int]) -> None:
    bits, mask = pair
    assert parse_mask(mask_text(mask, bits), bits) == mask


@pytest.mark.parametrize(
    ("text", "mask"),
    [("", 0), ("\n", 0), (",1", 1), ("3,", 3), ("1,0", 1 << 32), ("F", 15), ("3\nrest", 3)],
)
def test_masks(text: str, mask: int) -> None:
    assert parse_mask(text, 40) == mask


@pytest.mark.parametrize(
    ("text", "errno"),
    [
        ("x", EINVAL),
        ("0x3", EINVAL),
        ("1g", EINVAL),
        ("1,2,3", EOVERFLOW),
        ("111111111", EOVERFLOW),
        ("x11111111", EINVAL),
        ("1ff,0", EOVERFLOW),
    ],
)
def test_wrong_masks(text: str, errno: int) -> None:
    with pytest.raises(KernelError) as refusal:
        parse_mask(text, 40)
    assert refusal.value.errno == errno


def test_a_nul_ends_a_word_and_is_taken_with_it() -> None:
    instance = TRACING.top
    assert write_set_event(instance, "\tkvm:kvm_pio\0:") == 13
    assert set_event_text(instance) == "kvm:kvm_pio\n"
    assert write_set_event(instance, " \0kvm:kvm_msr") == 2
    assert write_set_event(instance, "!*:*") == 4
    assert set_event_text(instance) == ""


def test_a_word_has_at_most_127_characters() -> None:
    for length in (127, 128):
        with pytest.raises(KernelError) as refusal:
            write_set_event(TRACING.top, "x" * length)
        assert refusal.value.errno == EINVAL
    known = PidList()
    known.add("0" * 126 + "5")
    with pytest.raises(KernelError):
        known.add("0" * 127 + "6")
    assert known.text() == "5\n"


def test_an_empty_word_ends_a_list_of_pids() -> None:
    known = PidList()
    assert known.add("1\0002 \0003") == 5
    assert known.text() == "1\n2\n"
