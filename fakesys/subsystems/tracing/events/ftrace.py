"""The events of system `ftrace`: what markers and stack triggers record.

They have no `enable` file and are not listed in `available_events`.
"""

from __future__ import annotations

import struct

from fakesys.core.c_types import Callers, Int, TailBytes, UnsignedInt, UnsignedLong
from fakesys.core.tracepoint import Tracepoint

FTRACE = "ftrace"
# TRACE_STACK, TRACE_PRINT of kernel/trace/trace.h:enum trace_type.
STACK_ID, PRINT_ID = 4, 5
# Address of the code that records a marker. Any constant works: `trace` shows its name.
MARKER_IP = 0xFFFFFFFF8149895A
MARKER_NAME = "tracing_mark_write"


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


# Call chains, innermost first, from the system call to the tracepoint and to a marker.
STACK = (
    "trace_event_raw_event",
    "kvm_arch_vcpu_ioctl_run",
    "kvm_vcpu_ioctl",
    "__x64_sys_ioctl",
    "do_syscall_64",
    "entry_SYSCALL_64_after_hwframe",
)
MARKER_STACK = (
    "tracing_mark_write",
    "vfs_write",
    "ksys_write",
    "do_syscall_64",
    "entry_SYSCALL_64_after_hwframe",
)
ADDRESSES = {
    name: 0xFFFFFFFF81000000 + 0x1000 * number
    for number, name in enumerate(dict.fromkeys((*STACK, *MARKER_STACK)))
}
SYMBOLS = {address: name for name, address in ADDRESSES.items()}
# The distance of two of these functions, and where a marker is recorded: name, offset, length.
SYMBOL_REACH = 0x1000
_MARKER_PLACE = (MARKER_NAME, 0x8A, 0x170)


def place_of(address: int) -> tuple[str, int, int]:
    """Return the function that an address is in, the offset in it and its length in bytes."""
    if address == MARKER_IP:
        return _MARKER_PLACE
    base = address - address % SYMBOL_REACH
    return SYMBOLS.get(base, f"0x{base:x}"), address - base, SYMBOL_REACH


def symbol(address: int, *, with_offset: bool = False, with_address: bool = False) -> str:
    """Return an address as `trace` shows it. Like kernel/trace/trace_output.c:seq_print_ip_sym."""
    name, offset, size = place_of(address)
    text = f"{name}+{offset:#x}/{size:#x}" if with_offset else name
    return f"{text} <{address:x}>" if with_address else text


def stack_of(names: tuple[str, ...]) -> KernelStack:
    """Return the stack event of a call chain, such as STACK."""
    addresses = b"".join(ADDRESSES[name].to_bytes(8, "little") for name in names)
    return KernelStack(len(names), addresses)
