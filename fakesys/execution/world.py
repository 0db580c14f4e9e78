"""The steps from an ordinary process to one that sees the fake as its `/sys`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from fakesys.execution import namespace, places
from fakesys.execution.join import Join
from fakesys.execution.keep import Keeper
from fakesys.execution.syscalls import StepError, bind, move, tmpfs

SYS = Path("/sys")
# The joined /sys while it is made.
DRAFT = places.OWN / "sys"

# Makes the fake appear.
ShowFake = Callable[[], None]
# Takes the folder where it is to appear.
FindFake = Callable[[Path], ShowFake]


def build(*, network: bool, find_fake: FindFake) -> Keeper:
    """Move this process into its private world; what keeps its `/sys` true. Raises StepError.

    `find_fake` is called inside it, while all of the host is still to be seen.
    """
    namespace.enter(network=network)
    show_fake = find_fake(places.FAKE)
    places.private_run(listens_to_udev=network)
    show_fake()
    fake = places.FAKE / "sys"
    DRAFT.mkdir()
    tmpfs(DRAFT)
    instead = places.devices_of_this_network() if network else {}
    Join(fake, SYS, DRAFT, prepare=places.prepare_debug_place, instead=instead).run()
    others = places.cover_other_debug_places(fake)
    move(DRAFT, SYS)
    DRAFT.rmdir()
    places.private_settings()
    places.private_kernel_settings()
    places.cpu_with_virtualisation()
    return Keeper(fake, SYS, others)


def existing_mount(mount: Path, target: Path) -> ShowFake:
    """What shows a mount that is there already. Raises StepError when it cannot be reached."""
    try:
        # Kept open: the path may lead through folders that are covered later.
        descriptor = os.open(mount, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise StepError(f"{mount}: {error.strerror}") from None

    def show() -> None:
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
