"""Show the modules of the simulated machine, and settings of modprobe that are not the host's.

Precondition: the process is in a private mount namespace.
"""

from __future__ import annotations

import os
from pathlib import Path

from fakesys.execution.base.missing import ensure_directory
from fakesys.execution.base.places import FAKE, MODULES, PRIVATE
from fakesys.execution.base.syscalls import bind
from fakesys.execution.modules.tree import keep_links, write_tree

LIBRARY = Path("/lib/modules")
SETTINGS = Path("/etc/modprobe.d")
# Missing where the kernel is built without modules; nothing can be bound there then.
PROC_MODULES = Path("/proc/modules")
# The directory that is shown as that of the running kernel.
OWN_MODULES = PRIVATE / "modules"
# First in PATH, where it exists.
PROGRAMS = PRIVATE / "bin"
# What distributions bring: blacklists and options for the host's own modules.
OTHER_SETTINGS = (Path("/lib/modprobe.d"), Path("/usr/local/lib/modprobe.d"))

LSMOD = """#!/bin/sh
echo 'Module                  Size  Used by'
while read -r name size count holders rest; do
    holders=${{holders%,}}
    printf '%-19s %8s  %s %s\\n' "$name" "$size" "$count" "${{holders#-}}"
done < {file}
"""


def private_modules() -> None:
    """Let programs find the modules of the machine.

    Precondition: `private_module_settings` was called, and the mount of the machine is shown.
    """
    write_tree((FAKE / MODULES / "info").read_text(), OWN_MODULES, os.uname().release)


def private_module_settings() -> None:
    """Show an empty directory of modules, and no settings of the host. Raises StepError."""
    host = LIBRARY / os.uname().release
    OWN_MODULES.mkdir()
    keep_links(OWN_MODULES, host)
    ensure_directory(host, PRIVATE / "draft")
    bind(OWN_MODULES, host)
    if not PROC_MODULES.exists():
        _make_lsmod()
    settings = PRIVATE / "modprobe.d"
    settings.mkdir()
    ensure_directory(SETTINGS, PRIVATE / "draft")
    bind(settings, SETTINGS)
    empty = PRIVATE / "empty"
    empty.mkdir()
    for folder in OTHER_SETTINGS:
        if folder.is_dir():
            bind(empty, folder)


def _make_lsmod() -> None:
    """Make a program that prints what lsmod would."""
    PROGRAMS.mkdir()
    program = PROGRAMS / "lsmod"
    program.write_text(LSMOD.format(file=FAKE / MODULES / "list"))
    program.chmod(0o755)
