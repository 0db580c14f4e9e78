"""Types of the values in which tracing is saved."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

# What a client writes is bytes, which are texts of these characters in the models.
_LATIN = r"\A[\x00-\xff]*\Z"
# Of a page, less the NUL.
WRITTEN = 4095
# A wrong text, blanks up to a caret and a message.
SHOWN = 4 * WRITTEN

Written = Annotated[str, Meta(max_length=WRITTEN, pattern=_LATIN)]
"""What one write to a file can be."""

Shown = Annotated[str, Meta(max_length=SHOWN, pattern=_LATIN)]
"""What a file shows after a wrong write."""

Comm = Annotated[str, Meta(max_length=255, pattern=_LATIN)]
"""The name of a task."""

Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A[\x01-.0-\xff]+\Z")]
"""The name of a directory: each byte as one character."""

Cpu = Annotated[int, Meta(ge=0, lt=4096)]
"""The number of a CPU that a machine can have."""

Pid = Annotated[int, Meta(ge=0, lt=1 << 31)]

U64_END = 1 << 64
"""One more than the largest unsigned number of 64 bits, for `check_range`."""


def name_text(name: str) -> Name:
    """Return the name of a directory as `Name` writes it."""
    return name.encode("utf-8", "surrogateescape").decode("latin-1")


def name_of(text: Name) -> str:
    """Return the name that a `Name` means."""
    return text.encode("latin-1").decode("utf-8", "surrogateescape")
