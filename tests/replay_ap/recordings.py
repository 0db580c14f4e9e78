"""The recordings of the real AP drivers: what was done, and what Linux answered."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ORACLE = Path(__file__).parents[1] / "oracle" / "ap"
KERNELS = ("6.1", "6.12")


class Step(NamedTuple):
    """One operation with the answer: an errno by name or "0", and a text in which \\n is two bytes.

    `section`: the last comment of the list above it.
    """

    section: str
    operation: str
    errno: str
    text: str


class Recording(NamedTuple):
    """A list of operations as one kernel answered it."""

    kernel: str
    name: str
    steps: tuple[Step, ...]

    @property
    def id(self) -> str:
        """What it is called in a test."""
        return f"{self.kernel}-{self.name}"


def recordings(folder: Path = ORACLE) -> Iterator[Recording]:
    """All recordings of a folder that has one folder for each kernel."""
    for kernel in KERNELS:
        for path in sorted((folder / kernel).glob("*.tsv*")):
            yield Recording(kernel, path.name.partition(".")[0], tuple(_steps(_text(path))))


def _text(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()


def _steps(text: str) -> Iterator[Step]:
    section = ""
    for line in text.split("\n"):
        if line.startswith("#"):
            section = line[1:].strip()
        elif line:
            operation, errno, answer = line.split("\t", 2)
            yield Step(section, operation, errno, answer)
