"""Every file of every profile, from the tables of rows."""

from __future__ import annotations

import errno as errno_numbers
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fakesys.machine.machine import Machine
from fakesys.machine.profiles import PROFILES
from fakesys.tree.attr import (
    Attr,
    Children,
    DeviceNodes,
    Dir,
    Files,
    Layout,
    Links,
    Row,
)
from fakesys.tree.binder import Binder


@dataclass(slots=True)
class Entry:
    """One row of a directory and the profiles that have it."""

    row: Row
    profiles: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Folder:
    """One directory of the reference; `same_as` names an earlier one with the same rows."""

    path: str
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    same_as: str | None = None


def folders() -> list[Folder]:
    """Return every directory that any profile has, in the order of the tables."""
    found: dict[str, Folder] = {}
    for profile in PROFILES:
        machine = Machine(profile, "selftest")
        seen: dict[Layout[Any], str] = {}
        _walk(machine.fs.binder, machine.fs.root.layout, "", profile, found, seen)
    return [folder for folder in found.values() if folder.entries or folder.same_as]


def _walk(
    binder: Binder,
    layout: Layout[Any],
    path: str,
    profile: str,
    found: dict[str, Folder],
    seen: dict[Layout[Any], str],
) -> None:
    folder = found.setdefault(path, Folder(path))
    first = seen.setdefault(layout, path)
    if first != path:
        folder.same_as = first
        return
    for row in _rows(binder, layout):
        if isinstance(row, (Dir, Children)):
            below = f"{path}/{_name(row)}".lstrip("/")
            _walk(binder, row.layout, below, profile, found, seen)
        else:
            key = (_name(row), _description(row))
            folder.entries.setdefault(key, Entry(row)).profiles.append(profile)


def _rows(binder: Binder, layout: Layout[Any]) -> Iterator[Row]:
    plan = binder.plan(layout)
    for rows in plan.named.values():
        yield from rows
    yield from plan.collections


def _name(row: Row) -> str:
    if isinstance(row, (Children, DeviceNodes, Files, Links)):
        return row.label
    return row.name


def _attr(row: Row) -> Attr[Any] | None:
    if isinstance(row, Files):
        return row.attr
    return row if isinstance(row, Attr) else None


def _description(row: Row) -> str:
    if isinstance(row, DeviceNodes):
        return "The node of a character device."
    attr = _attr(row)
    return attr.doc if attr is not None else "A symbolic link."


def mode_of(row: Row) -> str:
    """Return the permissions as octal digits, `link` or `node`."""
    if isinstance(row, DeviceNodes):
        return "node"
    attr = _attr(row)
    return f"{attr.mode:04o}" if attr is not None else "link"


def errors_of(row: Row) -> str:
    """Return each errno with its cause."""
    attr = _attr(row)
    if attr is None:
        return ""
    return "; ".join(
        f"{errno_numbers.errorcode[number]}: {cause}" for number, cause in attr.errors.items()
    )


def profiles_of(entry: Entry) -> str:
    """Return the profiles that have a row, or `all`."""
    return "all" if len(entry.profiles) >= len(PROFILES) else ", ".join(entry.profiles)
