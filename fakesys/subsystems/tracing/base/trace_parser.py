"""Words of what is written to tracefs. Like kernel/trace/trace.c:trace_get_user (v6.1)."""

from __future__ import annotations

import re
from errno import EINVAL

from fakesys.core.errors import KernelError

LONGEST = 127
"""The longest word: EVENT_BUF_SIZE, PID_BUF_SIZE without the NUL."""

_WORD = re.compile(r"([ \t\n\v\f\r]*)([^ \t\n\v\f\r\0]*)[ \t\n\v\f\r\0]?")


def first_word(text: str) -> tuple[str, int]:
    r"""Return the first word and how many characters it took, separators included.

    Blanks before a word are skipped, and the blank or NUL that ends it is consumed. A NUL is not
    skipped before a word, so there it yields an empty word. Raises EINVAL for a word of more than
    LONGEST characters.

    >>> first_word(" kvm:* sched:*\n")
    ('kvm:*', 7)
    """
    found = _WORD.match(text)
    assert found is not None
    if len(found[2]) > LONGEST:
        raise KernelError(EINVAL, f"a word has more than {LONGEST} characters")
    return found[2], found.end()
