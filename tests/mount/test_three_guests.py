"""The worked example through a real bash on a mount, compared line by line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.mounts import mounted
from tests.three_guests import KERNELS, REFUSALS, STEPS, VARIABLES

PROFILES = {"v6": "seed", "6.1": "6.1", "6.12": "6.12"}
END = "--- end of step"


def script(root: Path) -> str:
    """A shell script that does every step and marks where each ends."""
    lines = ["export LC_ALL=C"]
    for name, value in VARIABLES.items():
        prefix = "" if name.startswith("U") else f"{root}/"
        lines.append(f"{name}={prefix}{value}")
    for step in STEPS:
        lines.append(f"{{ {step.command}; }} 2>&1")
        lines.append(f"echo '{END}'")
    return "\n".join(lines) + "\n"


def answer(output: str) -> str:
    """What a step printed; of an error message only the words of the errno."""
    for refusal in REFUSALS:
        if output.endswith(f": {refusal}\n"):
            return refusal
    return output


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_command_answers_as_listed(kernel: str, transport: str, tmp_path: Path) -> None:
    profile = ("--profile", PROFILES[kernel])
    with mounted(tmp_path, *profile, scenario="default", transport=transport) as mount:
        done = subprocess.run(
            ["bash"],
            input=script(mount.root),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    answers = done.stdout.split(f"{END}\n")[:-1]
    assert done.stderr == ""
    assert len(answers) == len(STEPS)
    for step, output in zip(STEPS, answers, strict=True):
        assert answer(output) == step.expected(kernel), step.command
