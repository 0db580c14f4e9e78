"""Running unmodified programs: what they need, what they say."""

from __future__ import annotations

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
