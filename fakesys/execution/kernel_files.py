"""Show files of `/proc` and `/dev` that tell of the simulated kernel instead of the host's.

Precondition: the process is in a private mount namespace; for all but the symbols its mount of the
machine is shown.
"""

from __future__ import annotations

from pathlib import Path

from fakesys.execution.base.places import CMDLINE, FAKE, KMSG, MODULES, PRIVATE
from fakesys.execution.base.syscalls import bind
from fakesys.subsystems.tracing.events.stacks import symbols_text

# Where a kernel has no such file, as without loadable modules, there is nothing to bind over.
FILES = {
    Path("/proc/cmdline"): CMDLINE,
    Path("/proc/modules"): MODULES / "list",
    Path("/dev/kmsg"): KMSG,
}


SYMBOLS = Path("/proc/kallsyms")


def show() -> dict[Path, Path]:
    """Bind the files; return them with the files that they show. Raises StepError."""
    shown = {target: FAKE / file for target, file in FILES.items() if target.exists()}
    for target, source in shown.items():
        bind(source, target)
    return shown


def show_symbols() -> None:
    """Name the functions of the simulated kernel, by which programs show its call chains.

    Needs no machine. Raises StepError.
    """
    if SYMBOLS.exists():
        names = PRIVATE / SYMBOLS.name
        names.write_text(symbols_text())
        bind(names, SYMBOLS)
