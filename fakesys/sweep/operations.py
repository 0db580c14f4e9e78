"""What a program does on the fake, and how the same is found again in another run of it."""

from __future__ import annotations

import re

from msgspec import Struct

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Directories of VMs are named by process and descriptor.
_VM = re.compile(r"\b(debug/kvm/)\d+-(\d+)\b")
_LABEL = re.compile(r"\{uuid\d+\}")
# Of a text that is written, as much is kept to be shown.
LONGEST_TEXT = 80


class Operation(Struct, frozen=True, omit_defaults=True):
    """One call on a file of the fake. `kind`: open, read, write or readdir.

    `path` and `text` (of a write) have labels for UUIDs that the program chose. `nth`: of those
    with the same `kind`, `path` and `process`, from 0. `errnos`: those that the file declares.
    `device`: what can be unplugged behind it. `result`: the errno of a refusal.
    """

    number: int
    kind: str
    path: str
    process: str
    nth: int = 0
    text: str = ""
    errnos: tuple[str, ...] = ()
    device: str = ""
    result: str = ""

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What an operation of another run is matched by."""
        return self.kind, self.path, self.process, self.nth

    @property
    def title(self) -> str:
        """The operation in one line."""
        text = f" {self.text.strip()!r}" if self.kind == "write" else ""
        return f"{self.process}: {self.kind} {self.path}{text}"


class Names:
    """Labels for what each run names differently, numbered in the order of appearance.

    `known`: UUIDs that are the same in each run and keep their names.
    """

    def __init__(self, known: str = "") -> None:
        self._known = frozenset(_UUID.findall(known))
        self._labels: dict[str, str] = {}

    def normal(self, text: str) -> str:
        """Return a text with labels, which new UUIDs get."""
        if "-" not in text:
            return text
        return _VM.sub(r"\1PID-\2", _UUID.sub(lambda found: self._label(found[0]), text))

    def real(self, text: str) -> str:
        """Return a text without labels."""
        names = {label: uuid for uuid, label in self._labels.items()}
        return _LABEL.sub(lambda found: names.get(found[0], found[0]), text)

    def _label(self, uuid: str) -> str:
        if uuid in self._known:
            return uuid
        return self._labels.setdefault(uuid, f"{{uuid{len(self._labels) + 1}}}")

    def state(self, texts: dict[str, str]) -> dict[str, str]:
        """Return the texts of files with labels that count only the UUIDs that exist."""
        seen = set(_UUID.findall("\n".join([*texts, *texts.values()])))
        there = [uuid for uuid in self._labels if uuid in seen]
        own = Names()
        own._known = self._known
        own._labels = {uuid: f"{{uuid{number}}}" for number, uuid in enumerate(there, 1)}
        return {own.normal(path): own.normal(text) for path, text in texts.items()}
