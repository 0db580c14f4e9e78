"""A mounted fake sysfs, debugfs and tracefs that behaves as the kernel does.

`Machine` is one in memory, `mount` one on a mount point. Both are imported when first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakesys.core.errors import KernelError
    from fakesys.machine import Machine
    from fakesys.serving import mount
    from fakesys.transport.mounting import MountError

__all__ = ["KernelError", "Machine", "MountError", "__version__", "mount"]
__version__ = "0.1.0"

# Public name: the module that has it.
_PLACES = {
    "KernelError": "fakesys.core.errors",
    "Machine": "fakesys.machine",
    "MountError": "fakesys.transport.mounting",
    "mount": "fakesys.serving",
}


if not TYPE_CHECKING:
    # A type checker shall know the public names only.
    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return vars(importlib.import_module(_PLACES[name]))[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
