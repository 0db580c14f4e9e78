"""The guides along the three series, and of the AP queues: a shell gets what the pages say."""

from __future__ import annotations

import re
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from fakesys.machine.kernels.ap import AP_KERNELS
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.machine.kernels.mmu import MMU_KERNELS
from tests.mounts import mounted

END = "-- end of what it says --"
GUIDES = {name: (files("fakesys") / "docs" / f"{name}.md").read_text() for name in ("ap", "series")}


def steps(guide: str) -> list[tuple[str, str]]:
    """Each line that a user types, and what it prints."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", guide, re.DOTALL))
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", blocks, re.MULTILINE)


@pytest.mark.parametrize("name", GUIDES)
def test_the_guide_is_typed(name: str, tmp_path: Path) -> None:
    typed = steps(GUIDES[name])
    assert len(typed) > 40
    with mounted(tmp_path, scenario="default") as mount:
        script = f"cd {mount.root}/sys\n"
        script += "".join(f"{command}\necho '{END}'\n" for command, _ in typed)
        done = subprocess.run(
            ["bash"], input=script, capture_output=True, text=True, timeout=180, check=False
        )
        assert mount.bugs() == 0
    said = done.stdout.split(f"{END}\n")[:-1]
    assert list(zip((command for command, _ in typed), said, strict=True)) == typed
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("prefix", "count"),
    [
        ("v6", AP_KERNELS.series.count),
        ("v3", APICV_KERNELS.series.count),
        ("series", MMU_KERNELS.series.count),
    ],
)
def test_the_guide_speaks_of_every_patch(prefix: str, count: int) -> None:
    part = next(text for text in GUIDES["series"].split("\n## ") if f"{prefix}-01" in text
                or (prefix == "v3" and text.startswith("Interrupts")))  # fmt: skip
    told = {int(number) for number in re.findall(r"\b(?:0[1-9]|1\d)\b", part)}
    assert set(range(1, count + 1)) <= told
