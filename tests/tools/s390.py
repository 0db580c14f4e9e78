"""The distribution's own s390x programs, unpacked and run by qemu-user; nothing is installed.

No foreign architecture is added to the machine: apt works in a folder of its own, with the
machine's mirror and keyring.

    python -m tests.tools.s390 FOLDER
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.tools.kept import Unavailable

# The older name is of the statically linked one, which newer releases have alone.
QEMU = ("qemu-s390x-static", "qemu-s390x")
PROGRAMS = ("lszcrypt", "chzcrypt", "lszdev", "chzdev")
# The oldest release whose zdev knows `--type ap`.
SUITE = "trixie"
# The C library of the cross compilers: unlike libc6 it never changes within a release, so that
# a mirror whose list is newer than its files has it too.
PACKAGES = ("s390-tools", "libjson-c5", "libc6-s390x-cross")
CROSS = "usr/s390x-linux-gnu/lib"
LIBRARIES = "usr/lib/s390x-linux-gnu"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SECONDS = 120


def command(root: Path, program: str) -> list[str]:
    """How to run one of the programs below `root`."""
    qemu = next(filter(shutil.which, QEMU), QEMU[0])
    return [qemu, "-L", str(root), str(root / "usr/sbin" / program)]


def unpacked(folder: Path) -> Path:
    """The folder with the unpacked programs, fetched at the first time. Raises Unavailable."""
    root = folder / "root"
    if not any(map(shutil.which, QEMU)):
        raise Unavailable(f"{' or '.join(QEMU)} is not installed")
    if not root.is_dir():
        _require_tools()
        draft = folder / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        _fetch(folder / "apt", draft)
        _arrange_libraries(draft)
        draft.rename(root)
    return root


def _require_tools() -> None:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed")
    if not KEYRING.exists():
        raise Unavailable(f"{KEYRING} is missing: not a Debian system")


def _mirror() -> str:
    """The first mirror in apt's own sources."""
    folder = Path("/etc/apt")
    for place in (*sorted(folder.glob("sources.list.d/*")), folder / "sources.list"):
        text = place.read_text() if place.is_file() else ""
        found = re.search(r"^(?:URIs:|deb\b[^\n]*?)\s*(\S+://\S+)", text, re.MULTILINE)
        if found:
            return found[1]
    raise Unavailable("apt has no mirror")


def _fetch(apt: Path, target: Path) -> None:
    shutil.rmtree(apt, ignore_errors=True)
    for folder in ("etc/preferences.d", "state/lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    source = f"deb [signed-by={KEYRING} arch=s390x] {_mirror()} {SUITE} main\n"
    (apt / "etc/sources.list").write_text(source)
    configuration = apt / "apt.conf"
    configuration.write_text("\n".join(_settings(apt)))
    archives = apt / "cache/archives"
    environment = {"APT_CONFIG": str(configuration), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    _run(["apt-get", "-qq", "update"], archives, environment)
    _run(["apt-get", "-qq", "download", *PACKAGES], archives, environment)
    target.mkdir(parents=True)
    for package in archives.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(package), str(target)], archives, environment)
    shutil.rmtree(apt)


def _settings(apt: Path) -> Iterator[str]:
    yield 'APT::Architecture "s390x";'
    yield 'APT::Architectures { "s390x"; };'
    yield 'APT::Sandbox::User "root";'
    yield 'Acquire::Languages "none";'
    yield f'Dir::Etc "{apt}/etc";'
    yield f'Dir::State "{apt}/state";'
    yield f'Dir::State::status "{apt}/status";'
    yield f'Dir::Cache "{apt}/cache";'


def _run(arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{arguments[0]} did not end") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["failed"]
        raise Unavailable(f"{' '.join(arguments[:3])}: {lines[-1]}")


def _arrange_libraries(root: Path) -> None:
    """All libraries where a program of a whole s390x system looks for them."""
    for library in (root / CROSS).iterdir():
        if not library.is_dir():
            library.rename(root / LIBRARIES / library.name)
    (root / "usr/lib/ld64.so.1").symlink_to("s390x-linux-gnu/ld64.so.1")
    for name in ("lib", "bin", "sbin"):
        if not (root / name).exists() and (root / "usr" / name).is_dir():
            (root / name).symlink_to(f"usr/{name}")


if __name__ == "__main__":
    print(unpacked(Path(sys.argv[1]).absolute()))
