"""A mounted fake sysfs, debugfs and tracefs that behaves as the kernel does.

The public names, imported when they are first asked for:

* `Machine`: a machine in memory, with `read`, `write`, `mkdir`, `listdir`, `clock`, `save`, `load`.
* `mount`: a machine on a mount point, served by a process of its own.
* `KernelError`: a call that the kernel would refuse, with errno and reason; an `OSError`.
* `MountError`: a mount that cannot be made.

    import fakesys

    with fakesys.mount(profile="6.1") as path:
        (path / "sys/bus/ap/apmask").write_text("-4")

The folders, lowest first: `core` and `graph` know nothing of files; `tree` is an in-memory kernfs;
`subsystems` are the models and their tables of files; `machine` puts them together; `transport`
and `daemon` serve a machine through FUSE, `execution` runs programs on it, `lab` makes its
experiments, `cli` is the command. No import goes up this list.

`docs` are the pages of `fakesys doc`, `scenarios` the machines that can be asked for by name.
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
    # A type checker must see the public names only, not this function.
    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return vars(importlib.import_module(_PLACES[name]))[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
