"""Loading and removing modules by the command: the simulated machine does it.

Only modules that the machine has: others are left to the kernel, which refuses them in a user
namespace. So are those of callers with another view than this one, as in a view in a view.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from errno import EINVAL, ENOEXEC, EPERM
from pathlib import Path

from fakesys.execution.base.places import FAKE, MODULES
from fakesys.execution.requests.seccomp import Answer, Call

CAP_SYS_MODULE = 16
LONGEST_NAME, LONGEST_PARAMETERS = 56, 4096
# Largest file of a module of which the name is looked for.
LARGEST_MODULE = 16 << 20
NAME = re.compile(rb"(?:^|\0)name=([-\w]+)\0")
# MODULE_INIT_IGNORE_MODVERSIONS, MODULE_INIT_IGNORE_VERMAGIC, MODULE_INIT_COMPRESSED_FILE.
KNOWN_FLAGS = 1 | 2 | 4


class ModuleCalls:
    """Answers the calls. `changed` is called after each that was done."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def init(self, call: Call) -> Answer | None:
        """Do init_module(2)."""
        if not call.may(CAP_SYS_MODULE):
            return Answer(EPERM)
        address, size = call.arguments[:2]
        image = call.memory(address, min(size, LARGEST_MODULE))
        return self._insert(image, call.text(2, LONGEST_PARAMETERS))

    def finit(self, call: Call) -> Answer | None:
        """Do finit_module(2)."""
        if not call.may(CAP_SYS_MODULE):
            return Answer(EPERM)
        descriptor, _, flags = (argument & 0xFFFF_FFFF for argument in call.arguments[:3])
        if flags & ~KNOWN_FLAGS:
            return Answer(EINVAL)
        image = _regular_file(Path(f"/proc/{call.pid}/fd/{descriptor}"))
        return self._insert(image, call.text(1, LONGEST_PARAMETERS))

    def delete(self, call: Call) -> Answer | None:
        """Do delete_module(2)."""
        if not call.may(CAP_SYS_MODULE):
            return Answer(EPERM)
        return self._write("remove", call.text(0, LONGEST_NAME))

    def _insert(self, image: bytes, parameters: str) -> Answer | None:
        found = NAME.search(image)
        if found is None:
            return Answer(ENOEXEC)
        name = found[1].decode()
        if name not in _known():
            return None
        return self._write("insert", f"{name} {parameters}")

    def _write(self, file: str, text: str) -> Answer:
        try:
            with open(FAKE / MODULES / file, "wb", buffering=0) as control:
                control.write(os.fsencode(text))
        except OSError as error:
            return Answer(error.errno or EINVAL)
        self._changed()
        return Answer()


def _known() -> set[str]:
    lines = (FAKE / MODULES / "info").read_text().splitlines()
    return {line.removeprefix("name: ") for line in lines if line.startswith("name: ")}


def _regular_file(path: Path) -> bytes:
    """Return the content of an open file of the caller, b"" of anything else. Raises OSError."""
    # Without an effect on pipes and devices, until it is known what it is.
    descriptor = os.open(path, os.O_PATH)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        with open(f"/proc/self/fd/{descriptor}", "rb", buffering=0) as file:
            return os.pread(file.fileno(), LARGEST_MODULE, 0)
    finally:
        os.close(descriptor)
