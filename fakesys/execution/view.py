"""The steps from an ordinary process to one whose `/sys` shows the simulated machine.

`enter` first, then `exec_command`. Between them the process does nothing: its file descriptors and
threads must be those that the command is to have.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from fakesys.execution import kernel_files, namespace, nodes
from fakesys.execution.base import places
from fakesys.execution.base.missing import ensure_directory_of_root
from fakesys.execution.base.places import ShowFake
from fakesys.execution.base.syscalls import StepError, move, share_mounts, tmpfs
from fakesys.execution.join import Join
from fakesys.execution.modules.places import PROGRAMS, private_module_settings, private_modules
from fakesys.execution.namespace import Confinement
from fakesys.execution.protection import protect_host
from fakesys.execution.rebind import Rebinder
from fakesys.execution.relay import Relay
from fakesys.execution.requests import seccomp

SYS = Path("/sys")
# The mount point of the joined /sys until it is complete.
DRAFT = places.OWN / "sys"


def enter(*, network: bool, for_udevd: bool, host_writable: bool, show_fake: ShowFake) -> None:
    """Move this process into its private view, of which the relay takes care from then on.

    Precondition: `namespace.enter` was called. `show_fake` makes the machine's mount appear, for
    which it may have to wait: so it is called after everything that needs no machine. With
    `host_writable` the process keeps its rights over the host and its part of the view.
    Raises StepError, OSError.
    """
    folder = _working_directory()
    ensure_directory_of_root(places.RUN)
    confinement = None if host_writable else namespace.Confinement()
    places.private_run(listens_to_udev=network, folder=folder)
    if not host_writable:
        protect_host()
    join = Join(places.FAKE / "sys", SYS, DRAFT, prepare=places.prepare_debug_place)
    other_places = places.other_debug_places()
    _cover_host(join, host_writable=host_writable)
    show_fake()
    rebinder = _show(join, other_places, host_writable=host_writable)
    _part_from_relay(rebinder, confinement, network=network, for_udevd=for_udevd)
    if network:
        namespace.raise_loopback()
    _enter_by_name(folder)


def _cover_host(join: Join, *, host_writable: bool) -> None:
    """Replace what needs no machine."""
    DRAFT.mkdir()
    tmpfs(DRAFT)
    join.show_host()
    places.private_settings()
    places.private_kernel_settings()
    places.cpu_with_virtualisation()
    nodes.private_dev()
    kernel_files.show_symbols()
    if not host_writable:
        private_module_settings()


def _show(join: Join, other_places: Mapping[Path, str], *, host_writable: bool) -> Rebinder:
    """Show the machine in the view, and return what keeps it in line.

    `other_places`: where debugfs and tracefs of the host are covered, outside of /sys.
    """
    join.show_fake()
    fake = places.FAKE / "sys"
    others = places.cover_debug_places(other_places, fake)
    move(DRAFT, SYS)
    DRAFT.rmdir()
    devices = nodes.DeviceNodes()
    devices.refresh()
    others |= kernel_files.show()
    if not host_writable:
        private_modules()
    return Rebinder(fake, SYS, join.bound, others, devices)


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
