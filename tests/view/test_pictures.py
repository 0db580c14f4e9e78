"""The pictures of the README: `FAKESYS_PICTURES=fakesys/docs pytest tests/view/test_pictures.py`.

A shell types the story of the README; each frame is the page after a line, with that line below.
"""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from tests.long import LONG
from tests.mounts import Mount, mounted
from tests.view.browser import evaluate, look, served, wait_for
from tests.view.test_page import holds

PICTURES = os.environ.get("FAKESYS_PICTURES")
pytestmark = pytest.mark.skipif(
    not (PICTURES or LONG), reason="makes pictures: FAKESYS_PICTURES=fakesys/docs, FAKESYS_LONG=1"
)
STORY_SIZE = (1000, 470)
PAGE_SIZE = (1280, 1200)
CAPTION = 44
TABLE = "document.getElementById('table-details').open"
SECONDS_OF_A_FRAME = 2.5
U = "10000000-0000-4000-8000-000000000001"
CREATE = "devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create"
MDEV = f"devices/vfio_ap/matrix/{U}"
F = "kernel/debug/fakesys/ap"

# What is typed, what a frame says of it, and what the page shows then, by the selector of a part.
STORY: tuple[tuple[str, str, tuple[str, str]], ...] = (
    (":", "fakesys view mountpoint     # a page of the machine", ("#ap-sum", "12 queues")),
    ("echo -4,-0xab > bus/ap/aqmask", "", ("#ap-table", "vfio_ap, free: 04, ab")),
    (
        f"echo {U} > {CREATE}; echo 5 > {MDEV}/assign_adapter; echo 6 > {MDEV}/assign_adapter;"
        f" echo 4 > {MDEV}/assign_domain; echo 0xab > {MDEV}/assign_domain",
        "echo 5 > assign_adapter; echo 6 > assign_adapter; echo 4 > assign_domain; ...",
        ("#mdevs", "adapters 05-06, domains 04, ab"),
    ),
    (
        f"echo guest1 > {F}/new_guest; echo {U} > {F}/guests/guest1/attach",
        "echo $UUID > guests/guest1/attach",
        ("#ap-table", "in use by a guest: 04, ab"),
    ),
    (
        "echo +4 > bus/ap/aqmask",
        "echo +4 > bus/ap/aqmask     # write error: Address already in use",
        ("#stream-writes tbody", "EADDRINUSE"),
    ),
    (
        f"echo 6 > {F}/del_card",
        "echo 6 > del_card     # the card is pulled while the guest runs",
        ("#ap-sum", "8 queues"),
    ),
    (
        "echo linux-boot vcpus=4 name=boots > kernel/debug/fakesys/kvm/preset",
        "",
        ("#vms", "vcpu3: in guest"),
    ),
)


def type_line(shell: subprocess.Popen[str], line: str) -> None:
    """Let the shell do a line; it goes on after a refusal."""
    assert shell.stdin is not None
    shell.stdin.write(f"{line}\n")
    shell.stdin.flush()


def picture(driver: webdriver.Chrome) -> bytes:
    """The page, without what differs between two runs."""
    evaluate(driver, "document.getElementById('point').textContent = 'mountpoint'")
    # What just came is marked for a moment.
    evaluate(driver, "document.getAnimations().forEach(a => a.finish())")
    return driver.get_screenshot_as_png()


def framed(png: bytes, caption: str) -> Any:
    """A frame: the page, and below it what was typed."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.open(io.BytesIO(png)).convert("RGB")
    frame = Image.new("RGB", (page.width, page.height + CAPTION), "#1d2430")
    frame.paste(page, (0, 0))
    place = (16, page.height + CAPTION // 2)
    font = ImageFont.load_default(size=18)
    ImageDraw.Draw(frame).text(place, f"$ {caption}", "#d7f5dd", font, anchor="lm")
    return frame


def test_the_story_of_the_readme(driver: webdriver.Chrome, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    folder = Path(PICTURES) if PICTURES else tmp_path
    point = tmp_path / "machine"
    point.mkdir()
    with (
        mounted(point, scenario="default") as mount,
        served(mount.root) as address,
        shell_in(mount) as shell,
    ):
        look(driver, STORY_SIZE)
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        driver.get(address)
        frames = []
        for line, caption, (selector, words) in STORY:
            type_line(shell, line)
            # The table is there while it is open only.
            evaluate(driver, f"{TABLE} = true")
            wait_for(driver, holds(selector, words))
            evaluate(driver, f"{TABLE} = false")
            frames.append(framed(picture(driver), caption or line))
        # The last one is about a VM, which is below.
        save(frames[:-1], folder / "view-story.gif")
        look(driver, PAGE_SIZE)
        wait_for(driver, holds("#stream-writes tbody", "EADDRINUSE"))
        (folder / "view-1280-light.png").write_bytes(picture(driver))
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": False})
    assert all(path.stat().st_size > 10_000 for path in folder.glob("view-*"))


def shell_in(mount: Mount) -> subprocess.Popen[str]:
    """A shell in the mount."""
    return subprocess.Popen(
        ["bash"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=mount.root / "sys",
    )


def save(frames: list[Any], path: Path) -> None:
    """Write frames as one animation, which ends with the last one and begins again."""
    first, *others = frames
    times = [int(SECONDS_OF_A_FRAME * 1000)] * len(frames)
    first.save(path, save_all=True, append_images=others, duration=times, loop=0, optimize=True)
