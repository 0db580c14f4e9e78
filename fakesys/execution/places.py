"""Places outside `/sys` that programs look at: `/run`, `/etc/mdevctl.d`, lists of mounts, the CPU.

Everything here happens in a private mount namespace; the host's files stay as they are.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fakesys.execution.syscalls import StepError, bind, mount, tmpfs

RUN = Path("/run")
OWN = RUN / "fakesys"
# The fake as a whole, also for the command.
FAKE = OWN / "mount"
PRIVATE = OWN / "private"
MDEVCTL = Path("/etc/mdevctl.d")
UDEV_RULES = Path("/etc/udev/rules.d")
RESOLV_CONF = Path("/etc/resolv.conf")
CPUINFO = Path("/proc/cpuinfo")
# trace-cmd and the kernel's own tests of ftrace write these on their way to the fake's tracefs.
KERNEL_SETTINGS = tuple(
    Path("/proc/sys/kernel", name)
    for name in ("ftrace_enabled", "kptr_restrict", "sched_rt_runtime_us")
)
# kvm_stat takes its architecture from one of these.
VIRTUALISATION_FLAG = re.compile(r"^flags\b.*\b(vmx|svm)\b", re.MULTILINE)


def private_run(*, listens_to_udev: bool) -> None:
    """An empty `/run`, with what name resolution needs and the usual folders.

    `listens_to_udev`: programs believe that a udevd runs and wait for its events.
    Raises StepError.
    """
    resolver = _resolver()
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if not RUN.is_dir():
        raise StepError(f"{RUN} is missing")
    tmpfs(RUN)
    for folder in (RUN / "lock", RUN / "udev", FAKE, PRIVATE, OWN / "daemon"):
        folder.mkdir(parents=True, exist_ok=True)
    (RUN / "lock").chmod(0o1777)
    if listens_to_udev:
        (RUN / "udev" / "control").touch()
    if Path(session).is_relative_to(RUN):
        Path(session).mkdir(mode=0o700, parents=True, exist_ok=True)
    if resolver is not None:
        path, content = resolver
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _resolver() -> tuple[Path, bytes] | None:
    """The file of name servers and its content, when it lives in `/run`."""
    path = RESOLV_CONF.resolve()
    if not path.is_relative_to(RUN):
        return None
    try:
        return path, path.read_bytes()
    except OSError:
        return None


def private_settings() -> None:
    """Empty `/etc/mdevctl.d` and udev rules, where there are such folders. Raises StepError.

    The call-outs of mdevctl are copied: they are programs, not settings.
    """
    if MDEVCTL.is_dir():
        private = PRIVATE / "mdevctl.d"
        scripts = MDEVCTL / "scripts.d"
        if scripts.is_dir():
            shutil.copytree(scripts, private / "scripts.d")
        for folder in ("callouts", "notifiers"):
            (private / "scripts.d" / folder).mkdir(parents=True, exist_ok=True)
        bind(private, MDEVCTL)
    if UDEV_RULES.is_dir():
        (PRIVATE / "rules.d").mkdir()
        bind(PRIVATE / "rules.d", UDEV_RULES)


def prepare_debug_place(path: str, target: Path) -> None:
    """Lines `debugfs` and `tracefs` in the list of mounts, for programs that look there.

    Real ones, over which the fake's folders are bound next. Only root may mount them; for
    others a line that the host has serves as well.
    """
    fstype = {"kernel/debug": "debugfs", "kernel/tracing": "tracefs"}.get(path)
    if fstype is not None:
        with suppress(StepError):
            mount("none", target, fstype)


def devices_of_this_network() -> dict[str, Path]:
    """Where the network devices of a private network are to be seen, by their path in `/sys`.

    The machine's own `/sys` goes on showing those of the network in which it was mounted.
    """
    fresh = OWN / "network"
    fresh.mkdir()
    try:
        mount("none", fresh, "sysfs")
    except StepError:
        # Not in every user namespace; then they are the host's.
        return {}
    return {path: fresh / path for path in ("class/net", "devices/virtual/net")}


def cover_other_debug_places(fake_sys: Path) -> dict[Path, Path]:
    """Show the fake wherever the host has debugfs or tracefs outside `/sys`. Raises StepError.

    Answers these places, and what each shows.
    """
    covered = {}
    places = {"debugfs": fake_sys / "kernel/debug", "tracefs": fake_sys / "kernel/tracing"}
    for point, fstype in tuple(_mounts()):
        outside = not point.is_relative_to("/sys") and not point.is_relative_to(OWN)
        if outside and fstype in places and point.is_dir():
            bind(places[fstype], point)
            covered[point] = places[fstype]
    return covered


def _mounts() -> Iterator[tuple[Path, str]]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            point = before.split(" ")[4]
            text = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
            yield Path(text), after.split(" ")[0]


def private_kernel_settings() -> None:
    """Copies of the settings of tracing, so that those of the host stay. Raises StepError."""
    for setting in KERNEL_SETTINGS:
        if setting.exists():
            copy = PRIVATE / setting.name
            copy.write_text(setting.read_text())
            bind(copy, setting)


def cpu_with_virtualisation() -> None:
    """A `/proc/cpuinfo` with the flag `svm`, where an x86 machine shows none. Raises StepError."""
    text = CPUINFO.read_text(errors="replace")
    if VIRTUALISATION_FLAG.search(text) or not re.search(r"^flags\b", text, re.MULTILINE):
        return
    copy = PRIVATE / "cpuinfo"
    copy.write_text(re.sub(r"^(flags\b.*)$", r"\1 svm", text, flags=re.MULTILINE))
    bind(copy, CPUINFO)


@contextmanager
def records_of_the_daemon() -> Iterator[None]:
    """A daemon started in here keeps its records in the private `/run`: it is not the user's."""
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(OWN / "daemon")
    try:
        yield
    finally:
        del os.environ["XDG_RUNTIME_DIR"]
        if before is not None:
            os.environ["XDG_RUNTIME_DIR"] = before
