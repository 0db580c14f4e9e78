"""Remembers which refusals the tests of this folder provoke, row by row, in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakesys.core.errors import KernelError
from fakesys.tree.attr import Handle
from fakesys.tree.filesystem import FileSystem
from fakesys.tree.node import File, Node
from tests.errnos import PROVOKED, RUN


def remember(node: Node, refusal: KernelError) -> None:
    if isinstance(node, File) and refusal.errno is not None:
        PROVOKED.add((node.row.name, node.row.doc, refusal.errno))


class Watched(FileSystem):
    """The file system calls, with their refusals remembered."""

    def open(self, node: Node, flags: int) -> Handle:
        try:
            return super().open(node, flags)
        except KernelError as refusal:
            remember(node, refusal)
            raise

    def read(
        self, node: File, handle: Handle, offset: int, size: int, *, nonblock: bool = False
    ) -> bytes:
        try:
            return super().read(node, handle, offset, size, nonblock=nonblock)
        except KernelError as refusal:
            remember(node, refusal)
            raise

    def write(
        self, node: File, handle: Handle, data: bytes, offset: int = 0, *, nonblock: bool = False
    ) -> int:
        try:
            return super().write(node, handle, data, offset, nonblock=nonblock)
        except KernelError as refusal:
            remember(node, refusal)
            raise


@pytest.fixture(autouse=True, scope="session")
def _watch_refusals() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fakesys.machine.machine.FileSystem", Watched)
        yield


@pytest.fixture(autouse=True)
def _note_module(request: pytest.FixtureRequest) -> None:
    RUN.add(request.path.name)
