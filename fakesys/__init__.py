"""A mounted fake sysfs, debugfs and tracefs that behaves as the kernel does.

`Machine` is one in memory, `mount` one on a mount point. Both are imported when first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakesys.core.errors import KernelError
    from fakesys.core.version import __version__
    from fakesys.daemon.launch import mount
    from fakesys.machine.machine import Machine
    from fakesys.transport.mounting import MountError

__all__ = ["KernelError", "Machine", "MountError", "__version__", "mount"]

# Public name: the module that has it.
_PLACES = {
    "KernelError": "fakesys.core.errors",
    "Machine": "fakesys.machine.machine",
    "__version__": "fakesys.core.version",
    "MountError": "fakesys.transport.mounting",
    "mount": "fakesys.daemon.launch",
}


if not TYPE_CHECKING:
    # A type checker shall know the public names only.
    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return vars(importlib.import_module(_PLACES[name]))[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
