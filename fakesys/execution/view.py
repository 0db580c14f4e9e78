"""The steps from an ordinary process to one whose `/sys` shows the simulated machine.

`enter` first, then `exec_command`. Between them the process does nothing: its file descriptors and
threads must be those that the command is to have.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from fakesys.execution import kernel_files, namespace
from fakesys.execution.base import places
from fakesys.execution.base.missing import ensure_directory_of_root
from fakesys.execution.base.syscalls import StepError, bind, move, share_mounts, tmpfs
from fakesys.execution.join import Join
from fakesys.execution.modules.places import PROGRAMS, private_modules
from fakesys.execution.namespace import Confinement
from fakesys.execution.nodes import private_dev
from fakesys.execution.protection import protect_host
from fakesys.execution.rebind import Rebinder
from fakesys.execution.relay import Relay
from fakesys.execution.requests import seccomp

SYS = Path("/sys")
# The mount point of the joined /sys until it is complete.
DRAFT = places.OWN / "sys"

# Makes the mount of the simulated machine appear where FindFake was told.
ShowFake = Callable[[], None]
# Takes the directory where the mount is to appear, and does all that needs the host's files.
FindFake = Callable[[Path], ShowFake]


def enter(*, network: bool, for_udevd: bool, host_writable: bool, find_fake: FindFake) -> None:
    """Move this process into its private view, of which the relay takes care from then on.

    `find_fake` is called in the new namespaces while the files of the host are still visible; what
    it returns is called after `/run` was replaced. With `host_writable` the process keeps its
    rights over the host and its part of the view. Raises StepError, OSError.
    """
    folder = _working_directory()
    namespace.enter()
    ensure_directory_of_root(places.RUN)
    show_fake = find_fake(places.FAKE)
    confinement = None if host_writable else namespace.Confinement()
    places.private_run(listens_to_udev=network, folder=folder)
    if not host_writable:
        protect_host()
    show_fake()
    rebinder = _show(places.FAKE / "sys", host_writable=host_writable)
    _part_from_relay(rebinder, confinement, network=network, for_udevd=for_udevd)
    if network:
        namespace.raise_loopback()
    _enter_by_name(folder)


def _show(fake: Path, *, host_writable: bool) -> Rebinder:
    """Make all binds of the view, and return what keeps them in line."""
    DRAFT.mkdir()
    tmpfs(DRAFT)
    Join(fake, SYS, DRAFT, prepare=places.prepare_debug_place).run()
    others = places.cover_other_debug_places(fake)
    move(DRAFT, SYS)
    DRAFT.rmdir()
    places.private_settings()
    places.private_kernel_settings()
    places.cpu_with_virtualisation()
    nodes = private_dev()
    others |= kernel_files.show()
    if not host_writable:
        private_modules()
    return Rebinder(fake, SYS, others, nodes)


def _part_from_relay(
    rebinder: Rebinder, confinement: Confinement | None, *, network: bool, for_udevd: bool
) -> None:
    """Start the relay, which keeps the rights of this process, and give them up."""
    command = os.getpid()

    def set_up() -> None:
        if confinement is not None:
            namespace.map_ids(command)
        if network:
            namespace.join_network(command)
            places.show_devices_of_this_network()

    # What the relay binds later must appear in the mounts of the command too.
    share_mounts()
    relay = Relay(
        places.FAKE,
        set_up=set_up,
        refresh=rebinder.refresh,
        network=network,
        for_udevd=for_udevd,
    )
    if confinement is not None:
        confinement.unshare_ids(network=network)
    elif network:
        namespace.unshare_network()
    relay.go()
    listener = None
    if confinement is not None:
        confinement.unshare_mounts()
        listener = seccomp.watch()
    relay.leave_calls_to(listener)


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise StepError(f"the working directory: {error.strerror}") from None


def _enter_by_name(folder: Path) -> None:
    """Leave the directory of the host for the one that has this name in the view."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise StepError(
            f"the working directory {folder} is not in the private view: {error.strerror}"
        ) from None


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
    path = os.environ.get("PATH", os.defpath)
    return {
        **os.environ,
        **({"PATH": f"{PROGRAMS}:{path}"} if PROGRAMS.is_dir() else {}),
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
