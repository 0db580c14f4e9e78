"""The streams of a mount, read without waiting: uevents, log, writes and trace events."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from fakesys.subsystems.control.script import meant, words_of

# The most that is read of one stream at once.
MOST = 1 << 16
LONGEST_TEXT = 400

Line = list[str]


def shown(raw: bytes) -> str:
    """Return bytes of a file as text of one line, not too long for a page."""
    text = raw.decode("utf-8", "backslashreplace").removesuffix("\n")
    text = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text[: LONGEST_TEXT + 1]
    )
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


class Stream:
    """An open stream whose text is divided at `separator`; `parse` makes lines of the parts."""

    def __init__(
        self, path: Path, parse: Callable[[list[bytes]], Iterator[Line]], separator: bytes = b"\n"
    ) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._parse = parse
        self._separator = separator
        self._rest = b""

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)

    def read(self) -> list[Line]:
        """Return the lines that have come. Raises OSError when the mount is gone."""
        with suppress(BlockingIOError):
            self._rest += os.read(self.descriptor, MOST)
        *parts, self._rest = self._rest.split(self._separator)
        return list(self._parse(parts))


def uevents(records: list[bytes]) -> Iterator[Line]:
    """Yield action, path and fields of uevents."""
    for record in records:
        fields = [shown(line) for line in record.split(b"\n") if b"=" in line]
        values = dict(field.split("=", 1) for field in fields)
        if values:
            rest = [f for f in fields if not f.startswith(("ACTION=", "DEVPATH="))]
            yield [values.get("ACTION", ""), values.get("DEVPATH", ""), " ".join(rest)]


def plain(lines: list[bytes]) -> Iterator[Line]:
    """Yield lines as they are."""
    for line in lines:
        if line:
            yield [shown(line)]


class Writes:
    """Makes lines of a recording: time, result, path, text and the reason of a refusal."""

    def __init__(self, last_error: Path) -> None:
        self._last_error = last_error
        self._begun = False
        self._seconds = 0.0

    def parse(self, lines: list[bytes]) -> Iterator[Line]:
        """Yield a line for each write."""
        found = [words for line in lines if (words := self._words(line))]
        last = max((i for i, w in enumerate(found) if w[0] in ("put", "add", "block")), default=-1)
        for index, words in enumerate(found):
            line = self._line(words)
            if line is not None:
                # The file has the reason of the last write only.
                why = self._why(words[2]) if index == last and words[1] != "ok" else ""
                yield [*line, why]

    def _words(self, line: bytes) -> list[str]:
        if not self._begun:
            # The helpers of the script end with a blank line.
            self._begun = not line
            return []
        with suppress(ValueError):
            return words_of(line.decode("utf-8", "surrogateescape"))
        return []

    def _line(self, words: list[str]) -> Line | None:
        match words:
            case ["start", seconds]:
                self._seconds = float(seconds)
            case ["advance", seconds]:
                self._seconds += float(seconds)
            case ["put" | "add" | "block", result, path, text]:
                return [f"{self._seconds:.3f}", result, _name(path), shown(meant(text))]
            case ["mkdir" | "rmdir" as word, result, path]:
                return [f"{self._seconds:.3f}", result, _name(path), word]
        return None

    def _why(self, path: str) -> str:
        with suppress(OSError):
            words = self._last_error.read_bytes().split(b" ", 3)
            if len(words) == 4 and words[1] == os.fsencode(path):
                return shown(words[3])
        return ""


def _name(path: str) -> str:
    return shown(os.fsencode(path))
