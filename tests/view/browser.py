"""A browser without a window, and the page of a mount in it."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.mounts import COMMAND
from tests.tools.kept import Unavailable, kept

AXE = "axe-core@4.11.0"
WIDE, NARROW = (1280, 1400), (400, 1400)
READY_SECONDS = 10.0


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Debian's chromium. Raises Unavailable without it."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        raise Unavailable("no chromium with chromedriver: apt-get install chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield found
    finally:
        found.quit()


def look(driver: webdriver.Chrome, size: tuple[int, int], scheme: str = "light") -> None:
    """Give the window a size and a scheme of colours."""
    width, height = size
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def evaluate(driver: webdriver.Chrome, expression: str) -> Any:
    """The value of an expression in the page, which its Content-Security-Policy does not limit."""
    asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
    found = driver.execute_cdp_cmd("Runtime.evaluate", asked)
    assert "exceptionDetails" not in found, found
    return found["result"].get("value")


def wait_for(driver: webdriver.Chrome, expression: str, seconds: float = 20.0) -> float:
    """Wait until an expression is true; return how long that took."""
    began = time.monotonic()
    while not evaluate(driver, expression):
        assert time.monotonic() - began < seconds, f"waited in vain for {expression}"
        time.sleep(0.01)
    return time.monotonic() - began


@contextmanager
def served(*words: str | Path) -> Iterator[str]:
    """`fakesys view` of a mount, with options; its address."""
    command = [*COMMAND, "view", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), address
            yield address
        finally:
            process.terminate()
            assert process.wait(READY_SECONDS) in (0, -15, 143)


def axe() -> str:
    """The script of axe-core: from npm, or an older one that comes with a library for tests."""
    try:
        with kept(AXE) as folder:
            script = folder / "axe.min.js"
            if not script.exists():
                _fetch(folder)
            return script.read_text()
    except Unavailable:
        return files("axe_core_python").joinpath("axe.min.js").read_text()


def _fetch(folder: Path) -> None:
    if shutil.which("npm") is None:
        raise Unavailable("no npm: apt-get install npm")
    done = subprocess.run(
        ["npm", "pack", AXE], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise Unavailable(f"npm pack {AXE} failed: {done.stderr.strip()[-200:]}")
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        (folder / "axe.min.js").write_bytes(member.read())


def logged(driver: webdriver.Chrome) -> list[Any]:
    """What the browser has logged since it was asked last."""
    return list(driver.get_log("browser"))  # type: ignore[no-untyped-call]
