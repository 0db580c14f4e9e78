"""Programs with a fixed `/sys`, run by `fakesys exec`."""

from __future__ import annotations

import subprocess

from tests.execution.helpers import fakesys_exec
from tests.tools.helpers import SECONDS

# The mediated device of the tests, and where its type is.
UUID = "10d9f0ff-1111-2222-3333-444444444444"
OTHER = "20d9f0ff-1111-2222-3333-444444444444"
TYPE = "/sys/class/mdev_bus/matrix/mdev_supported_types/vfio_ap-passthrough"
DEVICES = "/sys/bus/mdev/devices"

# Commands of a VM with memory, whose vCPU 0 is ready to run programs.
GUEST = """\
vm create a
a vcpu add count=2
a mem m size=64M
a slot 0 gpa=0 size=32M mem=m off=0
a guest_tables
a vcpu 0 setup
"""


def try_script(
    script: str, *, options: tuple[str, ...] = (), prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a bash script in a world of its own, with the default machine."""
    return fakesys_exec(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script,
        options=options,
        scenario="default",
        prefix=prefix,
        seconds=SECONDS,
    )


def script_output(
    script: str, *, options: tuple[str, ...] = (), prefix: tuple[str, ...] = ()
) -> str:
    """The output of a bash script that must succeed."""
    done = try_script(script, options=options, prefix=prefix)
    assert done.returncode == 0, f"status {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def sections(text: str) -> dict[str, str]:
    """What a script printed after each line `== NAME`, without blanks around it."""
    found: dict[str, str] = {}
    for part in text.split("== ")[1:]:
        name, _, body = part.partition("\n")
        found[name] = body.strip()
    return found
