"""`fakesys view` as a program, asked by clients that are no browser."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tests.long import LONG
from tests.mounts import Mount, fakesys
from tests.view.browser import served
from tests.view.client import Client, connected

LINE = "x" * 300


def log(mount: Mount, *lines: str) -> None:
    """Log lines, each by a write."""
    descriptor = os.open(mount.control / "kmsg", os.O_WRONLY)
    try:
        for line in lines:
            os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def has_logged(line: str) -> Callable[[Client], object]:
    """A condition: this is among the last lines of the log."""
    return lambda client: any(line in cells[0] for cells in client.lines.get("log", ())[-5:])


def test_a_client_that_does_not_read(mount: Mount) -> None:
    """It holds up none, and gets the state of now with the last lines, no backlog."""
    bursts = 40 if LONG else 8
    with served(mount.root) as address, connected(address) as quick:
        quick.take(lambda client: "ap/masks" in client.values)
        with connected(address, room=4096) as slow:
            slow.take(lambda client: "ap/masks" in client.values)
            for number in range(bursts):
                # More than the server keeps of a stream.
                log(mount, *[f"{LINE} {number}"] * 600, f"end {number}")
                (mount.root / "sys/bus/ap/apmask").write_text(f"{'+-'[number % 2]}0x10\n")
                quick.take(has_logged(f"end {number}"))
            taken = slow.messages
            slow.take(has_logged(f"end {bursts - 1}"))
            assert slow.missed["log"] > 600 * (bursts - 6)
            assert slow.messages - taken <= 8
            slow.take(lambda client: client.values["ap/masks"] == quick.values["ap/masks"])


def test_a_machine_for_the_page(tmp_path: Path) -> None:
    with served("--scenario", "vfio-ap-three-guests") as address, connected(address) as client:
        client.take(lambda client: "ap/masks" in client.values)
        assert any(key.startswith("ap/card/") for key in client.values)
        point = Path(client.values["mount/point"])
        assert point.is_mount()
    assert not point.is_mount()


def test_trace_events_are_taken(mount: Mount) -> None:
    tracing = mount.root / "sys/kernel/tracing"
    with served(mount.root, "--trace") as address, connected(address) as client:
        client.take(lambda client: "mount/point" in client.values)
        (tracing / "trace_marker").write_text("a mark\n")
        client.take(lambda client: client.lines.get("trace"))
        assert "a mark" in client.lines["trace"][0][0]


def test_a_port_that_is_taken_and_no_mount(mount: Mount, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = fakesys("view", str(mount.root), "--port", str(other.getsockname()[1]))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "in use" in done.stderr
    done = fakesys("view", str(tmp_path))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    done = fakesys("view", "--scenario", "no-such")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


def test_a_write_reaches_the_page_soon(mount: Mount) -> None:
    """A bound against hanging here; `python -m tests.bench page_shows_soon` has the time."""
    create = "mdev_supported_types/vfio_ap-passthrough/create"
    uuid = "10000000-0000-4000-8000-000000000001"
    matrix = mount.root / "sys/devices/vfio_ap/matrix"
    (mount.root / "sys/bus/ap/aqmask").write_text("-4\n")
    (matrix / create).write_text(uuid)
    with served(mount.root) as address, connected(address) as client:
        client.take(lambda client: f"ap/mdev/{uuid}" in client.values)
        before = time.monotonic()
        (matrix / uuid / "assign_adapter").write_text("5\n")
        client.take(lambda client: _adapters(client, uuid) == "0x04")
        assert time.monotonic() - before < 10


def _adapters(client: Client, uuid: str) -> str:
    return str(client.values[f"ap/mdev/{uuid}"]["matrix"][0])[:4]
