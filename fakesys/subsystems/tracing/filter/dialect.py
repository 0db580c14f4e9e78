"""What the filters of a kernel can express, and how a wrong filter is refused."""

from __future__ import annotations

from msgspec import Struct

from fakesys.core.errors import KernelError


class Dialect(Struct, frozen=True):
    """What a kernel's filters can express.

    `cpus`: how many CPUs a list of CPUs may name; 0 for kernels without such lists (before 6.6).
    `open_ended`: can a text end with `&&` or `||`?
    `functions`: are there `FIELD.function` (6.5) and a field for the stack (6.3)?
    """

    cpus: int = 0
    open_ended: bool = False
    functions: bool = False


class FilterError(KernelError):
    """The refusal of a wrong filter; `position` is the index at which the caret is shown.

    `message` is None where the kernel only says `Error: (0)`.
    """

    def __init__(self, errno: int, message: str | None, position: int = 0) -> None:
        super().__init__(errno, message or "there is no expression")
        self.message = message
        self.position = position
