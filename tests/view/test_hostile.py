"""A mount that lies: names which no machine has stay text in the page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from fakesys.machine.machine import Machine
from tests.view.browser import evaluate, wait_for
from tests.view.plain_mount import CONTROL, PIPES, TRACE_PIPE, VMS, PlainMount, texts_of

SERVE = """
import sys
from pathlib import Path
from fakesys.view.server import serve
serve(Path(sys.argv[1]), control=True, trace=True, say=lambda address: print(address, flush=True))
"""
HOSTILE = "<img src=x onerror=document.title='taken'>"
UUID = "10000000-0000-4000-8000-000000000001"


def lie(state: dict[str, Any]) -> None:
    """Let all that has a name or a text have this one."""
    for card in state["bus"]["cards"].values():
        card["config"] = card["driver"] = HOSTILE
    for card in state["hardware"]["cards"].values():
        card["mode"] = HOSTILE
    mdevs = state["vfio_ap"]["mdevs"]
    mdevs[HOSTILE] = {**mdevs[UUID], "guest": HOSTILE}
    state["guests"][HOSTILE] = {"mdev": None}
    state["bus"]["apmask"] = HOSTILE


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The page of such a mount."""
    machine = Machine("6.1", "default")
    machine.write("sys/bus/ap/aqmask", "-4\n")
    matrix = "sys/devices/vfio_ap/matrix"
    machine.write(f"{matrix}/mdev_supported_types/vfio_ap-passthrough/create", f"{UUID}\n")
    machine.write(f"{CONTROL}/kvm/preset", "linux-boot vcpus=2 name=boots\n")
    texts = texts_of(machine)
    for path, text in list(texts.items()):
        if path.startswith(f"{VMS}/boots/"):
            # The path has no slash in a name.
            texts[path.replace("/boots/", f"/{HOSTILE}/")] = text
    texts[f"{VMS}/{HOSTILE}/memslots"] = f"{HOSTILE}\n"
    texts[f"{VMS}/{HOSTILE}/shadow_pages"] = "0x1 <img> x <img> y <img>\n"
    texts[f"{VMS}/{HOSTILE}/vcpu0"] = "run=<img> apicv_active=<img>\n<img> 5\n"
    texts[f"{CONTROL}/last_error"] = HOSTILE
    texts[f"{CONTROL}/profile"] = f"[{HOSTILE}]"
    plain = PlainMount(tmp_path / "mnt", texts)
    plain.change_state(lie)
    line = dict.fromkeys(("comm", "call", "path", "text", "result", "why"), HOSTILE)
    plain.say(PIPES[2], json.dumps({"time": 1, "pid": 1, "uid": 1, **line}).encode() + b"\n")
    plain.say(PIPES[0], f"ACTION={HOSTILE}\nDEVPATH={HOSTILE}\n\n".encode())
    for pipe in (PIPES[1], TRACE_PIPE):
        plain.say(pipe, f"{HOSTILE}\n".encode())
    command = [sys.executable, "-c", SERVE, str(plain.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()
            plain.close()


def test_every_name_of_a_mount_that_lies(driver: webdriver.Chrome, address: str) -> None:
    driver.get(address)
    for place in (
        "#profile", "#last-error", "#mdevs code", "#mdevs dd", "#vms h3:last-of-type", "#vms",
        "#stream-writes tbody", "#stream-log tbody", "#stream-uevents tbody", "#stream-trace tbody",
    ):  # fmt: skip
        texts = (
            f"[...document.querySelectorAll({json.dumps(place)})].map(e => e.textContent).join()"
        )
        wait_for(driver, f"{texts}.includes({json.dumps(HOSTILE)})")
    evaluate(driver, "document.getElementById('table-details').open = true")
    wait_for(
        driver, f"document.getElementById('ap-table').textContent.includes({json.dumps(HOSTILE)})"
    )
    strange = "document.querySelectorAll('img, main script, main [onerror]').length"
    assert evaluate(driver, strange) == 0
    assert driver.title.startswith("fakesys ")
