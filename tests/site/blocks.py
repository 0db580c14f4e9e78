"""Blocks of code in pages: each has a language, and its text is of that language."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

FENCE = re.compile(r"^( *)```(.*)$")
PROMPTS = ("$ ", "# ")


class Block(NamedTuple):
    """A block of code; `line` is that of its first fence."""

    line: int
    language: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page. Raises ValueError for one without an end."""
    begun: Block | None = None
    for number, line in enumerate(page.splitlines(), 1):
        fence = FENCE.match(line)
        if begun is None:
            if fence:
                begun = Block(number, fence[2].strip(), "")
        elif fence and not fence[2].strip():
            yield begun
            begun = None
        else:
            begun = begun._replace(text=f"{begun.text}{line}\n")
    if begun is not None:
        raise ValueError(f"line {begun.line}: a block of code without an end")


def mistakes(page: str) -> list[str]:
    """What is wrong with the blocks of a page, each as one line that begins with its place."""
    try:
        return [f"line {b.line}: {wrong}" for b in blocks(page) if (wrong := mistake(b))]
    except ValueError as error:
        return [str(error)]


def mistake(block: Block) -> str:
    """What is wrong with a block; empty if nothing is."""
    check = CHECKS.get(block.language)
    if check is None:
        return f"a block of code in {block.language!r}, which is none of {', '.join(CHECKS)}"
    return check(block.text)


def _shell(text: str) -> str:
    done = subprocess.run(
        ["bash", "-n"], input=text, capture_output=True, text=True, check=False, timeout=30
    )
    return done.stderr.strip().replace("\n", "; ")


def _console(text: str) -> str:
    """Commands follow a prompt, up to a line that is no continuation; the rest is output."""
    found = list(commands(text))
    return _shell("\n".join(found)) if found else "no command after a prompt"


def commands(text: str) -> Iterator[str]:
    """Yield the commands of a session: a line that bash finds incomplete goes on in the next."""
    lines = iter(text.splitlines())
    for line in lines:
        if not line.startswith(PROMPTS):
            continue
        command = line[2:]
        # A string or a here-document goes on.
        while _incomplete(command):
            more = next(lines, None)
            if more is None:
                break
            command += "\n" + more.removeprefix("> ")
        yield command


def _incomplete(command: str) -> bool:
    wrong = _shell(command)
    return command.endswith("\\") or "unexpected EOF" in wrong or "end-of-file" in wrong


def _python(text: str) -> str:
    try:
        ast.parse(text)
    except SyntaxError as error:
        return f"no Python: {error.msg}"
    return ""


def _toml(text: str) -> str:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return f"no TOML: {error}"
    return ""


def _json(text: str) -> str:
    """A value on each line, as in streams."""
    try:
        for line in text.splitlines():
            json.loads(line)
    except ValueError as error:
        return f"no JSON: {error}"
    return ""


def _format(text: str) -> str:
    """A print format of a tracepoint, as `format` files show it: quotes and brackets are pairs."""
    with suppress(SyntaxError):
        ast.parse(f"({text.strip()})")
        return ""
    rest = re.sub(r'"(\\.|[^"\\])*"', "", text)
    return "" if rest.count("(") == rest.count(")") and '"' not in rest else "no print format"


CHECKS: dict[str, Callable[[str], str]] = {
    "sh": _shell,
    "console": _console,
    "python": _python,
    "toml": _toml,
    "json": _json,
    "c": _format,
    # A picture of letters: layers, a file.
    "text": lambda _text: "",
}
