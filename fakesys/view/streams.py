"""The streams of a mount, read without waiting: uevents, log, writes and trace events."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

# The most that is read of one stream at once.
MOST = 1 << 16
LONGEST_TEXT = 400

Line = list[str]


def shown(raw: bytes) -> str:
    """Return bytes of a file as text of one line, not too long for a page."""
    return _shown(raw.decode("utf-8", "backslashreplace"))


def _shown(text: str) -> str:
    text = text.removesuffix("\n")
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


def writes(lines: list[bytes]) -> Iterator[Line]:
    """Yield time, writer, result, path, text and the reason of a refusal, of lines of `writers`."""
    for line in lines:
        said = json.loads(line)
        if "lost" in said:
            yield ["", "", "", "", "", f"{said['lost']} writes left out: too many at once"]
            continue
        call, text = said["call"], _shown(said["text"])
        who = f"{_shown(said['comm'])}[{said['pid']}] uid {said['uid']}"
        what = text if call == "write" else f"({call})"
        path = _shown(said["path"])
        yield [f"{said['time']:.3f}", who, said["result"], path, what, _shown(said["why"])]
