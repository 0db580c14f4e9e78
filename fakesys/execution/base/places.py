"""Replace files outside `/sys` that programs read: `/run`, settings of mdevctl and udev, the CPU.

Precondition of every function: the process is in a private mount namespace, so that the files of
the host stay unchanged. Directories that the host lacks exist here (`missing.py`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from fakesys.execution.base.missing import ensure_directory
from fakesys.execution.base.syscalls import StepError, bind, mount, tmpfs
from fakesys.transport.mountinfo import mount_lines

SYS = Path("/sys")
RUN = Path("/run")
OWN = RUN / "fakesys"
# The whole mount of the simulated machine; the command finds it in FAKESYS_MOUNT.
FAKE = OWN / "mount"
PRIVATE = OWN / "private"
MDEVCTL = Path("/etc/mdevctl.d")
UDEV_RULES = Path("/etc/udev/rules.d")
RESOLV_CONF = Path("/etc/resolv.conf")
CPUINFO = Path("/proc/cpuinfo")
# Control files, below the mount.
CONTROL = Path("sys/kernel/debug/fakesys")
MODULES, CMDLINE = CONTROL / "modules", CONTROL / "cmdline"
KMSG, MESSAGES = CONTROL / "kmsg", CONTROL / "messages"
# Settings that trace-cmd and the kernel's tests of ftrace write before they use tracefs.
KERNEL_SETTINGS = tuple(
    Path("/proc/sys/kernel", name)
    for name in ("ftrace_enabled", "kptr_restrict", "sched_rt_runtime_us")
)
# By one of these flags kvm_stat recognises the architecture.
VIRTUALISATION_FLAG = re.compile(r"^flags\b.*\b(vmx|svm)\b", re.MULTILINE)

# Makes the mount of the simulated machine appear on FAKE.
ShowFake = Callable[[], None]
# Finds or begins it, while the files of the host are still visible.
FindFake = Callable[[], ShowFake]


def existing_mount(mount: Path) -> ShowFake:
    """Return what binds an existing mount on FAKE. Raises StepError when it is unreachable."""
    try:
        # Kept open, because the path may lead through directories that are covered later.
        descriptor = os.open(mount, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise StepError(f"{mount}: {error.strerror}") from None

    def show() -> None:
        bind(Path(f"/proc/self/fd/{descriptor}"), FAKE)
        os.close(descriptor)

    return show


def private_run(*, listens_to_udev: bool, folder: Path) -> None:
    """Replace `/run` by an empty one with the usual directories and what name resolution needs.

    `folder`: the working directory, which is made too when it is in `/run`. With `listens_to_udev`
    programs find a udevd, and wait for its events. Raises StepError.
    """
    resolver = _resolver()
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    tmpfs(RUN)
    for usual in (RUN / "lock", RUN / "udev", FAKE, PRIVATE, OWN / "daemon"):
        usual.mkdir(parents=True, exist_ok=True)
    (RUN / "lock").chmod(0o1777)
    if listens_to_udev:
        (RUN / "udev" / "control").touch()
    if Path(session).is_relative_to(RUN):
        Path(session).mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_relative_to(RUN):
        folder.mkdir(parents=True, exist_ok=True)
    if resolver is not None:
        path, content = resolver
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _resolver() -> tuple[Path, bytes] | None:
    """Return the file of name servers and its content when it is in `/run`."""
    path = RESOLV_CONF.resolve()
    if not path.is_relative_to(RUN):
        return None
    try:
        return path, path.read_bytes()
    except OSError:
        return None


def private_settings() -> None:
    """Show empty `/etc/mdevctl.d` and `/etc/udev/rules.d`, also where the host has none.

    The call-outs of mdevctl are copied: they are programs, not settings. Raises StepError.
    """
    private = PRIVATE / "mdevctl.d"
    scripts = MDEVCTL / "scripts.d"
    if scripts.is_dir():
        _copy_programs(scripts, private / "scripts.d")
    for folder in ("callouts", "notifiers"):
        (private / "scripts.d" / folder).mkdir(parents=True, exist_ok=True)
    rules = PRIVATE / "rules.d"
    rules.mkdir()
    for own, target in ((private, MDEVCTL), (rules, UDEV_RULES)):
        ensure_directory(target, PRIVATE / "draft")
        bind(own, target)


def _copy_programs(source: Path, target: Path) -> None:
    """Copy the files in a directory and in those below it, with their modes.

    This is what `shutil.copytree` does, which takes longer to import than the copy.
    """
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.is_dir():
            _copy_programs(entry, target / entry.name)
        elif entry.is_file():
            copy = target / entry.name
            copy.write_bytes(entry.read_bytes())
            copy.chmod(stat.S_IMODE(entry.stat().st_mode))


def prepare_debug_place(path: str, target: Path) -> None:
    """Mount a debugfs or tracefs on `target`, for programs that look for it in the mount table.

    The simulated directory is bound over it next. Only root may mount these types; other users
    see the line of the host, if it has one.
    """
    fstype = {"kernel/debug": "debugfs", "kernel/tracing": "tracefs"}.get(path)
    if fstype is not None:
        with suppress(StepError):
            mount("none", target, fstype)


def show_devices_of_this_network() -> None:
    """Show the devices of the network of this process in `/sys`, instead of those of the host.

    Each sysfs shows the devices of the network namespace in which it was mounted.
    """
    fresh = OWN / "network"
    fresh.mkdir()
    # Not allowed in every user namespace; then those of the host are shown.
    with suppress(StepError):
        mount("none", fresh, "sysfs")
        for path in ("class/net", "devices/virtual/net"):
            bind(fresh / path, SYS / path)


def other_debug_places() -> dict[Path, str]:
    """Return the directories outside of /sys with a debugfs or tracefs of the host, and which."""
    return {
        point: fstype
        for point, fstype, _, _ in mount_lines(("debugfs", "tracefs"))
        if not point.is_relative_to(SYS) and point.is_dir()
    }


def cover_debug_places(others: Mapping[Path, str], fake_sys: Path) -> dict[Path, Path]:
    """Show the simulated debugfs and tracefs in these directories, and return what each shows.

    Raises StepError.
    """
    places = {"debugfs": fake_sys / "kernel/debug", "tracefs": fake_sys / "kernel/tracing"}
    covered = {point: places[fstype] for point, fstype in others.items()}
    for point, source in covered.items():
        bind(source, point)
    return covered


def private_kernel_settings() -> None:
    """Replace settings of tracing in `/proc/sys/kernel` by copies. Raises StepError."""
    for setting in KERNEL_SETTINGS:
        if setting.exists():
            copy = PRIVATE / setting.name
            copy.write_text(setting.read_text())
            bind(copy, setting)


def cpu_with_virtualisation() -> None:
    """Add the flag `svm` to `/proc/cpuinfo` of an x86 host without virtualisation.

    Raises StepError.
    """
    text = CPUINFO.read_text(errors="replace")
    if VIRTUALISATION_FLAG.search(text) or not re.search(r"^flags\b", text, re.MULTILINE):
        return
    copy = PRIVATE / "cpuinfo"
    copy.write_text(re.sub(r"^(flags\b.*)$", r"\1 svm", text, flags=re.MULTILINE))
    bind(copy, CPUINFO)


@contextmanager
def records_of_the_daemon() -> Iterator[None]:
    """Let a daemon that is started meanwhile keep its record in the private `/run`.

    Its mount exists in the private namespace only, so `fakesys status` must not list it.
    """
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(OWN / "daemon")
    try:
        yield
    finally:
        del os.environ["XDG_RUNTIME_DIR"]
        if before is not None:
            os.environ["XDG_RUNTIME_DIR"] = before
