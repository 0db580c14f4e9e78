"""A file per member of a collection, and what an open file keeps alive."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EBUSY

import pytest

from fakesys.core.errors import KernelError
from fakesys.core.events import Bus, Changed
from fakesys.tree.attr import Attr, Files, Layout, Mount
from fakesys.tree.binder import Binder
from fakesys.tree.filesystem import FileSystem
from fakesys.tree.node import File


@dataclass(eq=False)
class Shelf:
    """Books by title, and how many readers each has."""

    books: dict[str, Book] = field(default_factory=dict)


@dataclass(eq=False)
class Book:
    text: str
    readers: int = 0

    def take(self) -> Callable[[], None]:
        if self.readers == 1:
            raise KernelError(EBUSY, "somebody reads it")
        self.readers += 1
        return self.put_back

    def put_back(self) -> None:
        self.readers -= 1


BOOK: Attr[Book] = Attr(name="book", mode=0o444, doc="", show=lambda b: b.text, hold=Book.take)
SHELF: Layout[Shelf] = Layout(
    (Files(names=lambda s: s.books, get=lambda s, name: s.books.get(name), attr=BOOK),)
)


def _library(shelf: Shelf) -> tuple[Bus, FileSystem]:
    bus = Bus()
    binder = Binder(bus, frozenset(), [Mount("shelf", SHELF, lambda: shelf)])
    return bus, FileSystem(binder)


def test_a_file_per_member() -> None:
    shelf = Shelf({"emma": Book("It is a truth\n")})
    bus, fs = _library(shelf)
    node = fs.resolve("shelf/emma")
    assert isinstance(node, File)
    assert node.show() == b"It is a truth\n"
    assert fs.resolve("shelf").nlink == 2
    shelf.books["emma"] = Book("other\n")
    bus.emit(Changed((shelf,)))
    assert [name for _, name, _ in fs.settle().gone] == ["emma"]
    with pytest.raises(KernelError):
        fs.resolve("shelf/ulysses")


def test_an_open_file_holds_until_its_release() -> None:
    book = Book("text")
    _, fs = _library(Shelf({"emma": book}))
    node = fs.resolve("shelf/emma")
    assert isinstance(node, File)
    handle = fs.open(node, os.O_RDONLY)
    assert book.readers == 1
    with pytest.raises(KernelError) as refusal:
        fs.open(node, os.O_RDONLY)
    assert refusal.value.errno == EBUSY
    handle.release()
    handle.release()
    assert book.readers == 0


def test_a_refused_open_holds_nothing() -> None:
    book = Book("text")
    _, fs = _library(Shelf({"emma": book}))
    with pytest.raises(KernelError):
        fs.open(fs.resolve("shelf/emma"), os.O_RDONLY | os.O_DIRECT)
    assert book.readers == 0
