"""Starting `fakesys exec`."""

from __future__ import annotations

import subprocess

from tests.mounts import COMMAND


def exec_command(
    *command: str, options: tuple[str, ...] = (), scenario: str = "selftest"
) -> list[str]:
    """The command line that runs `command`."""
    return [*COMMAND, "exec", "--scenario", scenario, *options, "--", *command]


def fakesys_exec(
    *command: str,
    options: tuple[str, ...] = (),
    scenario: str = "selftest",
    prefix: tuple[str, ...] = (),
    seconds: float = 30.0,
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end; `prefix` is put before `fakesys`."""
    return subprocess.run(
        [*prefix, *exec_command(*command, options=options, scenario=scenario)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        # A folder that every user may be in.
        cwd="/",
    )


def shell(
    script: str,
    *,
    options: tuple[str, ...] = (),
    scenario: str = "selftest",
    prefix: tuple[str, ...] = (),
) -> str:
    """The output of a shell script that must succeed."""
    done = fakesys_exec("sh", "-ec", script, options=options, scenario=scenario, prefix=prefix)
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr}"
    return done.stdout
