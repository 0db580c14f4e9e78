"""Directories that the host lacks, for the private view only.

A mount needs an existing directory. Where there is none, the nearest existing directory above is
replaced by one in memory with the same entries, each of them bound to that of the host, and the
missing ones. The files of the host remain writable; a new name exists in the private view only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from fakesys.execution.base.syscalls import StepError, bind, move, tmpfs


def ensure_directory(path: Path, draft: Path) -> None:
    """Let the directory exist, in this mount namespace. Raises StepError.

    `draft`: where to make the replacement first; a directory without other use.
    """
    if path.is_dir():
        return
    above = next(parent for parent in path.parents if parent.is_dir())
    replace_by_copy(above, draft)
    _make(path)


def replace_by_copy(path: Path, draft: Path) -> None:
    """Let new names in a directory exist in this mount namespace only. Raises StepError.

    Its entries are bound to the originals; `draft` as for `ensure_directory`.
    """
    draft.mkdir()
    _copy_in_memory(path, draft)
    move(draft, path)
    draft.rmdir()


def ensure_directory_of_root(path: Path) -> None:
    """Let a directory exist in `/`, in this mount namespace. Raises StepError.

    The root of this process is exchanged, as switch_root(8) does.
    """
    if path.is_dir():
        return
    _copy_in_memory(Path("/"), Path("/"))
    # From the root, only this name leads to the mount that covers it.
    os.chdir("/..")
    os.chroot(".")
    _make(path)


def _copy_in_memory(source: Path, target: Path) -> None:
    """Mount on `target` a directory with the entries of `source`, all bound to the originals.

    Raises StepError.
    """
    mode = stat.S_IMODE(source.stat().st_mode)
    with os.scandir(source) as listing:
        entries = list(listing)
    tmpfs(target, mode)
    top = target / ".." if target == source else target
    for entry in entries:
        show_entry(entry, f"{top}/{entry.name}")


def show_entry(
    entry: os.DirEntry[str], target: str, prepare: Callable[[], None] | None = None
) -> None:
    """Make what shows an entry of another directory: the same link, or a bind of the original.

    An entry that was removed meanwhile is left out. `prepare` is called before something is bound.
    """
    # With many entries, pathlib would take most of the time.
    try:
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
            return
        folder = entry.is_dir()
    except FileNotFoundError:
        return
    if folder:
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
    if prepare is not None:
        prepare()
    try:
        bind(entry.path, target)
    except StepError:
        remove_entry(target, folder=folder)


def remove_entry(target: str, *, folder: bool) -> None:
    """Remove what `show_entry` has made, and nothing is mounted on. Raises OSError."""
    if folder:
        os.rmdir(target)
    else:
        os.unlink(target)


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StepError(f"cannot make {path.name}: {error.strerror}") from None
