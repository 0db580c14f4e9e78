"""Control commands: a table of verbs, one grammar for all of them.

    COUNT = Option("count", number, default=1, doc="how many vCPUs")

    Verb(
        words=(VM, "vcpu", "add"),
        options=(ID, COUNT),
        run=add_vcpus,                      # (model, args) -> words for `last`
        errors={EEXIST: "the id is in use"},
        doc="KVM_CREATE_VCPU",
    )

A command is words separated by blanks: literals and operands in the order of the row, then
`key=value` options in any order. Handlers read their arguments by the row's own objects,
`args[COUNT]`, and so with their type. A refusal is a KernelError and changes nothing.

    interpreter = Interpreter(bind(VERBS, kvm))
    interpreter.find("g vcpu add count=2").run()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from errno import EINVAL
from operator import itemgetter
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct, field

from fakesys.core.errors import KernelError
from fakesys.core.text import kstrtoll, kstrtoull

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
M = TypeVar("M")

Parse = Callable[[str], T]

_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


def number(text: str) -> int:
    """Return an unsigned number as kstrtoul reads it. Raises EINVAL, ERANGE."""
    return kstrtoull(text)


def signed(text: str) -> int:
    """Return a number that may be negative. Raises EINVAL, ERANGE."""
    return kstrtoll(text)


def size(text: str) -> int:
    """Return a number, which may end in K, M, G or T. Raises EINVAL, ERANGE."""
    shift = _UNITS.get(text[-1:].upper(), 0)
    return kstrtoull(text[:-1] if shift else text) << shift


def flag(text: str) -> bool:
    """Return whether the word is `1`, not `0`. Raises EINVAL for any other."""
    if text not in ("0", "1"):
        raise KernelError(EINVAL, f"{text!r} is neither 0 nor 1")
    return text == "1"


def word(text: str) -> str:
    """Return the word itself."""
    return text


def octets(text: str) -> bytes:
    """Return the bytes of pairs of hex digits. Raises EINVAL."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise KernelError(EINVAL, f"{text!r} is not pairs of hex digits") from None


def words_of(*allowed: str) -> Parse[str]:
    """Return a parser of one of these words, which raises EINVAL for others."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise KernelError(EINVAL, f"{text!r} is none of {', '.join(allowed)}")
        return text

    return parse


def number_within(low: int, high: int) -> Parse[int]:
    """Return a parser of a number from `low` to `high`, which raises EINVAL for others."""

    def parse(text: str) -> int:
        value = kstrtoull(text)
        if not low <= value <= high:
            raise KernelError(EINVAL, f"{value} is not within {low} to {high}")
        return value

    return parse


class Operand(Struct, Generic[T], frozen=True, eq=False):
    """A word that varies, identified by its position. `name` is how the reference writes it.

    `one_of`: the verb fits only if the word is one of these.
    """

    name: str
    parse: Parse[T]
    one_of: tuple[str, ...] = ()


class Tail(Struct, frozen=True, eq=False):
    """All remaining words unchanged, options included; only as the last part of a row."""

    name: str


class Option(Struct, Generic[T], frozen=True, eq=False):
    """A `name=value` word. It is `default` when it is not given, which `required` refuses."""

    name: str
    parse: Parse[T]
    default: T
    doc: str
    required: bool = False


class OptionalOperand(Struct, Generic[T], frozen=True, eq=False):
    """A word that may be left out at the end of the words; its value is then `default`."""

    name: str
    parse: Parse[T]
    default: T


Part = str | Operand[Any] | OptionalOperand[Any] | Tail


class Named(Protocol[T_co]):
    """An operand or option: a key of `Args`."""

    @property
    def name(self) -> str:
        """The name in the reference, and of an option before `=`."""

    @property
    def parse(self) -> Callable[[str], T_co]:
        """The parser of its text."""


class Args:
    """The arguments of one command, by operand and option, each of its own type."""

    __slots__ = ("_tail", "_values", "given")

    def __init__(self, values: dict[object, Any], given: frozenset[str], tail: list[str]) -> None:
        self._values = values
        self._tail = tail
        self.given = given

    def __getitem__(self, which: Named[T]) -> T:
        value: T = self._values[which]
        return value

    def get(self, which: Option[T]) -> T:
        """Return the value of an option, its default if the verb does not have that option."""
        value: T = self._values.get(which, which.default)
        return value

    def find(self, which: Named[T]) -> T | None:
        """Return the value of an operand or option, None if the verb does not have it."""
        value: T | None = self._values.get(which)
        return value

    @property
    def tail(self) -> list[str]:
        """The words of a Tail."""
        return self._tail


class Verb(Struct, Generic[M], frozen=True):
    """One row of the table. `run` gets the model and the arguments; it returns words for `last`.

    `ends`: it ends a command that is still at work on the same object, instead of waiting for it.
    """

    words: tuple[Part, ...]
    run: Callable[[M, Args], str]
    doc: str
    options: tuple[Option[Any], ...] = ()
    errors: Mapping[int, str] = field(default_factory=dict)
    ends: bool = False

    @property
    def usage(self) -> str:
        """The command as the reference writes it."""
        return " ".join([*map(_show_part, self.words), *map(_show_option, self.options)])


class Bound(Struct, frozen=True):
    """A verb with the model that it works on."""

    verb: Verb[Any]
    model: Any


def bind(verbs: Iterable[Verb[M]], model: M) -> tuple[Bound, ...]:
    """Return the verbs bound to a model."""
    return tuple(Bound(verb, model) for verb in verbs)


class _Branch:
    """A node in the tree of all commands: which words may follow, and which rows end here.

    `ends` are (rank, row): of all rows that a command fits, the one with the lowest rank is used.
    """

    __slots__ = ("any_word", "ends", "words")

    def __init__(self) -> None:
        self.words: dict[str, _Branch] = {}
        self.any_word: _Branch | None = None
        self.ends: list[tuple[tuple[int, int, int], Bound]] = []

    def grow(self, part: Part) -> list[_Branch]:
        """Return the branches behind a part of a row; make those that are missing."""
        if isinstance(part, str):
            return [self.words.setdefault(part, _Branch())]
        if _one_of(part):
            return [self.words.setdefault(text, _Branch()) for text in _one_of(part)]
        self.any_word = self.any_word or _Branch()
        return [self.any_word]

    def follow(self, text: str) -> Iterator[_Branch]:
        """Yield the branches behind a word of a command."""
        literal = self.words.get(text)
        if literal is not None:
            yield literal
        if self.any_word is not None:
            yield self.any_word


REMEMBERED = 512
"""Number of parsed commands that an interpreter keeps."""


class Command(Struct, frozen=True):
    """One command with its arguments, ready to run."""

    bound: Bound
    args: Args

    def run(self) -> str:
        """Run it; return the words of its result."""
        return self.bound.verb.run(self.bound.model, self.args)


class Interpreter:
    """Finds the verb of a command and reads its arguments."""

    def __init__(self, verbs: Iterable[Bound]) -> None:
        self.verbs = tuple(verbs)
        self._root = _Branch()
        self._read: dict[str, Command] = {}
        for order, bound in enumerate(self.verbs):
            self._add(bound, order)

    @property
    def reserved(self) -> frozenset[str]:
        """The literal first words of commands, which cannot be names of objects."""
        return frozenset(
            bound.verb.words[0] for bound in self.verbs if isinstance(bound.verb.words[0], str)
        )

    def find(self, text: str) -> Command:
        """Parse one command. Raises EINVAL, ERANGE."""
        # The result depends on the text only, and storms of interrupts repeat the same commands.
        return self._read.get(text) or self._parse(text)

    def _parse(self, text: str) -> Command:
        words = text.split()
        if not words:
            raise KernelError(EINVAL, "an empty command")
        bound = self._find(words)
        if len(self._read) >= REMEMBERED:
            self._read.clear()
        self._read[text] = found = Command(bound, read_arguments(bound.verb, words))
        return found

    def _add(self, bound: Bound, order: int) -> None:
        verb = bound.verb
        branches = [self._root]
        for part in verb.words:
            if isinstance(part, (Tail, OptionalOperand)):
                break
            branches = [below for branch in branches for below in branch.grow(part)]
        first = next((n for n, part in enumerate(verb.words) if isinstance(part, str)), 0)
        # A row fits better the earlier its first literal is, and the more literals it has.
        rank = (first, -_literals(verb), order)
        for branch in branches:
            branch.ends.append((rank, bound))

    def _find(self, words: list[str]) -> Bound:
        reached = [self._root]
        ends: list[tuple[tuple[int, int, int], Bound]] = []
        for text in words:
            reached = [below for branch in reached for below in branch.follow(text)]
            for branch in reached:
                ends += branch.ends
        if not ends:
            raise KernelError(EINVAL, f"{' '.join(words)!r} is no command")
        return min(ends, key=itemgetter(0))[1]


def read_arguments(verb: Verb[Any], words: list[str]) -> Args:
    """Return the arguments of a command that fits this verb. Raises EINVAL, ERANGE."""
    values: dict[object, Any] = {option: option.default for option in verb.options}
    at = 0
    for part in verb.words:
        if isinstance(part, Tail):
            return Args(values, frozenset(), words[at:])
        if isinstance(part, OptionalOperand) and (at == len(words) or _is_option(verb, words[at])):
            values[part] = part.default
            continue
        if not isinstance(part, str):
            values[part] = part.parse(words[at])
        at += 1
    given = _read_options(verb, words[at:], values)
    return Args(values, given, [])


def _read_options(verb: Verb[Any], words: list[str], values: dict[object, Any]) -> frozenset[str]:
    known = {option.name: option for option in verb.options}
    given: set[str] = set()
    for text in words:
        name, _, value = text.partition("=")
        option = known.get(name)
        if option is None or "=" not in text:
            raise KernelError(EINVAL, f"{text!r} does not belong there: {verb.usage}")
        if name in given:
            raise KernelError(EINVAL, f"{name}= is there twice")
        given.add(name)
        values[option] = option.parse(value)
    for option in verb.options:
        if option.required and option.name not in given:
            raise KernelError(EINVAL, f"{option.name}= is missing: {verb.usage}")
    return frozenset(given)


def _is_option(verb: Verb[Any], text: str) -> bool:
    name, separator, _ = text.partition("=")
    return bool(separator) and any(option.name == name for option in verb.options)


def _literals(verb: Verb[Any]) -> int:
    """Return how many words of a row are literals or one of a few."""
    return sum(isinstance(part, str) or bool(_one_of(part)) for part in verb.words)


def _one_of(part: Part) -> tuple[str, ...]:
    return part.one_of if isinstance(part, Operand) else ()


def _show_part(part: Part) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Operand):
        return "|".join(part.one_of) or part.name
    return f"[{part.name}]"


def _show_option(option: Option[Any]) -> str:
    return f"{option.name}=" if option.required else f"[{option.name}=]"
