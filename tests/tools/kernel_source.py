"""Programs that come with the kernel's source, taken from the distribution's package of it.

Nothing is installed: the package is fetched once into a cache and a few folders are unpacked.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.tools.kept import Unavailable

SECONDS = 300
NEEDED = ("apt-get", "apt-cache", "dpkg-deb", "xz", "bzip2", "tar")
KVM_STAT = "tools/kvm/kvm_stat"
FTRACETEST = "tools/testing/selftests/ftrace"
# What the tests were written for; another version serves where it does as well.
WANTED = "6.1"


class Source(NamedTuple):
    """A part of the kernel's source, and of which version it is."""

    root: Path
    version: str


def unpacked(folder: Path) -> Source:
    """The source of our programs, fetched at the first time. Raises Unavailable."""
    root = folder / "source"
    version = folder / "version"
    if not version.exists():
        for program in NEEDED:
            if shutil.which(program) is None:
                raise Unavailable(f"{program} is not installed")
        package = _package(folder)
        _unpack(package, folder / "draft")
        shutil.rmtree(root, ignore_errors=True)
        (folder / "draft").rename(root)
        version.write_text(re.sub(r"^linux-source-([0-9]+\.[0-9]+).*$", r"\1", package.name))
        package.unlink()
    return Source(root, version.read_text())


def _package(folder: Path) -> Path:
    """The package file, just downloaded."""
    listed = _run("apt-cache", "search", "--names-only", "^linux-source-[0-9.]+$")
    names = re.findall(r"^(linux-source-[0-9.]+) ", listed, re.MULTILINE)
    if not names:
        raise Unavailable("no package linux-source-VERSION is known to apt")
    wanted = f"linux-source-{WANTED}"
    _run("apt-get", "download", wanted if wanted in names else names[0], cwd=folder)
    return next(folder.glob("linux-source-*.deb"))


def _unpack(package: Path, draft: Path) -> None:
    """The package holds a compressed archive of the source, with one folder at its top."""
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    archive = draft / "archive"
    # Not by pipe all the way: only in a file does tar find out how it is compressed.
    script = (
        f"dpkg-deb --fsys-tarfile '{package}' | tar -xO --wildcards '*/linux-source-*.tar.*'"
        f" > '{archive}'; tar -x -f '{archive}' -C '{draft}' --strip-components=1 --wildcards"
        f" '*/{KVM_STAT}' '*/{FTRACETEST}'"
    )
    _run("bash", "-euo", "pipefail", "-c", script)
    archive.unlink()


def _run(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
            # All processors unpack.
            env={"XZ_DEFAULTS": "-T0", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["failed"]
        raise Unavailable(f"{' '.join(command[:2])}: {lines[-1]}") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{command[0]} failed: {error}") from error
    return done.stdout
