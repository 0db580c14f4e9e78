"""The tree on toy tables: look-up, staleness, open files, refusals. No model, no FUSE."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import pytest

from fakesys.core.errors import KernelError, Waiters
from fakesys.core.events import Bus, Changed, Notified
from fakesys.core.features import Feature
from fakesys.tree.attr import Attr, Children, Dir, Handle, Layout, Link, Links, Mount, Row
from fakesys.tree.binder import Binder, Stale
from fakesys.tree.filesystem import FileSystem
from fakesys.tree.kinds import CONTROL, DEBUGFS, DEBUGFS_SEQ, SYSFS, SYSFS_LONG, TRACEFS, Kind
from fakesys.tree.link_text import relative
from fakesys.tree.node import Directory, File, Symlink
from fakesys.tree.openfile import NOTIFIED, READY


class ToyFeature(Feature):
    """Two later kernels."""

    NEW = "new"
    NEWER = "newer"


@dataclass(eq=False)
class Leaf:
    """A thing that comes and goes."""

    text: str = "leaf\n"


@dataclass(eq=False)
class Toy:
    """A model of one number, one text and some leaves."""

    number: int = 5
    text: str = "hello\n"
    shows: int = 0
    driver: bool = False
    leaves: dict[str, Leaf] = field(default_factory=dict)
    truncated: int = 0


def show(toy: Toy) -> str:
    toy.shows += 1
    return toy.text


def store(toy: Toy, text: str) -> None:
    if not text.strip().isdecimal():
        raise KernelError(22, "not a number")
    toy.text = text


def store_some(_toy: Toy, text: str) -> int:
    return min(len(text), 3)


def truncate(toy: Toy) -> None:
    toy.truncated += 1


class Echo:
    """A handle of its own."""

    def __init__(self, toy: Toy, flags: int) -> None:
        self.toy, self.flags, self.released = toy, flags, False

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        return b"stream"[offset : offset + size]

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        return len(data)

    def poll(self) -> int:
        return select.POLLIN

    def waiters(self) -> Waiters | None:
        return None

    def release(self) -> None:
        self.released = True


LEAF: Layout[Leaf] = Layout((Attr("text", 0o444, "Its text.", show=lambda leaf: leaf.text),))


def leaf_target(toy: Toy, name: str) -> str | None:
    return f"sys/toy/leaves/{name}" if name in toy.leaves else None


def leaf_names(toy: Toy) -> Iterable[str]:
    return toy.leaves


def find_leaf(toy: Toy, name: str) -> Leaf | None:
    return toy.leaves.get(name)


def while_bound(toy: Toy) -> Toy | None:
    return toy if toy.driver else None


def driver_path(toy: Toy) -> str | None:
    return "sys/bus/drivers/toy" if toy.driver else None


ROWS: tuple[Row, ...] = (
    Attr("rw", 0o644, "A text.", show=show, store=store),
    Attr("ro", 0o444, "A number.", show=lambda toy: f"{toy.number}\n"),
    Attr("wo", 0o200, "Takes some.", store=store_some),
    Attr("new", 0o444, "New kernels only.", show=lambda _toy: "new\n", needs=ToyFeature.NEW),
    Attr("old", 0o444, "Old kernels only.", show=lambda _toy: "old\n", unless=tuple(ToyFeature)),
    Attr("bound", 0o444, "While bound.", show=lambda _: "b\n", present=lambda toy: toy.driver),
    Attr("stream", 0o644, "A handle.", open=Echo),
    Attr("cleared", 0o644, "O_TRUNC clears.", store=store, truncate=truncate),
    Link("driver", driver_path),
    Dir("leaves", Layout((Children(leaf_names, find_leaf, LEAF),))),
    Dir("links", Layout((Links(leaf_names, leaf_target),))),
    Dir("maybe", Layout(), of=while_bound),
)


def debug_rows(kind: Kind) -> tuple[Attr[Toy], ...]:
    return (
        Attr("rw", 0o644, "A text.", show=show, store=store, kind=kind),
        Attr("ro", 0o444, "Read only.", show=show, kind=kind),
        Attr("wo", 0o200, "Write only.", store=store, kind=kind),
    )


class World:
    """A toy below sys/toy, with debugfs and tracefs cousins."""

    def __init__(self, *features: Feature) -> None:
        self.bus = Bus()
        self.toy: Toy | None = Toy()
        self.model: Toy | None = self.toy
        self.mounts = (
            Mount("sys/toy", Layout(ROWS), lambda: self.toy),
            Mount(
                "sys/debug",
                Layout(debug_rows(DEBUGFS), mode=0o700, kind=DEBUGFS),
                lambda: self.model,
            ),
            Mount("sys/debug/seq", Layout(debug_rows(DEBUGFS_SEQ)), lambda: self.model),
            Mount("sys/trace", Layout(debug_rows(TRACEFS)), lambda: self.model),
        )
        self.fs = FileSystem(Binder(self.bus, frozenset(features), self.mounts))

    def file(self, path: str) -> File:
        node = self.fs.resolve(path)
        assert isinstance(node, File)
        return node

    def directory(self, path: str) -> Directory:
        node = self.fs.resolve(path)
        assert isinstance(node, Directory)
        return node

    def names(self, path: str) -> set[str]:
        return set(self.directory(path).names())

    def changed(self, *owners: object, deep: bool = False) -> Stale:
        self.bus.emit(Changed(owners, deep))
        return self.fs.settle()


@pytest.fixture
def world() -> World:
    return World()


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(KernelError) as error:
        call()
    return error.value.name


def test_features_choose_the_rows() -> None:
    assert {"old"} == World().names("sys/toy") & {"old", "new"}
    assert {"new"} == World(ToyFeature.NEW).names("sys/toy") & {"old", "new"}
    assert "old" not in World(ToyFeature.NEWER).names("sys/toy")


def test_rebinding_to_another_kernel_drops_what_it_does_not_have(world: World) -> None:
    old = world.file("sys/toy/old")
    kept = world.file("sys/toy/rw")
    world.fs.binder.rebind(frozenset({ToyFeature.NEW}), world.mounts)
    stale = world.fs.settle()
    assert old.gone
    assert [name for _, name, _ in stale.gone] == ["old"]
    assert world.file("sys/toy/rw") is kept
    assert world.fs.binder.features == {ToyFeature.NEW}


def test_replacing_the_models_drops_their_nodes(world: World) -> None:
    old = world.file("sys/toy/rw")
    world.toy = Toy(text="other\n")
    world.fs.binder.replace(Bus(), frozenset(), world.mounts)
    world.fs.settle()
    assert old.gone
    assert world.file("sys/toy/rw").show() == b"other\n"


def test_a_node_is_made_once(world: World) -> None:
    first = world.file("sys/toy/rw")
    assert world.file("sys/toy/rw") is first
    assert first.path == "sys/toy/rw"
    assert first.ino != world.file("sys/toy/ro").ino


def test_presence_follows_the_model(world: World) -> None:
    assert world.toy is not None
    assert not {"bound", "driver", "maybe"} & world.names("sys/toy")
    world.toy.driver = True
    assert {"bound", "driver", "maybe"} <= world.names("sys/toy")


def test_members_come_and_go(world: World) -> None:
    assert world.toy is not None
    assert refusal(lambda: world.fs.resolve("sys/toy/leaves/a")) == "ENOENT"
    world.toy.leaves["a"] = Leaf()
    stale = world.changed(world.toy)
    assert [(directory.path, name) for directory, name in stale.new] == [("sys/toy/leaves", "a")]
    leaf = world.file("sys/toy/leaves/a/text")
    link = world.fs.resolve("sys/toy/links/a", follow=False)
    assert isinstance(link, Symlink)
    assert link.target == "../leaves/a"
    assert world.fs.resolve("sys/toy/links/a") is leaf.parent
    del world.toy.leaves["a"]
    stale = world.changed(world.toy)
    assert {node.path for _, _, node in stale.gone} == {"sys/toy/leaves/a", "sys/toy/links/a"}
    assert leaf.gone
    assert link.gone


def test_a_member_that_came_back_is_another_one(world: World) -> None:
    assert world.toy is not None
    world.toy.leaves["a"] = Leaf("old\n")
    old = world.file("sys/toy/leaves/a/text")
    world.toy.leaves["a"] = Leaf("new\n")
    # Even before anybody was told, a look-up gives the truth.
    new = world.file("sys/toy/leaves/a/text")
    assert new.show() == b"new\n"
    assert new.ino != old.ino
    assert old.gone
    assert [(d.path, name) for d, name, _ in world.fs.settle().gone] == [("sys/toy/leaves", "a")]


def test_a_directory_of_another_model_goes_with_all_below(world: World) -> None:
    file = world.file("sys/toy/rw")
    directory = world.directory("sys/toy")
    world.toy = None
    stale = world.changed(None)
    assert [name for _, name, _ in stale.gone] == ["toy"]
    assert file.gone
    assert list(directory.names()) == []
    assert directory.lookup("rw") is None
    assert refusal(lambda: world.fs.open(file, os.O_RDONLY)) == "ENODEV"


def test_deep_changes_reach_the_directories_below(world: World) -> None:
    assert world.toy is not None
    world.toy.leaves["a"] = Leaf()
    leaf = world.file("sys/toy/leaves/a/text")
    world.toy.leaves.clear()
    world.changed(None, deep=True)
    assert leaf.gone


def test_nothing_happened_means_nothing_to_tell(world: World) -> None:
    assert not world.fs.binder.unsettled
    assert not world.fs.settle()
    world.bus.emit(Changed(("somebody else",)))
    assert not world.fs.binder.unsettled


@pytest.mark.parametrize(
    ("directory", "target", "text"),
    [
        ("sys/bus/ap/devices", "sys/devices/ap/card05", "../../../devices/ap/card05"),
        ("sys/devices/vfio_ap/matrix/u", "sys/devices/vfio_ap/matrix/t", "../t"),
        ("sys/a", "sys/a/b", "b"),
        # By the directory that both are in, and a directory is not in itself.
        ("sys/a/b", "sys/a", "../../a"),
    ],
)
def test_links_are_relative(directory: str, target: str, text: str) -> None:
    """Like fs/kernfs/symlink.c:kernfs_get_target_path (v6.1)."""
    assert relative(directory, target) in (text, f"{text}/")


def test_stat_of_files_and_directories(world: World) -> None:
    assert world.toy is not None
    rw, top = world.file("sys/toy/rw"), world.directory("sys/toy")
    assert (stat.S_ISREG(rw.mode), rw.mode & 0o777, rw.size, rw.nlink) == (True, 0o644, 4096, 1)
    assert (stat.S_ISDIR(top.mode), top.mode & 0o777, top.size) == (True, 0o755, 0)
    assert top.nlink == 2 + len({"leaves", "links"})
    world.toy.leaves["a"] = Leaf()
    assert world.directory("sys/toy/leaves").nlink == 3
    assert world.file("sys/debug/rw").size == 0
    assert world.directory("sys/debug").mode & 0o777 == 0o700


def test_times_are_set_by_hand_only(world: World) -> None:
    node = world.file("sys/toy/rw")
    before = node.times_ns
    handle = world.fs.open(node, os.O_RDWR)
    world.fs.write(node, handle, b"7\n")
    world.fs.read(node, handle, 0, 10)
    assert node.times_ns == before
    node.set_times(None, 5)
    assert node.times_ns[:2] == (before[0], 5)
    node.set_times(6, None)
    assert node.times_ns[:2] == (6, 5)


def test_an_open_with_truncation_moves_mtime(world: World) -> None:
    node = world.file("sys/debug/rw")
    node.truncate(100)
    node.set_times(5, 6)
    node.truncate(100)
    assert node.times_ns[:2] == (5, 6)
    world.fs.open(node, os.O_WRONLY | os.O_TRUNC)
    assert node.size == 0
    assert node.times_ns[0] == 5
    assert node.times_ns[1] > 6


def test_reading_a_directory_is_an_access_except_on_sysfs(world: World) -> None:
    for path, moves in (("sys/toy", False), ("sys/debug", True)):
        directory = world.directory(path)
        directory.set_times(5, 6)
        directory.listed()
        accessed, modified, changed = directory.times_ns
        assert (accessed > 6, modified) == (moves, 6)
        directory.listed()
        # Once a day is enough.
        assert directory.times_ns == (accessed, modified, changed)


@pytest.mark.parametrize("times", [(7, 7, 7), (7, 7, 5), (7, 5, 7)])
def test_a_listing_moves_an_atime_that_is_not_later_than_a_change(
    world: World, times: tuple[int, int, int]
) -> None:
    directory = world.directory("sys/debug")
    late = time.time_ns() - 1_000_000_000
    directory._nanoseconds = (late + times[0], late + times[1], late + times[2])
    directory.listed()
    assert directory.times_ns[0] > late + 7


def test_no_size_beyond_two_gigabytes(world: World) -> None:
    for path in ("sys/toy/rw", "sys/debug/rw"):
        node = world.file(path)
        node.truncate((1 << 31) - 1)
        assert refusal(partial(node.truncate, 1 << 31)) == "EFBIG"


def test_o_direct_is_refused_after_everything_else(world: World) -> None:
    read_only = world.file("sys/toy/ro")
    assert refusal(partial(world.fs.open, read_only, os.O_WRONLY | os.O_DIRECT)) == "EACCES"
    assert refusal(partial(world.fs.open, read_only, os.O_RDONLY | os.O_DIRECT)) == "EINVAL"


def test_sizes_stick_on_debugfs_and_not_on_sysfs(world: World) -> None:
    for path, size in (("sys/toy/rw", 4096), ("sys/debug/rw", 100)):
        node = world.file(path)
        node.truncate(100)
        assert node.size == size


def test_a_removed_debugfs_file_has_no_links(world: World) -> None:
    debug, plain = world.file("sys/debug/rw"), world.file("sys/toy/rw")
    folders = world.directory("sys/debug"), world.directory("sys/toy")
    world.toy, world.model = None, None
    world.changed(None)
    assert (debug.nlink, plain.nlink) == (0, 1)
    assert [folder.nlink for folder in folders] == [0, 2]


def test_show_runs_at_offset_0_and_the_rest_comes_from_the_buffer(world: World) -> None:
    assert world.toy is not None
    node = world.file("sys/toy/rw")
    handle = world.fs.open(node, os.O_RDONLY)
    assert world.toy.shows == 0
    assert world.fs.read(node, handle, 0, 2) == b"he"
    world.toy.text = "other\n"
    assert world.fs.read(node, handle, 2, 100) == b"llo\n"
    assert world.fs.read(node, handle, 6, 100) == b""
    assert world.toy.shows == 1
    assert world.fs.read(node, handle, 0, 100) == b"other\n"


def test_a_read_that_does_not_go_on_where_the_last_one_ended_makes_the_text_again(
    world: World,
) -> None:
    assert world.toy is not None
    node = world.file("sys/toy/rw")
    handle = world.fs.open(node, os.O_RDONLY)
    assert world.fs.read(node, handle, 0, 2) == b"he"
    world.toy.text = "other\n"
    assert world.fs.read(node, handle, 3, 2) == b"er"
    world.toy.text = "third\n"
    assert world.fs.read(node, handle, 5, 2) == b"\n"


def test_a_removed_file_gives_what_its_buffer_has_left_and_no_end(world: World) -> None:
    node = world.file("sys/toy/rw")
    handles = [world.fs.open(node, os.O_RDONLY) for _ in range(4)]
    unread, part, whole, elsewhere = handles
    for handle, size in ((part, 2), (whole, 100), (elsewhere, 2)):
        world.fs.read(node, handle, 0, size)
    world.toy, world.model = None, None
    world.changed(None)

    def read(handle: Handle, offset: int) -> bytes | str:
        try:
            return world.fs.read(node, handle, offset, 100)
        except KernelError as refused:
            return refused.name

    assert read(unread, 0) == "ENODEV"
    assert [read(part, 2), read(part, 6), read(part, 2)] == [b"llo\n", "ENODEV", "ENODEV"]
    assert [read(whole, 6), read(whole, 0)] == ["ENODEV", "ENODEV"]
    assert [read(elsewhere, 1), read(elsewhere, 2)] == ["ENODEV", "ENODEV"]


def test_a_simple_attribute_is_one_snapshot_read_by_a_cursor(world: World) -> None:
    assert world.toy is not None
    node = world.file("sys/debug/rw")
    handle = world.fs.open(node, os.O_RDWR)
    world.fs.write(node, handle, b"77\n")
    assert world.fs.read(node, handle, 3, 2) == b"77"
    world.toy.text = "other\n"
    assert world.fs.read(node, handle, 0, 100) == b"\n"


def test_a_sysfs_write_is_cut_at_a_page_and_a_list_is_not(world: World) -> None:
    assert world.toy is not None
    node = world.file("sys/toy/cleared")
    handle = world.fs.open(node, os.O_WRONLY)
    assert world.fs.write(node, handle, b"1" * 5000) == 4096
    assert len(world.toy.text) == 4096
    assert world.file("sys/toy/rw").show() == b"1" * 4095
    long: Attr[Toy] = Attr("long", 0o444, "", show=lambda _: "x" * 9000, kind=SYSFS_LONG)
    fs = FileSystem(Binder(Bus(), frozenset(), (Mount("a", Layout((long,)), Toy),)))
    listed = fs.resolve("a/long")
    assert isinstance(listed, File)
    assert len(listed.show()) == 9000


def test_a_simple_attribute_sees_23_bytes_and_takes_all(world: World) -> None:
    assert world.model is not None
    node = world.file("sys/debug/rw")
    handle = world.fs.open(node, os.O_WRONLY)
    assert world.fs.write(node, handle, b"0" * 30) == 30
    assert world.model.text == "0" * 23


def test_an_empty_write_reaches_nobody(world: World) -> None:
    node = world.file("sys/toy/rw")
    assert world.fs.write(node, world.fs.open(node, os.O_WRONLY), b"") == 0


def test_a_store_may_take_less_than_all(world: World) -> None:
    node = world.file("sys/toy/wo")
    assert world.fs.write(node, world.fs.open(node, os.O_WRONLY), b"12345") == 3


@pytest.mark.parametrize(
    ("path", "flags", "errno"),
    [
        ("sys/toy/ro", os.O_WRONLY, "EACCES"),
        ("sys/toy/ro", os.O_RDWR, "EACCES"),
        ("sys/toy/wo", os.O_RDONLY, "EACCES"),
        ("sys/toy/wo", os.O_RDWR, "EACCES"),
        ("sys/toy/rw", os.O_RDONLY | os.O_DIRECT, "EINVAL"),
        ("sys/toy/leaves", os.O_RDONLY, "EISDIR"),
    ],
)
def test_open_refuses(world: World, path: str, flags: int, errno: str) -> None:
    assert refusal(lambda: world.fs.open(world.fs.resolve(path), flags)) == errno


def test_chmod_opens_the_door_but_makes_no_store(world: World) -> None:
    node = world.file("sys/toy/ro")
    world.fs.chmod(node, 0o644)
    handle = world.fs.open(node, os.O_WRONLY)
    assert refusal(lambda: world.fs.write(node, handle, b"1")) == "EIO"
    world.fs.chmod(world.file("sys/toy/wo"), 0o644)
    reader = world.fs.open(world.file("sys/toy/wo"), os.O_RDONLY)
    assert refusal(lambda: reader.read(0, 10, nonblock=False)) == "EIO"


@pytest.mark.parametrize(
    ("folder", "errno"),
    [("sys/debug", "EACCES"), ("sys/debug/seq", "EINVAL"), ("sys/trace", "EINVAL")],
)
def test_root_opens_debugfs_whatever_the_mode(world: World, folder: str, errno: str) -> None:
    ro, wo = world.file(f"{folder}/ro"), world.file(f"{folder}/wo")
    writer, reader = world.fs.open(ro, os.O_WRONLY), world.fs.open(wo, os.O_RDONLY)
    assert refusal(lambda: world.fs.write(ro, writer, b"1")) == errno
    assert refusal(lambda: world.fs.read(wo, reader, 0, 10)) == errno


def test_after_removal_sysfs_gives_the_rest_and_debugfs_nothing(world: World) -> None:
    plain, debug = world.file("sys/toy/rw"), world.file("sys/debug/rw")
    read, unread = (world.fs.open(plain, os.O_RDWR) for _ in range(2))
    other = world.fs.open(debug, os.O_RDWR)
    assert world.fs.read(plain, read, 0, 1) == b"h"
    assert world.fs.read(debug, other, 0, 1) == b"h"
    world.toy, world.model = None, None
    world.changed(None)
    assert world.fs.read(plain, read, 1, 10) == b"ello\n"
    assert refusal(lambda: world.fs.read(plain, read, 0, 10)) == "ENODEV"
    assert refusal(lambda: world.fs.read(plain, unread, 0, 10)) == "ENODEV"
    assert refusal(lambda: world.fs.write(plain, unread, b"1")) == "ENODEV"
    assert refusal(lambda: world.fs.read(debug, other, 1, 10)) == "EIO"
    assert refusal(lambda: world.fs.write(debug, other, b"1")) == "EIO"


def test_poll_says_notified_until_the_next_read_from_the_start(world: World) -> None:
    node, woken = world.file("sys/toy/rw"), list[int]()
    handle = world.fs.open(node, os.O_RDONLY)
    assert handle.poll() == NOTIFIED
    text = world.fs.read(node, handle, 0, 100)
    assert handle.poll() == READY
    waiters = handle.waiters()
    assert waiters is not None
    waiters.add("poller", lambda: woken.append(1))
    world.bus.emit(Notified(world.toy, "rw"))
    assert (handle.poll(), woken) == (NOTIFIED, [1])
    world.fs.read(node, handle, len(text), 100)
    assert handle.poll() == NOTIFIED
    world.fs.read(node, handle, 0, 100)
    assert handle.poll() == READY
    handle.release()


def test_removal_wakes_pollers(world: World) -> None:
    node, woken = world.file("sys/toy/rw"), list[int]()
    handle = world.fs.open(node, os.O_RDONLY)
    world.fs.read(node, handle, 0, 100)
    node.pollers.add("poller", lambda: woken.append(1))
    world.toy = None
    world.changed(None)
    assert (handle.poll(), woken) == (NOTIFIED, [1])


def test_debugfs_is_always_ready_and_never_wakes(world: World) -> None:
    handle = world.fs.open(world.file("sys/debug/rw"), os.O_RDONLY)
    assert (handle.poll(), handle.waiters()) == (READY, None)


def test_a_row_may_make_handles_of_its_own(world: World) -> None:
    handle = world.fs.open(world.file("sys/toy/stream"), os.O_RDONLY)
    assert isinstance(handle, Echo)
    assert handle.read(0, 3, nonblock=False) == b"str"


def test_truncation_is_told_to_rows_that_ask(world: World) -> None:
    assert world.toy is not None
    node = world.file("sys/toy/cleared")
    world.fs.open(node, os.O_WRONLY)
    world.fs.open(node, os.O_WRONLY | os.O_TRUNC)
    assert world.toy.truncated == 1
    world.fs.open(world.file("sys/toy/rw"), os.O_WRONLY | os.O_TRUNC)
    assert world.toy.text == "hello\n"


def test_every_write_is_reported_with_its_result(world: World) -> None:
    told = list[tuple[str, bytes, str]]()

    def report(node: File, data: bytes, error: KernelError | None) -> None:
        told.append((node.path, data, error.name if error else "ok"))

    world.fs.report = report
    node = world.file("sys/toy/rw")
    handle = world.fs.open(node, os.O_WRONLY)
    world.fs.write(node, handle, b"1\n")
    assert refusal(lambda: world.fs.write(node, handle, b"x\n")) == "EINVAL"
    assert told == [("sys/toy/rw", b"1\n", "ok"), ("sys/toy/rw", b"x\n", "EINVAL")]


def test_the_gate_sees_reads_from_the_start_and_all_writes(world: World) -> None:
    seen = list[str]()
    world.fs.gate = lambda operation, node: seen.append(f"{operation} {node.name}")
    node = world.file("sys/toy/rw")
    handle = world.fs.open(node, os.O_RDWR)
    world.fs.read(node, handle, 0, 2)
    world.fs.read(node, handle, 2, 2)
    world.fs.write(node, handle, b"1\n")
    assert seen == ["read rw", "write rw"]


def test_refused_names(world: World) -> None:
    fs, top = world.fs, world.directory("sys/toy")
    assert fs.create(top, "x").name == fs.create(top, "rw").name.replace("EEXIST", "EACCES")
    assert fs.make_other(top, "x").name == "EPERM"
    assert fs.make_other(top, "rw").name == "EEXIST"
    assert refusal(lambda: fs.mkdir(top, "x")) == "EPERM"
    assert refusal(lambda: fs.mkdir(top, "leaves")) == "EEXIST"
    assert refusal(lambda: fs.rmdir(top, "leaves")) == "EPERM"
    assert refusal(lambda: fs.rmdir(top, "rw")) == "ENOTDIR"
    assert refusal(lambda: fs.rmdir(top, "x")) == "ENOENT"
    assert fs.unlink(top, "rw").name == "EPERM"
    assert fs.unlink(top, "leaves").name == "EISDIR"
    assert refusal(lambda: fs.unlink(top, "x")) == "ENOENT"
    assert fs.rename(top, "rw").name == "EPERM"
    assert refusal(lambda: fs.lookup(world.file("sys/toy/rw"), "x")) == "ENOTDIR"


def test_a_layout_may_let_users_make_directories() -> None:
    toy = Toy()

    def make(model: Toy, name: str) -> None:
        model.leaves[name] = Leaf()

    def remove(model: Toy, name: str) -> None:
        del model.leaves[name]

    children: Children[Toy, Leaf] = Children(leaf_names, find_leaf, LEAF)
    layout: Layout[Toy] = Layout((children,), mkdir=make, rmdir=remove)
    fs = FileSystem(Binder(Bus(), frozenset(), (Mount("instances", layout, lambda: toy),)))
    top = fs.resolve("instances")
    fs.mkdir(top, "a")
    assert refusal(lambda: fs.mkdir(top, "a")) == "EEXIST"
    assert fs.resolve("instances/a/text").path == "instances/a/text"
    fs.rmdir(top, "a")
    assert toy.leaves == {}


def test_paths_resolve_like_a_shell_would(world: World) -> None:
    assert world.toy is not None
    assert world.fs.resolve("/sys/./toy/../toy/rw") is world.file("sys/toy/rw")
    assert world.fs.resolve("..") is world.fs.root
    world.toy.leaves["a"] = Leaf()
    assert world.fs.resolve("sys/toy/links/a/text") is world.file("sys/toy/leaves/a/text")
    entries = dict(world.directory("sys/toy/links").entries())
    assert isinstance(entries["a"], Symlink)


def test_a_loop_of_links_ends() -> None:
    rows: tuple[Link[Toy], ...] = (Link("a", lambda _: "x/b"), Link("b", lambda _: "x/a"))
    toy = Toy()
    fs = FileSystem(Binder(Bus(), frozenset(), (Mount("x", Layout(rows), lambda: toy),)))
    assert refusal(lambda: fs.resolve("x/a")) == "ELOOP"
    assert isinstance(fs.resolve("x/a", follow=False), Symlink)


def test_lockdown_refuses_debugfs_only(world: World) -> None:
    world.fs.locked_down = True
    world.fs.open(world.file("sys/debug/ro"), os.O_RDONLY)
    for path, flags in (("rw", os.O_RDONLY), ("ro", os.O_WRONLY), ("wo", os.O_WRONLY)):
        node = world.file(f"sys/debug/{path}")
        assert refusal(partial(world.fs.open, node, flags)) == "EPERM"
    # Access mode 3 neither reads nor writes.
    world.fs.open(world.file("sys/debug/ro"), os.O_ACCMODE)
    world.fs.open(world.file("sys/toy/rw"), os.O_RDWR)
    world.fs.open(world.file("sys/trace/rw"), os.O_RDWR)


def test_lockdown_refuses_other_modes_and_owners_in_debugfs(world: World) -> None:
    debug = world.file("sys/debug/ro"), world.directory("sys/debug")
    for node in debug:
        world.fs.chmod(node, 0o440)
        world.fs.chown(node, 1, None)
    world.fs.locked_down = True
    for node in debug:
        assert refusal(partial(world.fs.chmod, node, 0o400)) == "EPERM"
        assert refusal(partial(world.fs.chown, node, None, 2)) == "EPERM"
        world.fs.chown(node, None, None)
        assert (node.mode & 0o777, node.uid, node.gid) == (0o440, 1, 0)
    world.fs.chmod(world.file("sys/toy/rw"), 0o600)
    world.fs.chmod(world.file("sys/trace/rw"), 0o600)


def test_kinds_have_names_of_their_own() -> None:
    kinds = (SYSFS, SYSFS_LONG, CONTROL, DEBUGFS, DEBUGFS_SEQ, TRACEFS)
    assert len({kind.name for kind in kinds}) == len(kinds)
