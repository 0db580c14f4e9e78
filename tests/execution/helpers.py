"""Starting `fakesys exec`."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import pytest

from tests.mounts import COMMAND

T = TypeVar("T", str, bytes)

_ORDINARY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


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
    arguments = [*prefix, *exec_command(*command, options=options, scenario=scenario)]
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A folder that every user may be in.
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        finally:
            # What a failed script left running must neither stay nor keep the pipes open.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@contextmanager
def killed_at_the_end(process: subprocess.Popen[T]) -> Iterator[subprocess.Popen[T]]:
    """The process, which never outlives a test that failed."""
    with process:
        try:
            yield process
        finally:
            process.kill()


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


@functools.cache
def why_no_world() -> str | None:
    """Why `fakesys exec` cannot work on this machine; None when it must."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not usable here"
    return _no_namespaces(())


def _no_namespaces(prefix: tuple[str, ...]) -> str | None:
    """What the system itself refuses, found without fakesys."""
    own_mounts = "unshare --mount" if os.geteuid() == 0 and not prefix else "unshare -Urm"
    done = subprocess.run(
        [*prefix, *own_mounts.split(), "mount", "-t", "tmpfs", "none", "/run"],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    return None if done.returncode == 0 else f"no private namespaces: {done.stderr.strip()}"


def ordinary_user() -> tuple[str, ...]:
    """What runs a command as a user without any rights; skips where that cannot be."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user, by setpriv")
    if trouble := _ordinary_trouble():
        pytest.skip(f"not for ordinary users here: {trouble}")
    return _ORDINARY


@functools.cache
def _ordinary_trouble() -> str | None:
    reachable = subprocess.run(
        [*_ORDINARY, *COMMAND, "--version"], capture_output=True, cwd="/", check=False
    )
    if reachable.returncode != 0:
        return f"{COMMAND[0]} cannot be run by them"
    return _no_namespaces(_ORDINARY)
