"""Eight processes race mask writes against assigns: one winner each time, nothing ever shared.

`FAKESYS_RACE_ROUNDS` sets how often; the default is small.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.mounts import Mount, mounted, wait_until

ROUNDS = int(os.environ.get("FAKESYS_RACE_ROUNDS", "50"))
PROCESSES = 8
MATRIX = "sys/devices/vfio_ap/matrix"
TYPE = f"{MATRIX}/mdev_supported_types/vfio_ap-passthrough"
APMASK = "sys/bus/ap/apmask"
AP = "sys/kernel/debug/fakesys/ap"


@pytest.fixture
def root(tmp_path: Path, transport: str) -> Iterator[Path]:
    with mounted(tmp_path, scenario="default", transport=transport) as mount:
        yield mount.root


@pytest.fixture
def mount(tmp_path: Path, transport: str) -> Iterator[Mount]:
    with mounted(tmp_path, scenario="default", transport=transport) as mount:
        yield mount


def write(path: Path, text: str) -> int:
    """One write(2); 0 or the errno."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        return error.errno or -1
    finally:
        os.close(descriptor)
    return 0


def uuid_of(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


def racer(root: Path, number: int, link: Connection) -> None:
    """Play one part each round: even numbers write the mask, odd ones assign to their mdev."""
    mdev = root / MATRIX / uuid_of(number)
    while link.recv():
        if number % 2 == 0:
            link.send(write(root / APMASK, "+5"))
        else:
            link.send(write(mdev / "assign_adapter", "5"))


def shared_queues(root: Path) -> list[str]:
    """Queues that are in two matrices, or in one and the host's."""
    seen: dict[str, str] = {}
    wrong = []
    for number in range(1, PROCESSES, 2):
        for queue in (root / MATRIX / uuid_of(number) / "matrix").read_text().split():
            if len(queue) != len("05.0004"):
                continue
            if queue in seen:
                wrong.append(f"{queue} in {seen[queue]} and {number}")
            seen[queue] = str(number)
    for queue in seen:
        driver = root / f"sys/bus/ap/drivers/cex4queue/{queue}"
        if os.path.lexists(driver):
            wrong.append(f"{queue} is the host's")
    return wrong


def test_exactly_one_wins(root: Path) -> None:
    for number in range(1, PROCESSES, 2):
        assert write(root / TYPE / "create", uuid_of(number)) == 0
        assert write(root / MATRIX / uuid_of(number) / "assign_domain", "4") == 0
    context = multiprocessing.get_context("fork")
    links, workers = [], []
    for number in range(PROCESSES):
        ours, theirs = context.Pipe()
        worker = context.Process(target=racer, args=(root, number, theirs), daemon=True)
        worker.start()
        links.append(ours)
        workers.append(worker)
    winners = set()
    try:
        for _ in range(ROUNDS):
            assert write(root / APMASK, "-5") == 0
            for link in links:
                link.send(True)
            results = [link.recv() for link in links]
            winners.add(check_round(root, results))
            for number in range(1, PROCESSES, 2):
                assert write(root / MATRIX / uuid_of(number) / "unassign_adapter", "5") == 0
    finally:
        for link in links:
            link.send(False)
        for worker in workers:
            worker.join(5)
    assert winners <= {"host", *range(1, PROCESSES, 2)}


def check_round(root: Path, results: list[int]) -> object:
    """Either the masks won and every assign failed, or one assign won and the masks failed."""
    masks = {results[number] for number in range(0, PROCESSES, 2)}
    assigns = [results[number] for number in range(1, PROCESSES, 2)]
    assert shared_queues(root) == []
    if masks == {0}:
        assert set(assigns) == {errno.EADDRNOTAVAIL}
        return "host"
    assert masks == {errno.EADDRINUSE}
    assert sorted(assigns) == sorted([0] + [errno.EADDRINUSE] * (len(assigns) - 1))
    return 1 + 2 * assigns.index(0)


def test_a_blocked_remove_holds_up_nobody_else(mount: Mount) -> None:
    root, uuid = mount.root, uuid_of(1)
    assert write(root / TYPE / "create", uuid) == 0
    for path, text in (
        (f"{AP}/new_guest", "g"),
        (f"{AP}/guests/g/attach", uuid),
        (f"{AP}/remove_policy", "block"),
    ):
        assert write(root / path, text) == 0
    target = root / MATRIX / uuid / "remove"
    with subprocess.Popen(["bash", "-c", f"echo 1 > {target}"]) as process:
        wait_until(lambda: sleeping(process.pid))
        assert (root / APMASK).read_text().startswith("0xffff")
        assert write(root / TYPE / "create", uuid_of(2)) == 0
        assert process.poll() is None
        assert write(root / AP / "guests/g/detach", "1") == 0
        assert process.wait(5) == 0
    assert not target.exists()


def test_no_signal_ends_a_blocked_remove(mount: Mount) -> None:
    root, uuid = mount.root, uuid_of(1)
    assert write(root / TYPE / "create", uuid) == 0
    assert write(root / AP / "new_guest", "g") == 0
    assert write(root / AP / "guests/g/attach", uuid) == 0
    assert write(root / AP / "remove_policy", "block") == 0
    target = root / MATRIX / uuid / "remove"
    with subprocess.Popen(["bash", "-c", f"echo 1 > {target}"]) as process:
        wait_until(lambda: not os.path.lexists(root / "sys/bus/mdev/devices" / uuid))
        wait_until(lambda: sleeping(process.pid))
        process.terminate()
        waits = f"{uuid}: Device is currently in use, task"
        wait_until(lambda: waits in (root / AP / "log").read_text())
        assert process.poll() is None
        assert not target.exists()
        assert write(root / AP / "guests/g/detach", "1") == 0
        assert process.wait(5) == -signal.SIGTERM
    assert not target.parent.exists()


def sleeping(pid: int) -> bool:
    """Does the process wait for an answer of the mount?"""
    name = Path(f"/proc/{pid}/wchan").read_text()
    return name in ("request_wait_answer", "fuse_simple_request")
