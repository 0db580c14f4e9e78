"""The events of system `ftrace`: what markers and stack triggers record.

They have no `enable` file and are not listed in `available_events`.
"""

from __future__ import annotations

import struct

from fakesys.core.c_types import Callers, Int, TailBytes, UnsignedInt, UnsignedLong
from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.tracing.events.stacks import ADDRESSES, MARKER_NAME, symbol

FTRACE = "ftrace"
# TRACE_STACK, TRACE_PRINT of kernel/trace/trace.h:enum trace_type.
STACK_ID, PRINT_ID = 4, 5


class Print(Tracepoint):
    """A text written to `trace_marker`."""

    system = "ftrace"
    event = "print"
    print_fmt = '"%ps: %s", (void *)REC->ip, REC->buf'
    common_preempt_count = 1

    ip: UnsignedLong
    buf: TailBytes

    def text(self) -> str:
        return f"{MARKER_NAME}: " + self.buf.split(b"\0", 1)[0].decode("latin-1")


class RawData(Tracepoint):
    """Bytes written to `trace_marker_raw`; the first four are `id`."""

    system = "ftrace"
    event = "raw_data"
    print_fmt = '"id:%04x %08x", REC->id, (int)REC->buf[0]'

    id: UnsignedInt
    buf: TailBytes

    def text(self) -> str:
        return f"# {self.id:x} buf:" + "".join(f" {byte:02x}" for byte in self.buf) + "\n"


class KernelStack(Tracepoint):
    """The call chain after an event whose trigger is `stacktrace`."""

    system = "ftrace"
    event = "kernel_stack"
    print_fmt = (
        '"\\t=> %ps\\n\\t=> %ps\\n\\t=> %ps\\n" "\\t=> %ps\\n\\t=> %ps\\n\\t=> %ps\\n" '
        '"\\t=> %ps\\n\\t=> %ps\\n", (void *)REC->caller[0], (void *)REC->caller[1], '
        "(void *)REC->caller[2], (void *)REC->caller[3], (void *)REC->caller[4], "
        "(void *)REC->caller[5], (void *)REC->caller[6], (void *)REC->caller[7]"
    )

    size: Int
    caller: Callers

    def text(self) -> str:
        return "<stack trace>\n" + "".join(f" => {symbol(at)}\n" for at in self.addresses())

    def addresses(self) -> list[int]:
        """Return the recorded addresses, innermost first."""
        count = max(0, min(self.size, len(self.caller) // 8))
        return list(struct.unpack_from(f"<{count}Q", self.caller))


def stack_of(names: tuple[str, ...]) -> KernelStack:
    """Return the stack event of a call chain."""
    addresses = b"".join(ADDRESSES[name].to_bytes(8, "little") for name in names)
    return KernelStack(len(names), addresses)
