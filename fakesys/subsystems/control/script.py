"""Writes as a shell script that a person can read and run: its words, and how texts are written.

Each line is one step; `#` begins a remark. The helpers at the top are plain POSIX shell. A step
names the result that it had, and running the script tells where it has another one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from fakesys.core.text import LONGEST_QUOTE, one_line

# Longer texts, and those of several lines, are written by dd: shells cut them into pieces.
LONGEST_BY_SHELL = 400
STEPS = ("start", "advance", "hold", "put", "add", "block", "clear", "mkdir", "rmdir")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\\": "\\\\", "%": "%%"}
_WRITTEN = re.compile(rb"\\([0-7]{3}|[nt\\])|%%")
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
_LETTERS = {b"n": b"\n", b"t": b"\t", b"\\": b"\\"}
# A line as `line_of` writes it; `shlex` understands every other one, but is ten times slower.
_PLAIN = re.compile(r"""(?:[ \t\r]++|[^\s'"\\#]++|'[^']*+')*+""")
_WORD = re.compile(r"""(?:[^\s'"\\#]++|'[^']*+')++""")

PREAMBLE = r"""#!/bin/sh
# Writes to a fakesys mount, recorded by fakesys {version}.
# Run it on a fresh mount of that machine:
#   fakesys mount {origin} ./mountpoint && sh THIS-FILE ./mountpoint
# or in memory: fakesys replay THIS-FILE, which makes the machine of the next line.
#: {machine}
# Exit status 1: some result was another one than when it was recorded.
M=${{1:?usage: sh $0 MOUNTPOINT}}
F=$M/sys/kernel/debug/fakesys
wrong=0
# The machine's time is stopped, and moves by the recorded steps.
read -r rate < "$F/clock/rate" || exit 1
trap 'printf "%s\n" "$rate" > "$F/clock/rate"; [ "$wrong" = 0 ] || exit 1' EXIT
hold() {{ printf '0\n' > "$F/clock/rate"; }}
advance() {{ printf '%s\n' "$1" > "$F/clock/advance"; }}
# start SECONDS: the time when the recording began.
start() {{
    hold
    read -r now < "$F/clock/now"
    left=$(awk -v a="$now" -v b="$1" 'BEGIN {{ printf "%.9f", (b > a ? b - a : 0) }}')
    [ "$left" = 0.000000000 ] || advance "$left"
}}
# check STATUS EXPECTED PATH TEXT: last_error says what the last write was refused with.
check() {{
    got=ok
    if [ "$1" != 0 ] && [ ! -e "$M/$3" ]; then
        got=ENOENT
    elif [ "$1" != 0 ]; then
        read -r _time _path got _why < "$F/last_error" || got=refused
    fi
    [ "$got" = "$2" ] && return
    wrong=$((wrong + 1))
    printf '%s: %s, recorded %s: %s\n' "$3" "$got" "$2" "$4" >&2
}}
# below PATH: no step leads out of the mount.
below() {{
    case /$1/ in
        //* | */../*) printf '%s: not below the mount\n' "$1" >&2; wrong=$((wrong + 1)); return 1 ;;
    esac
}}
# put RESULT PATH TEXT: one write to a file opened with O_TRUNC; add: without; TEXT as for printf.
put() {{ below "$2" || return; printf "$3" 2>/dev/null > "$M/$2"; check $? "$@"; }}
add() {{ below "$2" || return; printf "$3" 2>/dev/null >> "$M/$2"; check $? "$@"; }}
block() {{
    below "$2" || return
    printf "$3" | dd obs=1048576 conv=notrunc of="$M/$2" 2>/dev/null
    check $? "$@"
}}
# clear PATH: opened with O_TRUNC, and closed.
clear() {{ below "$1" || return; true > "$M/$1"; }}
# Of directories only success or refusal is compared.
done_or_not() {{
    got=refused
    [ "$1" != 0 ] || got=ok
    [ "$got" = "$2" ] && return
    [ "$got" = refused ] && [ "$2" != ok ] && return
    wrong=$((wrong + 1))
    printf '%s: %s, recorded %s\n' "$3" "$got" "$2" >&2
}}
mkdir() {{ below "$2" || return; command mkdir "$M/$2" 2>/dev/null; done_or_not $? "$@"; }}
rmdir() {{ below "$2" || return; command rmdir "$M/$2" 2>/dev/null; done_or_not $? "$@"; }}

"""


class Step(NamedTuple):
    """One line. `result`: `ok` or the name of an errno; empty where there is none."""

    number: int
    word: str
    result: str = ""
    path: str = ""
    text: bytes = b""
    seconds: str = ""


class ScriptError(ValueError):
    """A line that is no step; the text says which and why."""


def preamble(version: str, origin: str, machine: str) -> str:
    """Return the first lines of a script.

    `origin`: the options of `mount` that make the machine, for people; `machine`: all of it, as
    one line for `replay`.
    """
    return PREAMBLE.format(version=version, origin=origin, machine=machine)


def machine_in(script: str) -> str | None:
    """Return the line of the machine that `preamble` was given; None if there is none."""
    found = re.search(r"^#: (.*)$", script, re.MULTILINE)
    return found[1] if found else None


def line_of(step: Step) -> str:
    """Return the line of a step, with its newline."""
    words = [step.word]
    if step.word in ("start", "advance"):
        words.append(step.seconds)
    elif step.word == "clear":
        words.append(shlex.quote(step.path))
    elif step.word != "hold":
        words += [step.result, shlex.quote(step.path)]
    if step.word in ("put", "add", "block"):
        words.append(f"'{written(step.text)}'")
    return " ".join(words) + "\n"


def written(text: bytes) -> str:
    """Return bytes as a format of printf(1) between single quotes."""
    found = "".join(_written(chr(byte)) for byte in text)
    # A leading dash would be an option.
    return f"\\055{found[1:]}" if found.startswith("-") else found


def _written(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    plain = " " <= letter <= "~" and letter != "'"
    return letter if plain else f"\\{ord(letter):03o}"


def meant(text: str) -> bytes:
    """Return the bytes that `written` made this text from."""

    def one(found: re.Match[bytes]) -> bytes:
        if found[0] == b"%%":
            return b"%"
        return _LETTERS[found[1]] if found[1] in _LETTERS else bytes([int(found[1], 8) & 0xFF])

    return _WRITTEN.sub(one, text.encode("utf-8", "surrogateescape"))


def steps(script: str) -> Iterator[Step]:
    """Yield the steps of a script; the lines before the first blank line are its helpers.

    Raises ScriptError.
    """
    head, separator, body = script.partition("\n\n")
    if not separator or not head.startswith("#!/bin/sh"):
        raise ScriptError("this is no recording: there are no helpers and a blank line")
    first = head.count("\n") + 3
    for number, line in enumerate(body.split("\n"), first):
        if line.strip() and not line.lstrip().startswith("#"):
            yield _step(number, line)


def _step(number: int, line: str) -> Step:
    try:
        word, *rest = words_of(line)
    except ValueError as error:
        raise ScriptError(f"line {number}: {error}") from None
    match word, rest:
        case "hold", []:
            return Step(number, word)
        case "start" | "advance", [seconds] if _SECONDS.fullmatch(seconds):
            return Step(number, word, seconds=seconds)
        case "clear", [path]:
            return Step(number, word, path=_below(number, path))
        case "mkdir" | "rmdir", [result, path]:
            return Step(number, word, result, _below(number, path))
        case "put" | "add" | "block", [result, path, text]:
            return Step(number, word, result, _below(number, path), meant(text))
    quoted = one_line(repr(line), LONGEST_QUOTE)
    raise ScriptError(f"line {number}: {quoted} is no step ({', '.join(STEPS)})")


def words_of(line: str) -> list[str]:
    """Return the words of a line, as a shell divides it. Raises ValueError."""
    if _PLAIN.fullmatch(line):
        return [word.replace("'", "") for word in _WORD.findall(line)]
    return shlex.split(line, comments=True)


def _below(number: int, path: str) -> str:
    """Return a path of a step. Raises ScriptError for one that begins outside of the mount."""
    if not path or path.startswith("/") or ".." in path.split("/") or "\0" in path:
        quoted = one_line(repr(path), LONGEST_QUOTE)
        raise ScriptError(f"line {number}: {quoted} is no path below the mount")
    return path
