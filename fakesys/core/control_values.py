"""Values that files of the control directories take: one word, 0 or 1, or only 1.

No file of a real kernel parses like this; those use `core/text.py`.

    def _set_lockdown(control: Control, text: str) -> None:
        control.machine.set_lockdown(zero_or_one(text))
"""

from __future__ import annotations

from errno import EINVAL

from fakesys.core.errors import KernelError


def one_word(text: str) -> str:
    """Return the only word of a text; blanks around it do not count. Raises EINVAL."""
    words = text.split()
    if len(words) != 1:
        raise KernelError(EINVAL, "write one word")
    return words[0]


def zero_or_one(text: str) -> bool:
    """Return whether the text is `1`; one newline may follow. Raises EINVAL unless 0 or 1."""
    body = text.removesuffix("\n")
    if body not in ("0", "1"):
        raise KernelError(EINVAL, "write 0 or 1")
    return body == "1"


def require_one(text: str) -> None:
    """Refuse everything but `1`, which triggers what a file does. Raises EINVAL."""
    if text.removesuffix("\n") != "1":
        raise KernelError(EINVAL, "write 1")
