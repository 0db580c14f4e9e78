"""Programs that come with the kernel's source, taken from the distribution's package of it.

Nothing is installed: the package is fetched once into a cache and a few folders are unpacked.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

SECONDS = 300
NEEDED = ("apt-get", "apt-cache", "dpkg-deb", "xz", "tar")


class Unavailable(Exception):
    """The source cannot be had here; the text says why."""


def unpacked(folder: Path, *parts: str) -> Path:
    """A folder with these folders of the source, fetched at the first time. Raises Unavailable."""
    root = folder / "source"
    if all((root / part).exists() for part in parts):
        return root
    for program in NEEDED:
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed")
    draft = folder / "draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _unpack(_package(folder), draft, parts)
    for part in parts:
        if not (draft / part).exists():
            raise Unavailable(f"{part} is not in the kernel's source")
    shutil.rmtree(root, ignore_errors=True)
    draft.rename(root)
    return root


def _package(folder: Path) -> Path:
    """The package file, downloaded unless it is there."""
    here = sorted(folder.glob("linux-source-*.deb"))
    if here:
        return here[0]
    listed = _run("apt-cache", "search", "--names-only", "^linux-source-[0-9.]+$")
    names = re.findall(r"^(linux-source-[0-9.]+) ", listed, re.MULTILINE)
    if not names:
        raise Unavailable("no package linux-source-VERSION is known to apt")
    _run("apt-get", "download", names[0], cwd=folder)
    return next(folder.glob("linux-source-*.deb"))


def _unpack(package: Path, folder: Path, parts: tuple[str, ...]) -> None:
    """The package holds a compressed archive of the source, with one folder at its top."""
    wanted = " ".join(f"'*/{part}'" for part in parts)
    script = (
        f"dpkg-deb --fsys-tarfile '{package}' | tar -xO --wildcards '*/linux-source-*.tar.xz'"
        f" | xz -dc -T0 | tar -x -C '{folder}' --strip-components=1 --wildcards {wanted}"
    )
    _run("bash", "-o", "pipefail", "-c", script)


def _run(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{command[0]} failed: {error}") from error
    return done.stdout
