"""Compares answers of the simulated machine with recorded ones, and says what differs.

What is not compared is what the recording machine or its program chose, and named here with its
reason. Everything else, every text and errno, has to be equal.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.replay_ap.recordings import Step

# The recording machine's own: names of other parts of Linux, and numbers of its cards.
EXCEPTIONS = {
    "ls class": "the classes of the whole machine that was recorded",
    "ls module": "the modules of the whole machine that was recorded",
    "serialnr, FW_version, mkvps": "values that the cards of the recording had; their form counts",
    "zap": "resets by RAPQ are not counted here; those by ZAPQ are",
    "mod, guest attach": "texts of the recording program itself",
    "log": "name and number of the process that waits",
    "snap after a reset": "from 6.12 on a reset takes 80 ms, which the program was as fast as",
    "fs of a removed file": "from 6.12 on lseek asks kernfs; on a mount FUSE answers it alone",
}

_CARD_INFO = re.compile(r"/(serialnr|FW_version|mkvps)$")
_LONG_WORD = re.compile(r"[0-9A-Za-z]{8,}")
_TASK = re.compile(r'task "[^"]*" \(\d+\)')
_RESET = re.compile(r"w \S*/([0-9a-f]{2}\.[0-9a-f]{4})/reset ")
_OF_RESETS = re.compile(r"(interrupt|reset):[^;|]*;")


class Difference(NamedTuple):
    """A step that was answered otherwise; `number` counts from 1."""

    number: int
    step: Step
    errno: str
    text: str

    def __str__(self) -> str:
        where = f"[{self.number}] ({self.step.section}) {self.step.operation[:300]}"
        return "\n".join((where, *self._details()))

    def _details(self) -> Iterator[str]:
        operation = self.step.operation
        wanted, found = shape(operation, self.step.text), shape(operation, self.text)
        if operation in ("ue", "log", "snap"):
            separator = "|" if operation == "snap" else "\\n"
            lines = difflib.unified_diff(
                wanted.split(separator), found.split(separator), "kernel", "here", "", "", 1, ""
            )
            yield from (f"    {line[:400]}" for line in lines)
            return
        yield f"    kernel {self.step.errno} {wanted[:400]}"
        yield f"    here   {self.errno} {found[:400]}"


def shape(operation: str, text: str) -> str:
    """An answer without what a machine is free to choose."""
    verb, _, rest = operation.partition(" ")
    if verb == "r" and _CARD_INFO.search(rest):
        text = re.sub(r"^\d+\.\d+", "N.N", text)
        return _LONG_WORD.sub(lambda word: f"<{len(word[0])}>", text)
    if verb == "zap":
        return re.sub(r"rapq \d+ ", "", text)
    if verb == "log":
        return _TASK.sub('task "T" (N)', text)
    if verb == "mod" or operation.startswith("guest attach"):
        return ""
    return text


def same(step: Step, errno: str, text: str, before: str) -> bool:
    """Is this the recorded answer? `before`: the operation before this one."""
    if step.operation in ("ls class", "ls module"):
        return step.errno == errno
    if step.operation.startswith("fs ") and step.errno == "ENODEV":
        return errno in ("0", "ENODEV")
    wanted, found = shape(step.operation, step.text), shape(step.operation, text)
    reset = _RESET.match(before)
    if step.operation == "snap" and reset is not None:
        wanted, found = _without_reset(wanted, reset[1]), _without_reset(found, reset[1])
    return (step.errno, wanted) == (errno, found)


def _without_reset(snapshot: str, queue: str) -> str:
    """A snapshot without what a reset of this queue changes."""
    pieces = snapshot.split("|")
    return "|".join(
        _OF_RESETS.sub("", piece) if piece.startswith(queue) else piece for piece in pieces
    )
