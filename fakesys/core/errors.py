"""How a model refuses an operation, and how it makes one wait."""

from __future__ import annotations

import errno as errno_numbers
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakesys.core.waiters import Waiters


# Where a number has two names, Python's table has the one that the kernel does not use.
ERRNO_NAMES: dict[int, str] = {
    **errno_numbers.errorcode,
    errno_numbers.EOPNOTSUPP: "EOPNOTSUPP",
    errno_numbers.EDEADLK: "EDEADLK",
}


class KernelError(OSError):
    """A refusal: the errno that the kernel would return, and the reason in words.

    A system call returns the errno only; `why` goes to `fakesys/last_error`.
    """

    def __init__(self, errno: int, why: str) -> None:
        super().__init__(errno, os.strerror(errno))
        self.why = why

    @property
    def name(self) -> str:
        """The symbol of the errno, such as `EINVAL`."""
        number = self.errno or 0
        return ERRNO_NAMES.get(number, str(number))

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


class Blocked(Exception):
    """The operation must wait; nothing has changed. Repeat it as a whole after `waiters` wake.

    The transport answers EINTR when a signal ends a request that waits.
    """

    def __init__(self, waiters: Waiters) -> None:
        super().__init__("blocked")
        self.waiters = waiters
