"""The control files that belong to no single subsystem."""

from __future__ import annotations

from fakesys import __version__
from fakesys.core.clock import NS
from fakesys.subsystems.control.model import Control
from fakesys.tree.attr import Attr, Layout
from fakesys.tree.kinds import CONTROL


def _last_error(control: Control) -> str:
    refusal = control.last_error
    if refusal is None:
        return ""
    error = refusal.error
    return f"{refusal.time_ns / NS:.6f} {refusal.path} {error.name} {error.why}\n"


def _bugs(control: Control) -> str:
    return f"{len(control.bugs)}\n" + "".join(control.bugs)


TOP: Layout[Control] = Layout(
    (
        Attr(
            name="version",
            mode=0o444,
            doc="Version of the package.",
            show=lambda _control: f"{__version__}\n",
        ),
        Attr(
            name="last_error",
            mode=0o444,
            doc="`TIME PATH ERRNO reason` of the last write of the mount if it was refused.",
            show=_last_error,
        ),
        Attr(
            name="bugs",
            mode=0o444,
            doc="Number of internal errors since the start, then one traceback for each.",
            show=_bugs,
        ),
    ),
    kind=CONTROL,
)
