"""The steps from an ordinary process to one that sees the fake as its `/sys`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from fakesys.execution import namespace, places
from fakesys.execution.join import Join
from fakesys.execution.syscalls import StepError, bind, move, tmpfs

SYS = Path("/sys")
# The joined /sys while it is made.
DRAFT = places.OWN / "sys"


def build(*, network: bool, show_fake: Callable[[Path], None]) -> None:
    """Move this process into its private world. Raises StepError.

    `show_fake` is called inside it, to make the fake appear in the folder that it is given.
    """
    namespace.enter(network=network)
    places.private_run(listens_to_udev=network)
    show_fake(places.FAKE)
    fake = places.FAKE / "sys"
    DRAFT.mkdir()
    tmpfs(DRAFT)
    Join(fake, SYS, DRAFT, places.prepare_debug_place).run()
    places.cover_other_debug_places(fake)
    move(DRAFT, SYS)
    DRAFT.rmdir()
    places.private_settings()
    places.cpu_with_virtualisation()


def existing_mount(mount: Path) -> Callable[[Path], None]:
    """What shows a mount that is there already. Raises StepError when it is none."""
    try:
        # Kept open: the path may lead through folders that are private later.
        descriptor = os.open(mount, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise StepError(f"{mount}: {error.strerror}") from None

    def show(target: Path) -> None:
        bind(Path(f"/proc/self/fd/{descriptor}"), target)
        os.close(descriptor)

    return show


def environment() -> dict[str, str]:
    """The environment of the command."""
    return {
        **os.environ,
        "FAKESYS_MOUNT": str(places.FAKE),
        # libudev refuses devices outside real sysfs, which FUSE can never be.
        "SYSTEMD_DEVICE_VERIFY_SYSFS": "0",
        "TRACEFS_PATH": "/sys/kernel/tracing",
    }


def become(command: list[str]) -> NoReturn:
    """Run the command in place of this process. Raises OSError when it cannot be run."""
    # Python ignores these for itself; an ignored signal stays ignored after execve().
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execvpe(command[0], command, environment())
