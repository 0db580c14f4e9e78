"""How tracefs cuts what is written to it into words. Like kernel/trace/trace.c:trace_get_user."""

from __future__ import annotations

import re
from errno import EINVAL

from fakesys.core.errors import KernelError

LONGEST = 127
"""EVENT_BUF_SIZE, PID_BUF_SIZE: one character more and the word is refused."""

_WORD = re.compile(r"([ \t\n\v\f\r]*)([^ \t\n\v\f\r\0]*)[ \t\n\v\f\r\0]?")


def first_word(text: str) -> tuple[str, int]:
    """The first word, and how many characters it took with what stands around it.

    A blank or a NUL ends a word and belongs to it; a NUL is not skipped before one, so it makes
    an empty word. Raises EINVAL for a word that is too long.
    """
    found = _WORD.match(text)
    assert found is not None
    if len(found[2]) > LONGEST:
        raise KernelError(EINVAL, f"a word has more than {LONGEST} characters")
    return found[2], found.end()
