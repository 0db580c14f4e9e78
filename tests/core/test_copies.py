"""Texts that a forked copy of the process makes, however the copy ends; nothing of it stays."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EAGAIN, EMFILE, ENOMEM

import psutil
import pytest

from fakesys.core.copying import copies
from fakesys.core.copying.copies import Text, pipes
from fakesys.core.errors import Blocked, KernelError
from fakesys.core.scheduling.resched import SlicedLock, state


class Loop:
    """A transport that waits for pipes."""

    def __init__(self) -> None:
        self.waiting: dict[int, Callable[[], None]] = {}

    def when_readable(self, descriptor: int, action: Callable[[], None]) -> None:
        self.waiting[descriptor] = action

    def turn(self) -> None:
        """Wait until one of the pipes can be read."""
        ready, _, _ = select.select(list(self.waiting), [], [], 10)
        assert ready, "no copy did anything"
        for descriptor in ready:
            self.waiting.pop(descriptor)()

    def text(self, text: Text) -> bytes:
        """Wait for a text."""
        while text.is_waited_for:
            self.turn()
        return text.text()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    descriptors, before, loop = os.listdir("/proc/self/fd"), children(), Loop()
    pipes.open(loop.when_readable)
    monkeypatch.setattr(state, "serving", True)
    yield loop
    pipes.close()
    assert not pipes.copies
    assert os.listdir("/proc/self/fd") == descriptors
    assert children() <= before


def children() -> set[int]:
    """The children of this process, ended ones that were not waited for included."""
    return {child.pid for child in psutil.Process().children()}


def forever() -> bytes:
    """Make no text."""
    while True:
        time.sleep(1)


def test_a_copy_shows_the_moment_at_which_it_was_made(loop: Loop) -> None:
    words = ["before"]
    text = Text(lambda: words[0].encode())
    words[0] = "after"
    with pytest.raises(Blocked) as blocked:
        text.text()
    woken = list[bool]()
    blocked.value.waiters.add("reader", lambda: woken.append(True))
    assert loop.text(text) == b"before"
    assert woken == [True]


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_a_text_comes_whole(loop: Loop, size: int) -> None:
    assert loop.text(Text(lambda: b"x" * size)) == b"x" * size


def test_without_a_transport_a_text_is_made_at_once() -> None:
    text = Text(lambda: str(os.getpid()).encode())
    assert text.text() == str(os.getpid()).encode()
    text.close()


def test_a_copy_has_no_descriptor_of_the_mount_and_makes_no_copies(loop: Loop) -> None:
    def make() -> bytes:
        kept = list[str]()
        for number in range(1000):
            with suppress(OSError):
                kept.append(os.readlink(f"/proc/self/fd/{number}"))
        return Text(lambda: " ".join(kept).encode()).text()

    (kept,) = loop.text(Text(make)).decode().split()
    assert kept.startswith("pipe:")


def test_what_fails_in_a_copy_is_an_internal_error_with_its_traceback(loop: Loop) -> None:
    def make() -> bytes:
        raise ValueError("no such text")

    with pytest.raises(RuntimeError, match=r"(?s)in make\n.*ValueError: no such text"):
        loop.text(Text(make))


def test_a_copy_that_is_killed_gives_enomem(loop: Loop) -> None:
    text = Text(forever)
    (copy,) = pipes.copies
    os.kill(copy.process, signal.SIGKILL)
    with pytest.raises(KernelError) as caught:
        loop.text(text)
    assert caught.value.errno == ENOMEM


def test_a_copy_that_is_killed_while_it_writes_gives_enomem(loop: Loop) -> None:
    text = Text(lambda: b"x" * 50_000_000)
    (copy,) = pipes.copies
    loop.turn()
    os.kill(copy.process, signal.SIGKILL)
    with pytest.raises(KernelError) as caught:
        loop.text(text)
    assert caught.value.errno == ENOMEM


def test_a_copy_ends_after_a_time(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "SECONDS", 1)
    with pytest.raises(KernelError):
        loop.text(Text(forever))


def test_a_copy_ends_with_its_reader(loop: Loop) -> None:
    text = Text(forever)
    text.close()
    text.close()
    while pipes.copies:
        loop.turn()
    text.close()


def test_all_copies_end_with_the_transport(loop: Loop) -> None:
    for _ in range(3):
        Text(forever)
    for action in loop.waiting.values():
        action()


@pytest.mark.parametrize("number", [EAGAIN, ENOMEM])
def test_a_refused_fork_is_a_plain_errno(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fork() -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(KernelError) as caught:
        Text(forever)
    assert caught.value.errno == ENOMEM


def test_a_refused_pipe_is_a_plain_errno(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def pipe() -> tuple[int, int]:
        raise OSError(EMFILE, os.strerror(EMFILE))

    monkeypatch.setattr(os, "pipe", pipe)
    with pytest.raises(KernelError) as caught:
        Text(forever)
    assert caught.value.errno == ENOMEM


def test_one_too_many_waits_for_another_to_end(loop: Loop) -> None:
    texts = [Text(forever) for _ in range(copies.MOST_COPIES)]
    with pytest.raises(Blocked) as blocked:
        Text(forever)
    woken = list[bool]()
    blocked.value.waiters.add("reader", lambda: woken.append(True))
    texts[0].close()
    while not woken:
        loop.turn()
    assert loop.text(Text(lambda: b"now")) == b"now"
    pipes.close()


def test_a_copy_waits_for_the_end_of_a_change(loop: Loop) -> None:
    with SlicedLock():
        with pytest.raises(Blocked) as blocked:
            Text(forever)
        woken = list[bool]()
        blocked.value.waiters.add("reader", lambda: woken.append(True))
        assert not woken
    assert woken
    assert loop.text(Text(lambda: b"now")) == b"now"


def test_where_children_are_reaped_by_the_kernel(loop: Loop) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert loop.text(Text(lambda: b"text")) == b"text"
    finally:
        signal.signal(signal.SIGCHLD, before)
