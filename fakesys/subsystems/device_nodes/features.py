"""Features by which kernels differ in device nodes."""

from __future__ import annotations

from fakesys.core.features import Feature


class NodeFeature(Feature):
    """Differences in the files of `devices/virtual/misc`."""

    KEY_HANDLERS = "pkey.key_handlers"
    """Keys are made by handlers, which look for a card each time; there are more kinds (6.12)."""
    LONG_EP11_KEYS = "pkey.long_ep11_keys"
    """A secure key of an EP11 card has 336 bytes, with its head (6.6, and 6.1.192)."""
