"""The guided example of `fakesys doc avic`: a shell gets what the page says."""

from __future__ import annotations

import re
import subprocess
from importlib.resources import files
from pathlib import Path

from tests.avic_kit import KERNELS
from tests.mounts import mounted

GUIDE = (files("fakesys") / "docs" / "avic.md").read_text()
END = "-- end of what it says --"


def steps() -> list[tuple[str, str]]:
    """Each line that a user types, and what it prints."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", GUIDE, re.DOTALL))
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", blocks, re.MULTILINE)


def test_the_guided_example(tmp_path: Path) -> None:
    typed = steps()
    assert len(typed) > 20
    with mounted(tmp_path, scenario="default") as mount:
        script = f"cd {mount.root}/sys/kernel\n"
        script += "".join(f"{command}\necho '{END}'\n" for command, _ in typed)
        done = subprocess.run(
            ["bash"], input=script, capture_output=True, text=True, timeout=60, check=False
        )
    said = done.stdout.split(f"{END}\n")[:-1]
    assert list(zip((command for command, _ in typed), said, strict=True)) == typed
    assert done.stderr == ""


def test_the_page_speaks_of_every_kernel() -> None:
    for kernel in KERNELS:
        assert f"`{kernel}`" in GUIDE
