"""The types of the functions that answer requests."""

from __future__ import annotations

from collections.abc import Callable

from fakesys.transport.fuse.protocol import Message

# Takes the node number and the whole request, returns the data of the answer. Raises KernelError
# for a refusal, and Blocked where the request has to wait.
Handler = Callable[[int, Message], bytes]
# Takes the same; the kernel expects no answer.
SilentHandler = Callable[[int, Message], None]
