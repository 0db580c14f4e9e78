"""What a worker does with one task."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fakesys.core.version import __version__

# How many workers one task may end before it counts as lost.
ATTEMPTS = 3


class TaskLost(RuntimeError):
    """A task ended each worker that began it."""

    def __init__(self, index: int) -> None:
        super().__init__(f"task {index}: {ATTEMPTS} workers ended while they did it")
        self.index = index


class OtherVersion(RuntimeError):
    """A worker has another version of this package, so its results may be others."""


class NoCluster(RuntimeError):
    """There is no scheduler at the address, or no library to ask it."""


class File(NamedTuple):
    """A file that goes along with the tasks: its name without a folder, its mode and its bytes."""

    name: str
    mode: int
    content: bytes


class Order(NamedTuple):
    """What all tasks of a run have in common."""

    work: str
    files: tuple[File, ...]
    version: str = __version__


def order(work: str, paths: Iterable[Path] = ()) -> Order:
    """Return the order for a function `module:name` and the files that it needs.

    A path that is given twice counts once. Raises ValueError for two files of one name, OSError for
    one that cannot be read.
    """
    files = tuple(_packed(path) for path in dict.fromkeys(paths))
    if len({file.name for file in files}) < len(files):
        raise ValueError("two files have the same name")
    return Order(work, files)


def _packed(path: Path) -> File:
    return File(path.name, path.stat().st_mode & 0o777, path.read_bytes())


def do(order: Order, task: Mapping[str, Any]) -> Any:
    """Do one task: `function(task)`, or `function(task, folder)` where files go along.

    The folder is new for each task and is removed afterwards. Raises OtherVersion, and what the
    function raises.
    """
    if order.version != __version__:
        raise OtherVersion(f"the worker has fakesys {__version__}, not {order.version}")
    module, _, name = order.work.partition(":")
    function = getattr(importlib.import_module(module), name)
    if not order.files:
        return function(task)
    with tempfile.TemporaryDirectory(prefix="fakesys-task-") as folder:
        _unpack(order.files, Path(folder))
        return function(task, folder)


def _unpack(files: Sequence[File], folder: Path) -> None:
    for name, mode, content in files:
        path = folder / Path(name).name
        path.write_bytes(content)
        path.chmod(mode)
