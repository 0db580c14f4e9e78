"""The state of a machine as a program sees it: path -> text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import unified_diff

from fakesys.core.errors import Blocked, KernelError
from fakesys.core.scheduling.resched import TakesLong
from fakesys.machine.machine import Machine
from fakesys.tree.node import Directory, File, Node, Symlink

# What only tells what happened, never changes, or changes by being read.
_NO_STATE = (
    "sys/devices/virtual/misc/pkey",
    "sys/kernel/tracing",
    "sys/kernel/debug/tracing",
    "sys/kernel/debug/s390dbf",
    "sys/kernel/debug/fakesys",
    "sys/kernel/uevent_seqnum",
)
_NO_STATE_NAMES = ("sections", "notes", "request_count", "pendingq_count", "requestq_count")
_GUESTS = "sys/kernel/debug/fakesys/ap/guests"


def state_of(machine: Machine) -> dict[str, str]:
    """Return all files, links and empty directories of a machine; of a refusal, the errno."""
    found = dict(_below(machine.fs.root))
    with suppress(KernelError):
        found.update(_below(machine.fs.resolve(_GUESTS)))
    return found


def _below(directory: Node) -> Iterator[tuple[str, str]]:
    assert isinstance(directory, Directory)
    names = sorted(directory.names())
    if not names:
        yield f"{directory.path}/", ""
    for name in names:
        node = directory.lookup(name)
        if node is None or name in _NO_STATE_NAMES:
            continue
        if isinstance(node, Directory):
            if node.path not in _NO_STATE:
                yield from _below(node)
        elif isinstance(node, Symlink):
            yield node.path, f"-> {node.target}\n"
        elif isinstance(node, File) and node.path not in _NO_STATE and _has_text(node):
            yield node.path, _text(node)


def _has_text(node: File) -> bool:
    return node.row.open is None and node.row.show is not None


def _text(node: File) -> str:
    try:
        return node.show().decode("latin-1")
    except KernelError as refusal:
        return f"{refusal.name}\n"
    except (Blocked, TakesLong):
        return ""


def changed(
    before: Mapping[str, str], after: Mapping[str, str], without: Iterable[str] = ()
) -> list[str]:
    """Return the paths of which the texts differ."""
    paths = sorted({*before, *after} - set(without))
    return [path for path in paths if before.get(path) != after.get(path)]


def difference(
    before: Mapping[str, str], after: Mapping[str, str], paths: Iterable[str]
) -> list[str]:
    """Return the lines that differ in these files, as `diff -u` writes them."""
    lines: list[str] = []
    for path in paths:
        one, other = before.get(path), after.get(path)
        found = unified_diff(
            _lines(one),
            _lines(other),
            f"/{path}" if one is not None else "/dev/null",
            f"/{path}" if other is not None else "/dev/null",
            lineterm="",
            n=1,
        )
        lines += found
    return lines


def _lines(text: str | None) -> list[str]:
    return [] if text is None else (text.splitlines() or [""])
