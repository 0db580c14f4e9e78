"""Directories that the host lacks, for the private view only.

A mount needs an existing directory. Where there is none, the nearest existing directory above is
replaced by one in memory with the same entries, each of them bound to that of the host, and the
missing ones. The files of the host remain writable; a new name exists in the private view only.
"""

from __future__ import annotations

import os
import stat
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
    status = source.stat()
    entries = sorted(os.listdir(source))
    tmpfs(target, stat.S_IMODE(status.st_mode))
    top = target / ".." if target == source else target
    for name in entries:
        original, copy = source / name, top / name
        if original.is_symlink():
            copy.symlink_to(original.readlink())
        else:
            _show(original, copy)


def _show(original: Path, copy: Path) -> None:
    """Bind one entry; one that was removed meanwhile is left out."""
    folder = original.is_dir()
    if folder:
        copy.mkdir()
    else:
        copy.touch()
    try:
        bind(original, copy)
    except StepError:
        if folder:
            copy.rmdir()
        else:
            copy.unlink()


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StepError(f"cannot make {path.name}: {error.strerror}") from None
