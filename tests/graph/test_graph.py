"""Graphs of objects to lines and back: every kind of object, sharing, cycles, refusals."""

from __future__ import annotations

import itertools
import json
import operator
import os
import random
import re
import struct
from array import array
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest

from fakesys.graph.decode import BadGraphError, Decoder, parse
from fakesys.graph.encode import CannotSaveError, Encoder, Outside
from fakesys.graph.names import Names
from tests.graph import shapes
from tests.graph.shapes import TABLE, Colour, Frozen, Keyed, Node, Pair, Rights, Ring, Slotted

NAMES = Names(["tests.graph.shapes"])
Lines = list[list[Any]]


def label(thing: object) -> str:
    """How a test is called: the same in every process, so without addresses."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(thing))[:30]


class Tree:
    """Something that a graph refers to."""

    def heard(self) -> str:
        return "heard"

    def secret(self) -> None:
        """Nobody may refer to it."""


TREE = Tree()
OUTSIDE = {"tree": Outside(TREE, frozenset({"heard"}))}


def lines_of(thing: object) -> tuple[Any, Lines]:
    roots, lines = Encoder(NAMES, OUTSIDE).encode({"it": thing})
    return roots["it"], [parse(line) for line in lines]


def built(lines: Any, root: Any = (0,)) -> Any:
    return Decoder(NAMES, OUTSIDE).decode({"it": list(root) if root == (0,) else root}, lines)["it"]


def copy_of(thing: Any) -> Any:
    root, lines = lines_of(thing)
    return built(json.loads(json.dumps(lines)), root)


@pytest.mark.parametrize(
    "thing",
    [
        None, True, 0, -5, 1 << 53, -(1 << 200), 1 << 5000, 1.5, float("inf"), "", "aé\udcff\0",
        b"", b"\0\xff", [], [1, [2, "x"]], (), (1, (2,)), {"a": 1, 2: [3]}, {1, 2}, frozenset({1}),
        bytearray(b"abc"), range(3, 9, 2), deque([1, 2], maxlen=5), Counter("aab"), array("i", [1]),
        Colour.RED, Rights.READ, Rights.READ | Rights.WRITE, Pair(1, "x"), Frozen(1, (2,)), int,
        operator.add, shapes.double, Node, TABLE, re.compile("a+", re.DOTALL),
    ],
    ids=label,
)  # fmt: skip
def test_equal_and_of_the_same_kind(thing: Any) -> None:
    copy = copy_of(thing)
    assert copy == thing
    assert type(copy) is type(thing)


def test_what_has_a_name_is_the_thing_itself() -> None:
    for thing in (Colour.RED, shapes.double, Node, TABLE, TABLE["pair"], shapes.LIMITS[0]):
        assert copy_of([thing])[0] is thing


def test_what_stands_in_a_private_table_has_no_name() -> None:
    cached = shapes._CACHE["x"]
    assert copy_of([cached])[0] is not cached
    assert copy_of([cached])[0] == cached


def test_order_of_a_dict_is_kept() -> None:
    assert list(copy_of({"b": 1, "a": 2, "c": 3})) == ["b", "a", "c"]
    assert copy_of(deque([1, 2], maxlen=5)).maxlen == 5


def test_shared_objects_are_shared_and_cycles_close() -> None:
    one = Node("one")
    one.next = other = Node("other")
    other.next = one
    one.rest = other.rest = [one, {other: one}]
    copy = copy_of(one)
    assert copy.next.next is copy
    assert copy.rest is copy.next.rest
    assert copy.rest[0] is copy
    assert copy.rest[1][copy.next] is copy
    assert copy.name == "one"


def test_structs_that_change_may_be_parts_of_themselves() -> None:
    one, other = Ring("one", []), Ring("other", [1])
    one.next, other.next = other, one
    one.parts.append({one: other.parts})
    copy = copy_of(one)
    assert copy.next.next is copy
    assert copy.parts[0][copy] is copy.next.parts
    assert (copy.name, copy.next.name, copy.next.parts) == ("one", "other", [1])


def test_long_chains_need_no_deep_stack() -> None:
    first = node = Node("0")
    for number in range(20_000):
        node.next = Node(str(number))
        node = node.next
    copy = copy_of(first)
    for _ in range(20_000):
        copy = copy.next
    assert copy.name == "19999"


def test_slots_private_names_and_what_is_not_saved() -> None:
    thing = Slotted(5)
    thing.waiting.append("client")
    copy = copy_of(thing)
    assert copy.value == 5
    assert copy.secret() == 10
    assert copy.waiting == []
    assert not hasattr(copy, "unset")
    assert copy.told == ["loaded"]


def test_objects_hashed_by_value_are_keys() -> None:
    frozen = {Frozen(1, (2,)): "a", Frozen(2, ()): "b"}
    assert copy_of(frozen) == frozen
    assert copy_of(frozenset(frozen)) == frozenset(frozen)
    keyed = copy_of({Keyed("x"): 1})
    assert keyed[Keyed("x")] == 1


def test_a_frozenset_of_what_is_hashed_by_changing_contents_is_refused() -> None:
    with pytest.raises(CannotSaveError, match="a frozenset of Keyed"):
        lines_of(frozenset({Keyed("x")}))


def test_functions_made_inside_others_keep_what_they_close_over() -> None:
    box: list[int] = [1]
    count, twice = shapes.counter(box)
    count()
    new_box, new_count, new_twice = copy_of([box, count, twice])
    assert new_count() == 3
    assert new_box == [1, 1, 1]
    assert box == [1, 1]
    assert new_twice(4) == 8
    assert new_twice.__kwdefaults__ == {"factor": 2}
    # Both refer to one variable.
    new_count()
    assert new_box == [1, 1, 1, 1]


def test_a_function_that_calls_itself() -> None:
    assert copy_of(shapes.factorial())(5) == 120


def test_methods_partials_and_lambdas_of_tables() -> None:
    node = Node("n")
    copy, hello, fixed, keyed = copy_of(
        [node, node.hello, partial(node.hello, "you"), partial(shapes.double, value=3)]
    )
    assert hello.__self__ is copy
    assert hello("me") == "n greets me"
    assert fixed() == "n greets you"
    assert keyed() == 6
    assert copy_of(shapes.RULES[1].test)(3)


def test_methods_of_containers() -> None:
    box: dict[str, int] = {"a": 1}
    copy, values = copy_of([box, box.values])
    copy["b"] = 2
    assert list(values()) == [1, 2]
    with pytest.raises(CannotSaveError, match="has no name"):
        lines_of(box.clear)


def test_tools_of_the_standard_library() -> None:
    counter = itertools.count(5, 2)
    next(counter)
    chance = random.Random(3)
    chance.random()
    copy = copy_of([counter, chance, struct.Struct("<IQ"), operator.attrgetter("name.x", "rest")])
    assert next(copy[0]) == 7
    assert next(copy_of(itertools.count(4))) == 4
    assert copy[1].random() == chance.random()
    assert copy[2].pack(1, 2) == struct.pack("<IQ", 1, 2)
    assert copy_of(operator.attrgetter("name"))(Node("n")) == "n"
    view = copy_of(MappingProxyType({"a": [1]}))
    assert view == {"a": [1]}
    with pytest.raises(TypeError):
        view["b"] = 2


def test_what_is_outside_is_referred_to() -> None:
    copy = copy_of([TREE, TREE.heard])
    assert copy[0] is TREE
    assert copy[1]() == "heard"
    with pytest.raises(CannotSaveError, match="secret of tree"):
        lines_of(TREE.secret)


def foreign() -> None:
    """A function of no module that may be named."""


class Foreign:
    """A class of no module that may be named."""


@pytest.mark.parametrize(
    "thing",
    [foreign, Foreign(), Foreign, lambda: None, os.system, os, iter([1]), object(), ValueError("x"),
     (n for n in (1,)), shapes.Texts({"a": 1})],
    ids=label,
)  # fmt: skip
def test_what_has_no_form_is_refused(thing: object) -> None:
    with pytest.raises(CannotSaveError):
        lines_of([thing])


def test_a_refusal_says_where() -> None:
    node = Node("n")
    node.rest = foreign  # type: ignore[assignment]
    with pytest.raises(CannotSaveError, match=r"Node: .*foreign is no function of ours"):
        lines_of(node)


@pytest.mark.parametrize(
    "line",
    [
        ["name", "os:system"],
        ["name", "posix:system"],
        ["name", "builtins:eval"],
        ["name", "builtins:getattr"],
        ["name", "tests.graph.shapes:os"],
        ["name", "tests.graph.shapes:os.system"],
        ["name", "tests.graph.shapes:Node.__class__"],
        ["name", "tests.graph.shapes:double.__globals__"],
        ["class", "os:Popen", []],
        ["class", "builtins:int", ["__class__"]],
        ["class", "tests.graph.shapes:Node", ["__dict__"]],
        ["class", "tests.graph.shapes:double", []],
        ["function", "os:system", 0, "system", None, None],
        ["function", "tests.graph.shapes:counter", 0, "other", None, None],
        ["function", "tests.graph.shapes:tripler", 0, "other", None, None],
        ["function", "tests.graph.shapes:counter", 99, "counter", None, None],
        ["function", "tests.graph.shapes:Node", 0, "x", None, None],
        ["record", "builtins:list", 1],
        ["enum", "builtins:int", 1],
        ["fields", "tests.graph.shapes:Node", 1],
        ["outside", "machine"],
        ["outside", "tree", "secret"],
        ["outside", "tree", "__class__"],
        ["getter", "__class__"],
        ["getter", "name.__globals__"],
        ["getter", 5],
        ["pickle", "x"],
        ["list", [5]],
        ["list", [-1]],
        ["list", {"q": "x"}],
        ["list", {"x": "zz"}],
        ["list", {"b": "?"}],
        ["dict", 1],
        ["dict", {}, 1],
        ["tuple", [0]],
        ["array", "i", "AAAA"],
        ["struct", "%"],
        ["pattern", "(", 0],
        ["random", 3, [1], None],
        ["count", "x"],
        ["deque", "x"],
        [5],
        [None],
        [{}],
        [0],
    ],
    ids=str,
)
def test_other_lines_are_refused(line: list[Any]) -> None:
    with pytest.raises(BadGraphError):
        built([line])


def test_a_chain_of_harmless_names_reaches_nothing() -> None:
    # Methods of what is not a function or container, and containers that forbid them.
    for lines in (
        [["name", "builtins:int"], ["bound", [0], [0]]],
        [["dict"], ["builtin", [0], "__class__"]],
        [["dict"], ["builtin", [0], "clear"]],
        [["name", "tests.graph.shapes:double"], ["builtin", [0], "get"]],
        [["list", 1], ["dict", [0], 1]],
        [["list", 1], ["set", [0]]],
    ):
        with pytest.raises(BadGraphError):
            built(lines, [1])


@pytest.mark.parametrize("line", ["", "x", "{}", "[]", "5", '["list"'])
def test_lines_that_are_no_lists(line: str) -> None:
    with pytest.raises(BadGraphError):
        parse(line)


def test_wrong_number_of_values() -> None:
    shape = ["class", "tests.graph.shapes:Slotted", ["value"]]
    for values in ([], [1, 2]):
        with pytest.raises(BadGraphError):
            built([shape, [0, *values]], [1])


def test_hypothesis_like_nesting() -> None:
    """Random nests of containers come back equal."""
    chance = random.Random(1)

    def make(depth: int) -> Any:
        kinds: tuple[Callable[[], Any], ...] = (
            lambda: chance.randrange(-(1 << 70), 1 << 70),
            lambda: chance.random(),
            lambda: str(chance.random()),
            lambda: chance.randbytes(3),
            lambda: [make(depth - 1) for _ in range(3)],
            lambda: tuple(make(depth - 1) for _ in range(3)),
            lambda: {str(n): make(depth - 1) for n in range(3)},
            lambda: Pair(make(depth - 1), make(depth - 1)),
        )
        return chance.choice(kinds if depth else kinds[:4])()

    for _ in range(200):
        thing = make(5)
        assert copy_of(thing) == thing
