"""A process that goes into the background: what it says, what it sees, and when nobody waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fakesys.daemon import background
from fakesys.daemon.background import Ready, Refused, Starting
from fakesys.transport import processes
from tests.mounts import wait_until

Serve = Callable[[Ready], None]


def told(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def tell(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(f"{text}\n")


def test_its_pid_comes_once_it_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notes = tmp_path / "notes"

    def prepare() -> Serve:
        tell(notes, f"prepared in {os.getcwd()}")
        return serve

    def serve(ready: Ready) -> None:
        tell(notes, f"serves in {os.getcwd()}, input {os.readlink('/proc/self/fd/0')}")
        tell(notes, f"session of its own: {os.getsid(0) != parent}")
        tell(notes, str(os.getpid()))
        ready()

    parent = os.getsid(0)
    pid = background.start(prepare)
    assert told(notes) == [
        f"prepared in {tmp_path}",
        "serves in /, input /dev/null",
        "session of its own: True",
        str(pid),
    ]


@pytest.mark.parametrize("where", ["prepare", "serve"])
def test_a_refusal_arrives_with_its_status(where: str) -> None:
    def prepare() -> Serve:
        if where == "prepare":
            raise Refused("no such scenario", 2)
        return serve

    def serve(_ready: Ready) -> None:
        raise Refused("no such scenario", 2)

    with pytest.raises(Refused, match=r"^no such scenario$") as caught:
        background.start(prepare)
    assert caught.value.status == 2


@pytest.mark.parametrize("where", ["prepare", "serve"])
def test_a_death_without_a_word_is_a_refusal(where: str) -> None:
    def prepare() -> Serve:
        if where == "prepare":
            os._exit(0)
        return serve

    def serve(_ready: Ready) -> None:
        os._exit(0)

    with pytest.raises(Refused, match="died at start") as caught:
        background.start(prepare)
    assert caught.value.status == 1


def test_a_process_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "START_SECONDS", 0.05)
    reader, writer = os.pipe()

    def prepare() -> Serve:
        os.close(writer)
        os.read(reader, 1)
        return lambda ready: ready()

    with pytest.raises(Refused, match="died at start"):
        background.start(prepare)
    os.close(reader)
    os.close(writer)


def test_it_does_not_serve_when_nobody_waits_any_more(tmp_path: Path) -> None:
    """As after Ctrl-C: nothing must be mounted behind the back of whoever pressed it."""
    notes = tmp_path / "notes"
    reader, writer = os.pipe()

    def prepare() -> Serve:
        os.close(writer)
        tell(notes, str(os.getpid()))
        os.read(reader, 1)
        return lambda _ready: tell(notes, "serves")

    child = os.fork()
    if child == 0:
        background.start(prepare)
        os._exit(0)
    wait_until(lambda: len(told(notes)) == 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(writer)
    os.close(reader)
    wait_until(lambda: not processes.is_alive(int(told(notes)[0])))
    assert "serves" not in told(notes)


def test_the_steps_may_be_apart(tmp_path: Path) -> None:
    notes = tmp_path / "notes"

    def prepare() -> Serve:
        return serve

    def serve(ready: Ready) -> None:
        tell(notes, "serves")
        ready()

    starting = Starting(prepare)
    starting.prepared()
    assert told(notes) == []
    assert starting.serve() > 0
    assert told(notes) == ["serves"]
