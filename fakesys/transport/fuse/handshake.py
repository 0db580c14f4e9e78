"""The INIT request, by which the kernel and this side agree on a version and on capabilities."""

from __future__ import annotations

import logging
from errno import EPROTO

from fakesys.core.errors import KernelError
from fakesys.transport.fuse import protocol
from fakesys.transport.fuse.invalidation import Invalidator
from fakesys.transport.fuse.protocol import Message

_log = logging.getLogger(__name__)


class Handshake:
    """Answers INIT. `done` once the kernel and this side agree; no other request comes before.

    The invalidator may use the epoch only if it was created so and the kernel knows it.
    """

    def __init__(self, invalidator: Invalidator) -> None:
        self._invalidator = invalidator
        self._epoch_allowed = invalidator.by_epoch
        self.done = False

    def init(self, _nodeid: int, message: Message) -> bytes:
        """Answer an offer. Raises EPROTO for a kernel before FUSE 7.31 (Linux 5.4)."""
        offer = protocol.unpack_init(message)
        if offer.major > protocol.MAJOR:
            return protocol.pack_version_only()
        if offer.major < protocol.MAJOR or offer.minor < protocol.OLDEST_MINOR:
            _log.error("the kernel speaks FUSE %d.%d, too old", offer.major, offer.minor)
            raise KernelError(EPROTO, f"FUSE {offer.major}.{offer.minor} is too old")
        known = offer.minor >= protocol.EPOCH_MINOR
        self._invalidator.by_epoch = self._epoch_allowed and known
        self.done = True
        return protocol.pack_init(offer)
