"""The filter language against Python: what a text means, and what is no filter."""

from __future__ import annotations

import operator
from collections.abc import Callable
from errno import EINVAL, ENOENT, EPERM, ESRCH
from fnmatch import fnmatchcase

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakesys.core.c_types import (
    S64,
    U8,
    Bool,
    Comm,
    DynamicString,
    Insn,
    Int,
    TailBytes,
    UnsignedLong,
)
from fakesys.core.event_format import event_format
from fakesys.core.events import Task
from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.tracing.filter.cpulist import parse_cpulist
from fakesys.subsystems.tracing.filter.dialect import Dialect, FilterError
from fakesys.subsystems.tracing.filter.filters import compile_filter

MESSAGES = {
    "Invalid operator",
    "Too many '('",
    "Too few '('",
    "Missing matching quote",
    "Missing '{'",
    "Missing '}'",
    "Operand too long",
    "Expecting string field",
    "Expecting numeric field",
    "Illegal operation for field type",
    "Field not found",
    "Function not found",
    "Illegal integer value",
    "Too many terms in predicate expression",
    "Meaningless filter expression",
    "Invalid cpulist",
    "Invalid value (did you forget quotes)?",
    "No filter found",
    None,
}
NEW, OLD = Dialect(cpus=4, open_ended=True, functions=True), Dialect()
TASK = Task(pid=77, comm="CPU 1/KVM", cpu=1)


class Toy(Tracepoint):
    """One field of each kind."""

    system = "toy"
    event = "toy"
    print_fmt = '""'

    small: U8
    whole: Int
    wide: UnsignedLong
    signed_wide: S64
    yes: Bool
    name: Comm
    text_of: DynamicString
    insn: Insn
    tail: TailBytes


_bound = event_format(Toy, 7, frozenset())
assert _bound is not None
FORM = _bound

Meaning = Callable[[Toy], bool]
COMPARE: dict[str, Callable[[int, int], object]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "&": lambda a, b: a & b != 0,
}
BLANK = st.sampled_from(["", " ", "  ", "\t"])
WORD = st.text("ab", max_size=4)
RANGES = {
    "small": (0, 255),
    "whole": (-(1 << 31), (1 << 31) - 1),
    "wide": (0, (1 << 64) - 1),
    "signed_wide": (-(1 << 63), (1 << 63) - 1),
    "yes": (0, 1),
}


def event(**values: object) -> Toy:
    found: dict[str, object] = {
        "small": 0,
        "whole": 0,
        "wide": 0,
        "signed_wide": 0,
        "yes": False,
        "name": "",
        "text_of": "",
        "insn": bytes(15),
        "tail": b"",
    }
    return Toy(**(found | values))  # type: ignore[arg-type]


@st.composite
def number_terms(draw: st.DrawFn) -> tuple[str, Meaning]:
    field = draw(st.sampled_from(sorted(RANGES)))
    low, high = RANGES[field]
    value = draw(st.sampled_from([low, high, 0, 1]) | st.integers(low, high))
    spelled = f"{value:#x}" if value >= 0 and draw(st.booleans()) else str(value)
    name = draw(st.sampled_from(sorted(COMPARE)))
    compare = COMPARE[name]

    def means(toy: Toy) -> bool:
        return bool(compare(getattr(toy, field), value))

    return f"{field}{draw(BLANK)}{name}{draw(BLANK)}{spelled}", means


@st.composite
def text_terms(draw: st.DrawFn) -> tuple[str, Meaning]:
    field = draw(st.sampled_from(["name", "text_of"]))
    name = draw(st.sampled_from(["==", "!="]))
    value = draw(WORD)
    wanted = name == "=="
    quote = draw(st.sampled_from("'\""))
    return (
        f"{field} {name}{draw(BLANK)}{quote}{value}{quote}",
        lambda toy: (getattr(toy, field) == value) is wanted,
    )


@st.composite
def glob_terms(draw: st.DrawFn) -> tuple[str, Meaning]:
    pattern = draw(st.text("ab*?", max_size=5))
    inverted = draw(st.booleans())
    spelled = f'text_of ~ "{"!" if inverted else ""}{pattern}"'
    return spelled, lambda toy: fnmatchcase(toy.text_of, pattern) is not inverted


@st.composite
def task_terms(draw: st.DrawFn) -> tuple[str, Meaning]:
    return draw(
        st.sampled_from(
            [
                ("common_pid == 77", True),
                ("common_pid < 77", False),
                ("CPU == 1", True),
                ("cpu & CPUS{0-1}", True),
                ("CPU != CPUS{1}", False),
                ("CPU == CPUS{0,1}", False),
                ("COMM ~ 'CPU*'", True),
                ("comm == 'KVM'", False),
                ("common_type == 7", True),
                ("common_flags == 0 ", True),
                ("common_preempt_count > 0", False),
                # No comparison fits an array of bytes.
                ("insn == 0", False),
                ('tail == "bcd"', True),
                ('tail ~ "b*"', True),
                ('tail ~ "*d"', False),
                ('tail ~ "b?d"', False),
            ]
        ).map(lambda pair: (pair[0], lambda toy: pair[1]))
    )


def joined(parts: st.SearchStrategy[tuple[str, Meaning]]) -> st.SearchStrategy[tuple[str, Meaning]]:
    """`!`, parentheses, `&&` and `||` round what there is; all in parentheses, so that the
    text says the order."""

    @st.composite
    def build(draw: st.DrawFn) -> tuple[str, Meaning]:
        kind = draw(st.sampled_from(["not", "and", "or"]))
        left, means_left = draw(parts)
        if kind == "not":
            return f"!{draw(BLANK)}({left})", lambda toy: not means_left(toy)
        right, means_right = draw(parts)
        joint = "&&" if kind == "and" else "||"
        both: Meaning = (
            (lambda toy: means_left(toy) and means_right(toy))
            if kind == "and"
            else (lambda toy: means_left(toy) or means_right(toy))
        )
        return f"({left}{draw(BLANK)}{joint}{draw(BLANK)}{right}{draw(BLANK)})", both

    return build()


TERMS = number_terms() | text_terms() | glob_terms() | task_terms()
EXPRESSIONS = st.recursive(TERMS, joined, max_leaves=8)
EVENTS = st.builds(
    event,
    **{
        name: st.sampled_from([low, high, 0, 1]) | st.integers(low, high)
        for name, (low, high) in RANGES.items()
        if name != "yes"
    },
    yes=st.booleans(),
    name=WORD,
    text_of=WORD,
    tail=st.just(b"bcd\0xyz"),
)


@given(EXPRESSIONS, EVENTS)
@settings(max_examples=300)
def test_a_filter_means_what_it_says(expression: tuple[str, Meaning], toy: Toy) -> None:
    text, means = expression
    assert compile_filter(text, FORM, NEW).test(toy, TASK) is means(toy), text


@pytest.mark.parametrize("depth", [10, 400, 1900])
def test_parentheses_may_be_as_deep_as_the_text_has_room(depth: int) -> None:
    """As recorded: a real kernel of version 6.18 takes each of these texts."""
    toy = event(small=1)
    for text, means in (
        ("(" * depth + "small==1" + ")" * depth, True),
        ("!(" * depth + "small==1" + ")" * depth, depth % 2 == 0),
        ("!" * (depth + 1) + "small==1", depth % 2 == 1),
        ("(small==1&&" * depth + "small==1" + ")" * depth, True),
        ("(small==1&&!" * depth + "small==2" + ")" * depth, depth % 2 == 1),
        ("(small==2||" * depth + "small==1" + ")" * depth, True),
    ):
        assert compile_filter(text, FORM, NEW).test(toy, TASK) is means, text[:40]


@given(st.lists(number_terms(), min_size=2, max_size=6), st.data())
@settings(max_examples=200)
def test_and_binds_closer_than_or(terms: list[tuple[str, Meaning]], data: st.DataObject) -> None:
    joints = [data.draw(st.sampled_from(["&&", "||"])) for _ in terms[1:]]
    toy = data.draw(EVENTS)
    text = terms[0][0]
    groups = [[terms[0][1](toy)]]
    for joint, (term, means) in zip(joints, terms[1:], strict=True):
        text += f" {joint} {term}"
        if joint == "||":
            groups.append([])
        groups[-1].append(means(toy))
    assert compile_filter(text, FORM, OLD).test(toy, TASK) is any(map(all, groups)), text


@given(EXPRESSIONS, EVENTS, st.sampled_from(["&&", "||", " && ", "|| "]))
def test_new_kernels_ignore_a_joint_at_the_end(
    expression: tuple[str, Meaning], toy: Toy, joint: str
) -> None:
    text, means = expression
    assert compile_filter(text + joint, FORM, NEW).test(toy, TASK) is means(toy)
    with pytest.raises(FilterError) as refusal:
        compile_filter(text.replace("CPUS{", "{") + joint, FORM, OLD)
    if "CPUS" not in text:
        assert refusal.value.message == "Meaningless filter expression"


def test_new_kernels_ignore_an_inversion_of_nothing_behind_a_joint() -> None:
    for end in ("&& !", "|| ! !"):
        compile_filter(f"small == 1 {end}", FORM, NEW)
        with pytest.raises(FilterError):
            compile_filter(f"small == 1 {end}", FORM, OLD)
    for text in ("!", "small == 1 || small == 2 && !", "small == 1 && !="):
        with pytest.raises(FilterError):
            compile_filter(text, FORM, NEW)


# As a real 6.18 answers for fields of the same kinds; the place is that of the caret.
@pytest.mark.parametrize(
    ("text", "message", "position"),
    [
        ("wide.function == nosuch", "Function not found", 24),
        ("wide.function == nosuch && small == 1", "Function not found", 24),
        ("wide.function == 1", "Function not found", 19),
        ("wide.function == 08", "Illegal integer value", 20),
        (f"wide.function == {'1' * 24}", "Operand too long", 42),
        ("wide.function < nosuch", "Invalid operator", 17),
        ('wide.function ~ "x"', "Invalid operator", 17),
        ("wide.functionx == 1", "Invalid operator", 14),
        ("small.function == nosuch", "Illegal operation for field type", 19),
        ("CPU.function == nosuch", "Illegal operation for field type", 17),
        ("stacktrace.function == nosuch", "Illegal operation for field type", 24),
        ('STACKTRACE == "x"', "Expecting numeric field", 15),
        ("STACKTRACE & CPUS{0}", "Illegal operation for field type", 14),
        ('wide.ustring ~ "a*"', "Expecting numeric field", 16),
        ("wide.ustring.function <<1", "Invalid operator", 24),
    ],
)
def test_functions_and_stacks_are_wrong_where_a_real_kernel_says(
    text: str, message: str, position: int
) -> None:
    with pytest.raises(FilterError) as refusal:
        compile_filter(text, FORM, NEW)
    assert (refusal.value.message, refusal.value.position) == (message, position)
    with pytest.raises(FilterError) as refusal:
        compile_filter("stacktrace == 1", FORM, OLD)
    assert refusal.value.message == "Field not found"


@given(EVENTS)
def test_words_behind_and_for_fields(toy: Toy) -> None:
    for text in ("common_cpu == 1", "CPU.ustring == 1", 'COMM.ustring ~ "CPU*"'):
        assert compile_filter(text, FORM, OLD).test(toy, TASK)
    # Nothing can be compared with a stack or with an array.
    for field in ("stacktrace", "STACKTRACE", "insn"):
        for rest in ("== 0", "!= 0", "& 1"):
            assert not compile_filter(f"{field} {rest}", FORM, NEW).test(toy, TASK)
    assert not compile_filter("insn & CPUS{1}", FORM, NEW).test(toy, TASK)


def test_after_or_the_end_may_not_be_an_and() -> None:
    with pytest.raises(FilterError):
        compile_filter("small == 1 || small == 2 &&", FORM, NEW)


PIECES = st.sampled_from(
    [
        *"()!&|<>=~'\" \n\t,{}-x0",
        "&&",
        "||",
        "small",
        "name",
        "nosuch",
        "==",
        "~",
        "CPUS",
        "CPU",
        "0x",
        "12",
        '"a*"',
        "'",
        "CPUS{0-3}",
        "18446744073709551616",
        "-1",
        "q" * 300,
        "9" * 30,
    ]
)


@given(st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=60), EVENTS)
@example("", event())
@example("!", event())
@example("()", event())
@settings(max_examples=500)
def test_any_text_is_a_filter_or_one_of_the_kernels_errors(text: str, toy: Toy) -> None:
    for dialect in (OLD, NEW):
        try:
            found = compile_filter(text, FORM, dialect)
        except FilterError as refusal:
            assert refusal.message in MESSAGES
            assert refusal.errno in (EINVAL, EPERM, ENOENT, ESRCH)
            assert 0 <= refusal.position <= len(text) + 2
            assert refusal.message is not None or refusal.position == 0
        else:
            assert found.text == text
            assert found.test(toy, TASK) in (True, False)


def test_too_long_operands() -> None:
    assert compile_filter(f'name == "{"a" * 255}"', FORM, OLD)
    for text in (f'name == "{"a" * 256}"', f"wide == {'1' * 24}"):
        with pytest.raises(FilterError, match="Operand too long"):
            compile_filter(text, FORM, OLD)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0", {0}),
        ("0-2", {0, 1, 2}),
        ("0,2", {0, 2}),
        (" 1 , 3 ", {1, 3}),
        ("all", {0, 1, 2, 3}),
        ("ALL", {0, 1, 2, 3}),
        ("N", {3}),
        ("1-N", {1, 2, 3}),
        ("0-3:1/2", {0, 2}),
        ("0-3:2/3", {0, 1, 3}),
        ("all:1/4", {0}),
        (",", set()),
        ("4", None),
        ("2-1", None),
        ("0-3:1/0", None),
        ("0-3:3/2", None),
        ("0:1/2", None),
        ("x", None),
        ("0-", None),
        ("-1", None),
    ],
)
def test_lists_of_cpus(text: str, cpus: set[int] | None) -> None:
    assert parse_cpulist(text, 4) == cpus
