"""Steps over a text: each takes an index and returns the one at which it ends."""

from __future__ import annotations

from collections.abc import Callable

# isspace() of the kernel.
BLANKS = " \t\n\v\f\r"


def after_blanks(text: str, at: int) -> int:
    """Return the index of the first character from `at` on that is no blank."""
    return end_of(text, at, BLANKS.__contains__)


def end_of(text: str, at: int, belongs: Callable[[str], bool]) -> int:
    """Return the index of the first character from `at` on that does not belong."""
    while at < len(text) and belongs(text[at]):
        at += 1
    return at
