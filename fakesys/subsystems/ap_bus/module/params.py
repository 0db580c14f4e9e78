"""The parameters of the AP bus, which is built in: they come from the boot command line.

Like the module_param_named calls of drivers/s390/crypto/ap_bus.c (v6.1, v6.12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fakesys.core.boot.command_line import (
    Word,
    param_int,
    param_text,
    param_uint,
    same_name,
    wrong_parameter,
)
from fakesys.core.errors import KernelError
from fakesys.core.text import ALL_IDS, parse_mask


class ApParams(Struct, frozen=True):
    """The parameters as given; a mask is None where none was."""

    domain: int = -1
    apmask: str | None = None
    aqmask: str | None = None
    poll_thread: int = 0
    useirq: int = 1
    msgpool_min_items: int = 8

    @property
    def adapters(self) -> int:
        """The adapters of the host at boot."""
        return _mask_at_boot(self.apmask)

    @property
    def domains(self) -> int:
        """The domains of the host at boot."""
        return _mask_at_boot(self.aqmask)


def _mask_at_boot(text: str | None) -> int:
    """Return the mask of a parameter.

    A relative one begins with nothing, and one that cannot be read gives nothing. Like
    ap_bus.c:ap_perms_init (v6.1).
    """
    if text is None:
        return ALL_IDS
    try:
        return parse_mask(text, 0)
    except KernelError:
        return 0


_PARSE: dict[str, Callable[[str | None], Any]] = {
    "domain": param_int,
    "apmask": param_text,
    "aqmask": param_text,
    "poll_thread": param_int,
    "useirq": param_int,
    "msgpool_min_items": param_uint,
}


def boot_params(words: Iterable[Word], log: Callable[[str], None]) -> ApParams:
    """Return the parameters of these words. A value of no use is told to `log` and left out."""
    params = ApParams()
    for given, value in words:
        for name, parse in _PARSE.items():
            if not same_name(given, name):
                continue
            try:
                params = replace(params, **{name: parse(value)})
            except KernelError as error:
                log(wrong_parameter("Booting kernel", f"ap.{given}", value, error))
    return params
