"""`fakesys/writers` on a real mount: shells of several users write, one program reads."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.mounts import Mount, mounted

SECONDS = 10
HOSTILE = "<b onx=1>"


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Mount]:
    folder = tmp_path_factory.mktemp(transport)
    with mounted(folder, scenario="default", transport=transport) as found:
        yield found


@pytest.fixture
def told(mount: Mount) -> Iterator[Callable[[int], list[dict[str, Any]]]]:
    """A function that waits for so many lines."""
    descriptor = os.open(mount.control / "writers", os.O_RDONLY | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    rest = b""

    def lines(count: int) -> list[dict[str, Any]]:
        nonlocal rest
        while rest.count(b"\n") < count:
            assert poll.poll(SECONDS * 1000), "waited in vain"
            rest += os.read(descriptor, 1 << 16)
        *found, rest = rest.split(b"\n")
        return [json.loads(line) for line in found]

    try:
        yield lines
    finally:
        os.close(descriptor)


def test_shells_write(mount: Mount, told: Callable[[int], list[dict[str, Any]]]) -> None:
    apmask = mount.root / "sys/bus/ap/apmask"
    shell = subprocess.Popen(["/bin/sh", "-c", f"echo -4 > {apmask}"])
    assert shell.wait(SECONDS) == 0
    (line,) = told(1)
    assert (line["pid"], line["uid"], line["comm"]) == (shell.pid, os.getuid(), "sh")
    assert (line["path"], line["text"], line["result"]) == ("sys/bus/ap/apmask", "-4\n", "ok")
    # A thread gives itself any name.
    name = f"open('/proc/self/comm', 'w').write({HOSTILE!r})"
    write = f"{name}; import os; os.write(os.open({str(apmask)!r}, os.O_WRONLY), b'nonsense')"
    python = subprocess.Popen(["python3", "-c", write], stderr=subprocess.DEVNULL)
    assert python.wait(SECONDS) == 1
    (line,) = told(1)
    assert (line["pid"], line["comm"]) == (python.pid, HOSTILE)
    assert (line["result"], bool(line["why"])) == ("EINVAL", True)


def test_a_write_that_takes_long(mount: Mount, told: Callable[[int], list[dict[str, Any]]]) -> None:
    """Others write between its slices; each line has its own writer."""
    shells = [
        subprocess.Popen(["/bin/sh", "-c", f"echo {text} > {mount.root}/{path}"])
        for path, text in (
            ("sys/kernel/debug/fakesys/clock/advance", "100000"),
            ("sys/bus/ap/poll_thread", "1"),
            ("sys/bus/ap/poll_thread", "0"),
        )
    ]
    for shell in shells:
        assert shell.wait(SECONDS) == 0
    lines = told(3)
    assert {line["pid"] for line in lines} == {shell.pid for shell in shells}
    by_pid = {line["pid"]: line["text"] for line in lines}
    assert [by_pid[shell.pid] for shell in shells] == ["100000\n", "1\n", "0\n"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root has other users")
def test_another_user(mount: Mount, told: Callable[[int], list[dict[str, Any]]]) -> None:
    path = mount.root / "sys/bus/ap/apmask"
    descriptor = os.open(path, os.O_WRONLY)
    try:
        other = subprocess.Popen(["/bin/sh", "-c", "echo -5"], stdout=descriptor, user=65534)
        assert other.wait(SECONDS) == 0
    finally:
        os.close(descriptor)
    (line,) = told(1)
    assert (line["pid"], line["uid"], line["text"]) == (other.pid, 65534, "-5\n")


def test_only_the_owner_reads_it(mount: Mount) -> None:
    assert (mount.control / "writers").stat().st_mode & 0o777 == 0o400
