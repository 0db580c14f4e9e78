"""Python expressions that stand for C expressions, with the C type of their value."""

from __future__ import annotations

from msgspec import Struct

from fakesys.core.print_fmt.tokens import CannotCompileError

INT = 32


class Expr(Struct, frozen=True):
    """A Python expression and the C type of its value.

    `bits`, `signed`: of a number; `bits` is 0 for a text, whose Python value is bytes.
    `element`: the bytes of an element where it is an array of unsigned numbers.
    `exact`: is the Python value within the range of the type? Else it must be cut to it.
    """

    code: str
    bits: int = INT
    signed: bool = True
    exact: bool = True
    element: int = 0

    @property
    def is_text(self) -> bool:
        """Whether it is a text."""
        return self.bits == 0

    def cut_to(self, bits: int, *, signed: bool) -> str:
        """Return the expression of its value converted to another type.

        Raises CannotCompileError for a text.
        """
        if self.is_text:
            raise CannotCompileError(f"{self.code} is no number")
        if self.exact and self._fits(bits, signed=signed):
            return self.code
        masked = f"({self.code} & {(1 << bits) - 1:#x})"
        half = 1 << (bits - 1)
        return f"(({masked} ^ {half:#x}) - {half:#x})" if signed else masked

    def value(self) -> str:
        """Return the expression of its value, cut to its own type."""
        return self.cut_to(self.bits, signed=self.signed)

    def _fits(self, bits: int, *, signed: bool) -> bool:
        if self.signed:
            return signed and self.bits <= bits
        return self.bits < bits or (self.bits == bits and not signed)


def text(code: str) -> Expr:
    """Return an expression whose value is bytes."""
    return Expr(code, bits=0)


def promoted(first: Expr, second: Expr) -> tuple[int, bool]:
    """Return bits and sign of the type of an operation: C's usual arithmetic conversions."""
    bits = max(INT, first.bits, second.bits)
    unsigned = any(not each.signed and each.bits == bits for each in (first, second))
    return bits, not unsigned
