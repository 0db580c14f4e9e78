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
    "ls class, ls module": "names of other parts of the machine that was recorded, or of this one",
    "serialnr, FW_version, mkvps": "values that the cards of the recording had; their form counts",
    "mod, guest attach": "texts of the recording program itself",
    "log": "number of the process that waits",
    "snap after a reset": "from 6.12 on a reset takes 80 ms, and the program reads meanwhile: what"
    " it saw of the queue has to be one of the states that the queue has in this time",
    "fs of a removed file": "from 6.12 on lseek asks kernfs; on a mount FUSE answers it alone",
}

_CARD_INFO = re.compile(r"/(serialnr|FW_version|mkvps)$")
_LONG_WORD = re.compile(r"[0-9A-Za-z]{8,}")
_TASK = re.compile(r'(task "[^"]*") \(\d+\)')
# What the modules of the AP part make, all of which the recording machine had.
_LISTED = {
    "ls class": {"mdev_bus", "misc", "vfio", "vfio-dev", "zcrypt"},
    "ls module": {"ap", "kvm", "mdev", "vfio", "vfio_ap", "zcrypt", "zcrypt_cex4"},
}
_OF_RESET = re.compile(r"interrupt:[^;|]*;reset:[^;|]*;")


class Passed(NamedTuple):
    """A queue that was reset, and its states since then as a snapshot has them, the last one last.

    Without a reset before the snapshot there is no queue.
    """

    queue: str
    states: tuple[str, ...]


NOTHING_PASSED = Passed("", ())


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
    if verb == "log":
        return _TASK.sub(r"\1 (N)", text)
    if operation in _LISTED:
        return " ".join(sorted(set(text.replace("/", "").split()) & _LISTED[operation]))
    if verb == "mod" or operation.startswith("guest attach"):
        return ""
    return text


def same(step: Step, errno: str, text: str, passed: Passed = NOTHING_PASSED) -> bool:
    """Is this the recorded answer? `passed`: what a queue went through since its reset."""
    if step.operation.startswith("fs ") and step.errno == "ENODEV":
        return errno in ("0", "ENODEV")
    wanted, found = shape(step.operation, step.text), shape(step.operation, text)
    if step.operation == "snap" and passed.queue:
        wanted = _settled(wanted, passed)
    return (step.errno, wanted) == (errno, found)


def _settled(snapshot: str, passed: Passed) -> str:
    """A recorded snapshot with the last state of a queue in place of one that it passed."""
    pieces = snapshot.split("|")
    for number, piece in enumerate(pieces):
        state = _OF_RESET.search(piece) if piece.startswith(passed.queue) else None
        if state is not None and state[0] in passed.states:
            pieces[number] = piece.replace(state[0], passed.states[-1])
    return "|".join(pieces)
