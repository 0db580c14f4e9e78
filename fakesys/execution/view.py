"""The steps from an ordinary process to one whose `/sys` shows the simulated machine.

`enter` first, then `exec_command`. Between them the process may only start the relay: its file
descriptors and threads must be those that the command is to have.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from fakesys.execution import namespace, places
from fakesys.execution.join import Join
from fakesys.execution.rebind import Rebinder
from fakesys.execution.syscalls import StepError, bind, move, tmpfs

SYS = Path("/sys")
# The mount point of the joined /sys until it is complete.
DRAFT = places.OWN / "sys"

# Makes the mount of the simulated machine appear where FindFake was told.
ShowFake = Callable[[], None]
# Takes the directory where the mount is to appear, and does all that needs the host's files.
FindFake = Callable[[Path], ShowFake]


def enter(*, network: bool, find_fake: FindFake) -> Rebinder:
    """Move this process into its private view and return what keeps its binds in line.

    `find_fake` is called in the new namespaces while the files of the host are still visible; what
    it returns is called after `/run` was replaced. Raises StepError.
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
    return Rebinder(fake, SYS, others)


def existing_mount(mount: Path, target: Path) -> ShowFake:
    """Return what binds an existing mount on `target`. Raises StepError when it is unreachable."""
    try:
        # Kept open, because the path may lead through directories that are covered later.
        descriptor = os.open(mount, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise StepError(f"{mount}: {error.strerror}") from None

    def show() -> None:
        bind(Path(f"/proc/self/fd/{descriptor}"), target)
        os.close(descriptor)

    return show


def environment() -> dict[str, str]:
    """Return the environment of the command."""
    return {
        **os.environ,
        "FAKESYS_MOUNT": str(places.FAKE),
        # Without it libudev refuses devices that are not on a real sysfs.
        "SYSTEMD_DEVICE_VERIFY_SYSFS": "0",
        "TRACEFS_PATH": "/sys/kernel/tracing",
    }


def exec_command(command: list[str]) -> NoReturn:
    """Replace this process by the command. Raises OSError when it cannot be run."""
    # Python ignores these two, and a signal that is ignored stays so after execve(2).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execvpe(command[0], command, environment())
