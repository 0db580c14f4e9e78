"""The grammar of control commands: words, operands, options, their types and refusals."""

from __future__ import annotations

from errno import EINVAL, ERANGE

import pytest

from fakesys.core import commands
from fakesys.core.commands import (
    Args,
    Interpreter,
    Operand,
    Option,
    OptionalOperand,
    Tail,
    Verb,
    bind,
)
from fakesys.core.errors import KernelError

OBJECT = Operand("OBJECT", commands.word)
NUMBER = Operand("N", commands.number)
WAY = Operand("WAY", commands.word, one_of=("up", "down"))
TIMES = OptionalOperand("TIMES", commands.number, 1)
REST = Tail("ITEM...")
SIZE = Option("size", commands.size, 0, "bytes")
SPEED = Option("speed", commands.words_of("slow", "fast"), "slow", "how")
WEIGHT = Option("weight", commands.signed, -1, "how much", required=True)


class Log:
    """What was asked for."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []


def _make(log: Log, args: Args) -> str:
    log.heard.append(("make", args[OBJECT], args[SIZE], args[SPEED], sorted(args.given)))
    return "made=1"


def _move(log: Log, args: Args) -> str:
    log.heard.append(("move", args[OBJECT], args[NUMBER], args[WAY], args[TIMES], args[SPEED]))
    return ""


def _weigh(log: Log, args: Args) -> str:
    log.heard.append(("weigh", args[OBJECT], args[WEIGHT]))
    return ""


def _any(log: Log, args: Args) -> str:
    log.heard.append(("tell", args[OBJECT], args.tail))
    return ""


def _drop(log: Log, args: Args) -> str:
    log.heard.append(("drop", args[OBJECT], args[NUMBER]))
    return ""


VERBS: tuple[Verb[Log], ...] = (
    Verb(words=("thing", "make", OBJECT), options=(SIZE, SPEED), run=_make, doc=""),
    Verb(words=(OBJECT, "part", NUMBER, WAY, TIMES), options=(SPEED,), run=_move, doc=""),
    Verb(words=(OBJECT, "part", NUMBER, "drop"), run=_drop, doc=""),
    Verb(words=(OBJECT, "weigh"), options=(WEIGHT,), run=_weigh, doc=""),
    Verb(words=(OBJECT, "tell", REST), run=_any, doc=""),
)


@pytest.fixture
def log() -> Log:
    return Log()


def _run(log: Log, text: str) -> str:
    return Interpreter(bind(VERBS, log)).find(text).run()


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("thing make a\n", ("make", "a", 0, "slow", [])),
        (
            "  thing  make a speed=fast size=0x10K ",
            ("make", "a", 16384, "fast", ["size", "speed"]),
        ),
        ("a part 3 up", ("move", "a", 3, "up", 1, "slow")),
        ("a part 03 down 0x11", ("move", "a", 3, "down", 17, "slow")),
        ("a part 3 down speed=fast", ("move", "a", 3, "down", 1, "fast")),
        ("a part 3 drop", ("drop", "a", 3)),
        ("a weigh weight=-5", ("weigh", "a", -5)),
        ("a tell w=1 w=2 up", ("tell", "a", ["w=1", "w=2", "up"])),
        ("a tell", ("tell", "a", [])),
    ],
)
def test_a_command_is_read(log: Log, text: str, heard: tuple[object, ...]) -> None:
    _run(log, text)
    assert log.heard == [heard]


@pytest.mark.parametrize(
    ("text", "errno"),
    [
        ("", EINVAL),
        ("nonsense", EINVAL),
        ("thing", EINVAL),
        ("thing make", EINVAL),
        ("thing make a b", EINVAL),
        ("thing make a colour=red", EINVAL),
        ("thing make a size=1 size=1", EINVAL),
        ("thing make a size=", EINVAL),
        ("thing make a size=1X", EINVAL),
        ("thing make a speed=idle", EINVAL),
        ("thing make a size=99999999999999999999", ERANGE),
        ("a part x up", EINVAL),
        ("a part 3", EINVAL),
        ("a part 3 sideways", EINVAL),
        ("a part 3 up 1 2", EINVAL),
        ("a weigh", EINVAL),
    ],
)
def test_a_bad_command_changes_nothing(log: Log, text: str, errno: int) -> None:
    with pytest.raises(KernelError) as refusal:
        _run(log, text)
    assert refusal.value.errno == errno
    assert log.heard == []


def test_the_answer_is_the_verbs(log: Log) -> None:
    assert _run(log, "thing make a") == "made=1"
    assert _run(log, "a part 3 drop") == ""


def test_first_words_are_reserved(log: Log) -> None:
    assert Interpreter(bind(VERBS, log)).reserved == {"thing"}


def test_usage_names_the_parts() -> None:
    assert VERBS[0].usage == "thing make OBJECT [size=] [speed=]"
    assert VERBS[1].usage == "OBJECT part N up|down [TIMES] [speed=]"
    assert VERBS[3].usage == "OBJECT weigh weight="
    assert VERBS[4].usage == "OBJECT tell [ITEM...]"


def test_what_a_verb_does_not_have() -> None:
    args = Interpreter(bind(VERBS, Log())).find("thing make a size=5").args
    assert (args[SIZE], args.find(SIZE)) == (5, 5)
    assert args.find(NUMBER) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("010", 8), ("1K", 1024), ("2m", 2 << 20), ("0x1G", 1 << 30), ("1T", 1 << 40)],
)
def test_sizes(text: str, value: int) -> None:
    assert commands.size(text) == value


def test_other_values() -> None:
    assert commands.flag("1")
    assert not commands.flag("0")
    assert commands.octets("00ff") == b"\0\xff"
    assert commands.number_within(2, 4)("3") == 3
    for refused in (
        lambda: commands.flag("2"),
        lambda: commands.octets("0g"),
        lambda: commands.number_within(2, 4)("5"),
    ):
        with pytest.raises(KernelError) as refusal:
            refused()
        assert refusal.value.errno == EINVAL
