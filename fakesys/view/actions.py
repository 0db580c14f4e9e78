"""What the buttons of `--control` do: writes to files of the mount, as a shell would make them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from fakesys.view.reading import CONTROL
from fakesys.view.streams import shown

NAME = re.compile(r"[^/\0]{1,255}")
ADAPTER = re.compile(r"[0-9a-f]{1,2}")
QUEUE = re.compile(r"([0-9a-f]{2})\.[0-9a-f]{4}")

Words = Mapping[str, str]


class BadAction(ValueError):
    """A request that no button makes."""


def _word(words: Words, key: str, pattern: str) -> str:
    """Return one word of a request. Raises BadAction."""
    word = words.get(key)
    if not isinstance(word, str) or not re.fullmatch(pattern, word) or word in (".", ".."):
        raise BadAction(f"{key} is missing or wrong")
    return word


def _pull(words: Words) -> tuple[str, str]:
    return "ap/del_card", f"0x{_word(words, 'adapter', '[0-9a-f]{1,2}')}"


def _plug(words: Words) -> tuple[str, str]:
    adapter = _word(words, "adapter", "[0-9a-f]{1,2}")
    kind = _word(words, "type", "CEX[4-8]")
    return "ap/new_card", f"0x{adapter} {kind} {_word(words, 'mode', 'accel|cca|ep11')}"


def _guest(words: Words) -> tuple[str, str]:
    return "ap/new_guest", _word(words, "guest", r"[\w-]{1,64}")


def _attach(words: Words) -> tuple[str, str]:
    guest = _word(words, "guest", r"[^/\0]{1,255}")
    return f"ap/guests/{guest}/attach", _word(words, "mdev", "[0-9a-f-]{36}")


def _detach(words: Words) -> tuple[str, str]:
    guest = _word(words, "guest", r"[^/\0]{1,255}")
    return f"ap/guests/{guest}/detach", "1"


def _advance(words: Words) -> tuple[str, str]:
    return "clock/advance", _word(words, "seconds", r"[0-9]{1,6}(\.[0-9]{1,9})?")


ACTIONS: dict[str, Callable[[Words], tuple[str, str]]] = {
    "pull": _pull,
    "plug": _plug,
    "guest": _guest,
    "attach": _attach,
    "detach": _detach,
    "advance": _advance,
}


def act(root: Path, words: Words) -> str:
    """Carry out one request; return `ok`, or the errno with its reason. Raises BadAction."""
    action = ACTIONS.get(words.get("action", ""))
    if action is None:
        raise BadAction("there is no such action")
    name, text = action(words)
    path = root / CONTROL / name
    try:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"{errno.errorcode.get(error.errno or 0, '?')}: {_why(root) or error.strerror}"
    return "ok"


def _why(root: Path) -> str:
    with suppress(OSError):
        words = (root / CONTROL / "last_error").read_bytes().split(b" ", 3)
        return shown(words[3]) if len(words) == 4 else ""
    return ""


def queue(root: Path, name: str) -> dict[str, str]:
    """Return the path, driver and status of a queue. Raises BadAction for what is no queue."""
    found = QUEUE.fullmatch(name)
    if found is None:
        raise BadAction("this is no queue")
    path = f"sys/devices/ap/card{found[1]}/{name}"
    folder = root / path
    values = {"path": path}
    with suppress(OSError):
        values["driver"] = os.path.basename(os.readlink(folder / "driver"))
    for attribute in ("status", "online", "config", "chkstop", "request_count"):
        with suppress(OSError):
            values[attribute] = shown((folder / attribute).read_bytes())
    return values
