"""C expressions of print formats become Python expressions, by precedence climbing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from fakesys.core.print_fmt.tokens import CannotCompileError, Token, tokens_of, unquoted
from fakesys.core.print_fmt.types import INT, Expr, promoted, text

# Operators by rank, the weakest first.
_RANKS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            ("||",),
            ("&&",),
            ("|",),
            ("^",),
            ("&",),
            ("==", "!="),
            ("<", ">", "<=", ">="),
            ("<<", ">>"),
            ("+", "-"),
            ("*", "/", "%"),
        ),
    )
)
_COMPARISONS = frozenset(("==", "!=", "<", ">", "<=", ">="))
# The kernel's names of types: bits, and whether they have a sign.
_TYPES: Mapping[str, tuple[int, bool]] = MappingProxyType(
    {
        **{f"{prefix}u{bits}": (bits, False) for prefix in ("", "__") for bits in (8, 16, 32, 64)},
        **{f"{prefix}s{bits}": (bits, True) for prefix in ("", "__") for bits in (8, 16, 32, 64)},
        "char": (8, True),
        "short": (16, True),
        "int": (32, True),
        "long": (64, True),
        "unsigned": (32, False),
        "pid_t": (32, True),
        "bool": (8, False),
        "size_t": (64, False),
        "void": (64, False),
        "gfp_t": (32, False),
    }
)

Call = Callable[["Parser"], Expr]


class Parser:
    """Reads C from tokens; `fields`: the expression of each field by name.

    `calls`: what reads the arguments of a function. Everything raises CannotCompileError.
    """

    def __init__(self, source: str, fields: Mapping[str, Expr], calls: Mapping[str, Call]) -> None:
        self._tokens = tokens_of(source)
        self._place = 0
        self._fields = fields
        self._calls = calls
        # The fields that were used so far.
        self.used: set[str] = set()

    def peek(self) -> Token:
        """Return the next token."""
        return self._tokens[self._place]

    def take(self, sign: str = "") -> Token:
        """Return the next token and go on; with `sign` it must be this one."""
        token = self._tokens[self._place]
        if sign and token.text != sign:
            raise CannotCompileError(f"{sign!r} expected, not {token.text!r}")
        self._place += 1
        return token

    def accept(self, sign: str) -> bool:
        """Take the next token if it is this one."""
        found = self.peek().kind == "sign" and self.peek().text == sign
        self._place += found
        return found

    def literal(self) -> str:
        """Take one or more texts in quotes."""
        if self.peek().kind != "text":
            raise CannotCompileError(f"a text expected, not {self.peek().text!r}")
        words: list[str] = []
        while self.peek().kind == "text":
            words.append(unquoted(self.take().text))
        return "".join(words)

    def name(self) -> str:
        """Take a name."""
        token = self.take()
        if token.kind != "name":
            raise CannotCompileError(f"a name expected, not {token.text!r}")
        return token.text

    def field(self, name: str) -> Expr:
        """Return the expression of a field."""
        if name not in self._fields:
            raise CannotCompileError(f"there is no field {name}")
        self.used.add(name)
        return self._fields[name]

    def expression(self) -> Expr:
        """Read an expression, conditional ones included."""
        condition = self._binary(0)
        if not self.accept("?"):
            return condition
        yes = self.expression()
        self.take(":")
        no = self.expression()
        code = f"({yes.value() if yes.bits else yes.code} if {condition.value()} else "
        if yes.is_text or no.is_text:
            if not (yes.is_text and no.is_text):
                raise CannotCompileError("a text or a number")
            return text(f"{code}{no.code})")
        bits, signed = promoted(yes, no)
        return Expr(f"{code}{no.value()})", bits, signed, exact=yes.signed == no.signed)

    def constant(self) -> int:
        """Read an expression that depends on no field."""
        before = set(self.used)
        found = self.expression()
        if self.used != before or found.is_text:
            raise CannotCompileError(f"{found.code} is no constant")
        value = eval(found.value(), {"__builtins__": {}})
        assert isinstance(value, int)
        return value

    def _binary(self, rank: int) -> Expr:
        if rank == len(_RANKS):
            return self._unary()
        left = self._binary(rank + 1)
        while self.peek().kind == "sign" and self.peek().text in _RANKS[rank]:
            left = _combined(left, self.take().text, self._binary(rank + 1))
        return left

    def _unary(self) -> Expr:
        if self.accept("!"):
            return Expr(f"(not {self._unary().value()})", INT)
        if self.accept("-"):
            return _negated("-", self._unary())
        if self.accept("~"):
            return _negated("~", self._unary())
        if self.accept("("):
            return self._in_parentheses()
        return self._atom()

    def _in_parentheses(self) -> Expr:
        if self.peek().kind == "name" and self._tokens[self._place + 1].text != "->":
            cast = self._cast()
            if cast is not None:
                return cast
        inside = self.expression()
        self.take(")")
        return Expr(f"({inside.code})", inside.bits, inside.signed, inside.exact)

    def _cast(self) -> Expr | None:
        """Read the rest of `(TYPE)EXPRESSION`; None if no type begins here."""
        words: list[str] = []
        start = self._place
        while self.peek().kind == "name" and (self.peek().text in _TYPES or words):
            words.append(self.take().text)
        pointer = bool(words) and self.accept("*")
        if not words or not self.accept(")"):
            self._place = start
            return None
        bits, signed = (64, False) if pointer else _type_of(words)
        value = self._unary()
        return Expr(value.cut_to(bits, signed=signed), bits, signed)

    def _indexed(self, found: Expr) -> Expr:
        """Read an index if one follows."""
        size = found.element
        if not size or not self.accept("["):
            return found
        begin = self.constant() * size
        self.take("]")
        code = f"int.from_bytes({found.code}[{begin}:{begin + size}], 'little')"
        return Expr(code, bits=8 * size, signed=False)

    def _atom(self) -> Expr:
        token = self.take()
        if token.kind == "number":
            value = int(token.text, 0)
            bits = 64 if token.wide or value >> 32 else INT
            return Expr(str(value), bits, not token.unsigned and not value >> (bits - 1))
        if token.kind == "text":
            self._place -= 1
            return text(repr(self.literal().encode("latin-1")))
        if token.kind == "char":
            return Expr(str(ord(unquoted(token.text))))
        if token.kind == "name" and token.text == "REC":
            self.take("->")
            return self._indexed(self.field(self.name()))
        if token.kind == "name" and token.text in self._calls:
            self.take("(")
            found = self._calls[token.text](self)
            self.take(")")
            return found
        raise CannotCompileError(f"{token.text!r} is not understood")


def _type_of(words: list[str]) -> tuple[int, bool]:
    """Return bits and sign of a type such as `unsigned long long`."""
    known = [word for word in words if word in _TYPES]
    if len(known) != len(words):
        raise CannotCompileError(f"{' '.join(words)} is no known type")
    sizes = [word for word in words if word != "unsigned"]
    bits = max((_TYPES[word][0] for word in sizes if word != "int" or len(sizes) == 1), default=INT)
    signed = "unsigned" not in words and all(_TYPES[word][1] for word in words)
    return bits, signed


def _negated(sign: str, value: Expr) -> Expr:
    bits, signed = promoted(value, value)
    exact = signed and (sign == "~" or value.code.isdecimal())
    return Expr(f"({sign}{value.value()})", bits, signed, exact)


def _combined(left: Expr, sign: str, right: Expr) -> Expr:
    """Return `left SIGN right`."""
    if sign in ("&&", "||"):
        word = "and" if sign == "&&" else "or"
        return Expr(f"(1 if {left.value()} {word} {right.value()} else 0)")
    bits, signed = promoted(left, right)
    first, second = left.cut_to(bits, signed=signed), right.cut_to(bits, signed=signed)
    if sign in _COMPARISONS:
        return Expr(f"({first} {sign} {second})")
    if sign in ("<<", ">>"):
        bits, signed = promoted(left, left)
        return Expr(f"({left.value()} {sign} {right.value()})", bits, signed, exact=sign == ">>")
    if sign in ("/", "%") and signed:
        raise CannotCompileError("a division of signed numbers")
    code = f"({first} {'//' if sign == '/' else sign} {second})"
    return Expr(code, bits, signed, exact=sign in ("&", "|", "^", "//", "%"))
