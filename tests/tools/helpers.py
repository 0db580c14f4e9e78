"""Running unmodified programs: what they need, what they say."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SECONDS = 60.0
FULL = (1 << 256) - 1


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips where one of these programs is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def run(
    *command: str, env: dict[str, str] | None = None, cwd: Path | None = None, status: int = 0
) -> str:
    """The output of a program that must end with `status`; its messages where it does not."""
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, cwd=cwd, timeout=SECONDS, check=False
    )
    assert done.returncode == status, (
        f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}"
    )
    return done.stdout + done.stderr


def bits(mask: str) -> set[int]:
    """The ids in a text of a mask, whose leftmost bit is 0."""
    value = int(mask, 16)
    return {bit for bit in range(256) if value >> (255 - bit) & 1}


def need_a_line_of_debugfs() -> None:
    """Skip where `/proc/mounts` cannot have one: for a user of a host that has none mounted."""
    lines = Path("/proc/mounts").read_text().splitlines()
    if os.geteuid() != 0 and not any(line.split()[2] == "debugfs" for line in lines):
        pytest.skip("no debugfs is mounted here, and only root may mount it")
