"""Records become lines of `trace` and `trace_pipe`. Like kernel/trace/trace_output.c (v6.1).

A renderer keeps the options of the moment at which it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Any

from fakesys.core.c_types import CType, Holds
from fakesys.core.event_format import EventFormat
from fakesys.core.print_fmt.compiler import LinePrinter
from fakesys.subsystems.tracing.base.clocks import NOT_NS
from fakesys.subsystems.tracing.base.options import Options
from fakesys.subsystems.tracing.base.saved_cmdlines import SavedCmdlines
from fakesys.subsystems.tracing.events.ftrace import (
    FTRACE,
    PRINT_ID,
    KernelStack,
    Print,
    RawData,
)
from fakesys.subsystems.tracing.events.stacks import symbol
from fakesys.subsystems.tracing.output.plain import MICROSECONDS, PlainLines

_COMMON = Struct("<HBBi")
_IRQS = {0: ".", 0x01: "d", 0x80: "b", 0x81: "D"}
_RESCHED = {0: ".", 0x04: "n", 0x20: "p", 0x24: "N"}
_NMI, _HARD, _SOFT = 0x40, 0x08, 0x10
_ADDRESS = Struct("<Q")
_PRINT_HEAD = _COMMON.size + _ADDRESS.size
_DEPTHS = "0123456789abcdef"

_MARKS = ((1_000_000, "$"), (100_000, "@"), (10_000, "*"), (1000, "#"), (100, "!"), (10, "+"))

LineMaker = Callable[[int, int, bytes], str]
BodyMaker = Callable[[bytes], str]
# The same, with the stamp of the next event and the number of events printed before.
AheadMaker = Callable[[int, int, bytes, int | None, int], str]


def flag_letters(flags: int, preempt_count: int) -> str:
    """Return the five columns before the time. Like trace_output.c:trace_print_lat_fmt."""
    low, high = preempt_count & 15, preempt_count >> 4
    return (
        _IRQS[flags & 0x81]
        + _RESCHED[flags & 0x24]
        + _context_letter(flags)
        + (_DEPTHS[low] if low else ".")
        + (_DEPTHS[high] if high else ".")
    )


def _context_letter(flags: int) -> str:
    hard = bool(flags & _HARD)
    if flags & _NMI:
        return "Z" if hard else "z"
    if hard:
        return "H" if flags & _SOFT else "h"
    return "s" if flags & _SOFT else "."


class Renderer:
    """Makes the line of a record: `line(stamp, cpu, payload)`, newline included.

    `ahead` is set when a line shows the time to the next event; callers must use it then.
    `start_ns`: the time that latency format counts from.
    """

    def __init__(
        self,
        formats: Mapping[int, EventFormat],
        printers: Mapping[EventFormat, LinePrinter],
        options: Options,
        cmdlines: SavedCmdlines,
        clock: str,
        start_ns: int = 0,
    ) -> None:
        self._formats = formats
        self._printers = printers
        self._cmdlines = cmdlines
        self._in_ns = clock not in NOT_NS
        self._tgid = options["record-tgid"]
        self._irq_info = options["irq-info"]
        self._context_info = options["context-info"]
        self._verbose = options["verbose"]
        self._fields = options["fields"]
        self._start = start_ns
        self._prefixes: dict[tuple[int, bytes], str] = {}
        self._version = cmdlines.version
        self._bodies: dict[bytes, BodyMaker] = {}
        self._symbol: Callable[[int], str] = partial(
            symbol, with_offset=options["sym-offset"], with_address=options["sym-addr"]
        )
        self._symbols: dict[int, str] = {}
        # Makes lines with the usual options fast; None with others.
        self.plain: PlainLines | None = None
        # None: `line` depends on no other event.
        self.ahead: AheadMaker | None = None
        self.line: LineMaker = self._choose(options)

    def body(self, payload: bytes) -> str:
        """Return what follows the time: name and text of the event."""
        make = self._bodies.get(payload[:2])
        if make is None:
            number = payload[0] | payload[1] << 8
            make = self._bodies[payload[:2]] = self._body_maker(number)
        return make(payload)

    def _body_maker(self, number: int) -> BodyMaker:
        form = self._formats.get(number)
        if form is None:
            return lambda payload: f"Unknown type {number}\n"
        decode, text = form.decode, form.text
        if form.cls is Print:
            return self._print_body
        if form.cls is RawData:
            return lambda payload: text(decode(payload))
        if form.cls is KernelStack:
            return lambda payload: self._stack_body(decode(payload))
        print_line = self._printers[form]
        # Less the time, which is not asked for.
        return lambda payload: print_line(b"", 0, payload)[8:].decode("latin-1")

    def _printer(self, number: int) -> LinePrinter:
        form = self._formats.get(number)
        if form is not None and form.system != FTRACE:
            return self._printers[form]
        make = self._body_maker(number)
        return lambda head, micro, record: (
            b"%b%06d: %b"
            % (
                head,
                micro,
                make(record).encode("latin-1"),
            )
        )

    def _print_body(self, payload: bytes) -> str:
        (address,) = _ADDRESS.unpack_from(payload, _COMMON.size)
        name = self._symbols.get(address)
        if name is None:
            name = self._symbols[address] = self._symbol(address)
        return f"{name}: {_print_text(payload)}"

    def _stack_body(self, stack: KernelStack) -> str:
        return "<stack trace>\n" + "".join(f" => {self._symbol(a)}\n" for a in stack.addresses())

    def _choose(self, options: Options) -> LineMaker:
        make = self._of_all(options)
        if not (options["trace_printk"] and options["printk-msg-only"]):
            return make
        self.plain = None
        marker, ahead = PRINT_ID.to_bytes(2, "little"), self.ahead
        if ahead is not None:
            self.ahead = lambda stamp, cpu, payload, following, index: (
                _print_text(payload)
                if payload[:2] == marker
                else ahead(stamp, cpu, payload, following, index)
            )
        return lambda stamp, cpu, payload: (
            _print_text(payload) if payload[:2] == marker else make(stamp, cpu, payload)
        )

    def _of_all(self, options: Options) -> LineMaker:
        if options["bin"]:
            return self._binary
        if options["hex"]:
            return self._hex
        if options["raw"]:
            return self._raw
        if not self._context_info:
            return lambda stamp, cpu, payload: self._visible(payload)
        if options["latency-format"]:
            self.ahead = self._latency
            return self._latency
        if not self._in_ns or self._fields:
            return self._normal
        plain = self.plain = PlainLines(self._make_prefix, self._printer, self._cmdlines)
        return lambda stamp, cpu, payload: plain.lines(cpu, (stamp,), (payload,))[0].decode(
            "latin-1"
        )

    def _visible(self, payload: bytes) -> str:
        return self._field_list(payload) if self._fields else self.body(payload)

    def _normal(self, stamp: int, cpu: int, payload: bytes) -> str:
        # The common fields and the CPU determine the prefix, so they are its key.
        prefix = self._prefixes.get((cpu, payload[2:8]))
        if prefix is None or self._version != self._cmdlines.version:
            prefix = self._make_prefix(cpu, payload)
        if self._in_ns:
            seconds, micro = divmod(_micro(stamp), MICROSECONDS)
            return f"{prefix}{seconds:5}.{micro:06}: {self._visible(payload)}"
        return f"{prefix}{stamp:12}: {self._visible(payload)}"

    def _make_prefix(self, cpu: int, payload: bytes) -> str:
        if self._version != self._cmdlines.version:
            self._prefixes.clear()
            self._version = self._cmdlines.version
        _, flags, preempt, pid = _COMMON.unpack_from(payload)
        prefix = f"{self._cmdlines.comm(pid):>16}-{pid:<7} "
        if self._tgid:
            tgid = self._cmdlines.tgid(pid)
            prefix += "(-------) " if tgid is None else f"({tgid:7}) "
        prefix += f"[{cpu:03}] "
        if self._irq_info:
            prefix += flag_letters(flags, preempt)
        prefix += " "
        self._prefixes[cpu, payload[2:8]] = prefix
        return prefix

    def _latency(
        self, stamp: int, cpu: int, payload: bytes, following: int | None = None, index: int = 0
    ) -> str:
        """Return a line of latency format.

        `following`: stamp of the next event; `index`: how many events were printed before.
        Like trace_output.c:trace_print_lat_context, lat_print_timestamp.
        """
        _, flags, preempt, pid = _COMMON.unpack_from(payload)
        comm = self._cmdlines.comm(pid)
        passed = stamp - self._start
        delay = 0 if following is None else following - stamp
        if self._in_ns:
            passed, delay = _micro(passed), _micro(delay)
        if self._verbose:
            head = f"{comm:>16} {pid:7} {cpu:3} {flags} {preempt & 15:08x} {index:08x} "
            return head + self._verbose_time(stamp, passed, delay) + self._visible(payload)
        time = f"{passed:4}us{delay_mark(delay)}" if self._in_ns else f"{passed:4}"
        letters = flag_letters(flags, preempt)
        return f"{comm[:8]:>8}-{pid:<7} {cpu:3}{letters} {time}: {self._visible(payload)}"

    def _verbose_time(self, stamp: int, passed: int, delay: int) -> str:
        if not self._in_ns:
            return f"[{stamp:016x}] {passed} (+{delay}): "
        return (
            f"[{_micro(stamp):08x}] {passed // 1000}.{passed % 1000:03}ms "
            f"(+{delay // 1000}.{delay % 1000:03}ms): "
        )

    def _raw(self, stamp: int, cpu: int, payload: bytes) -> str:
        number, _, _, pid = _COMMON.unpack_from(payload)
        head = f"{pid} {cpu} {stamp} " if self._context_info else ""
        form = self._formats.get(number)
        if form is None:
            return f"{head}{number} ?\n"
        if form.cls is Print:
            address = int.from_bytes(payload[8:16], "little")
            return f"{head}# {address:x} {_print_text(payload)}"
        if form.cls is RawData:
            return head + self.body(payload)
        return f"{head}type: {number}\n"

    def _hex(self, stamp: int, cpu: int, payload: bytes) -> str:
        number, _, _, pid = _COMMON.unpack_from(payload)
        head = f"{pid & 0xFFFFFFFF:08x} {cpu:08x} {stamp:016x} " if self._context_info else ""
        return f"{head}type: {number}\n\n"

    def _binary(self, stamp: int, cpu: int, payload: bytes) -> str:
        number, _, _, pid = _COMMON.unpack_from(payload)
        head = Struct("<iiQ").pack(pid, cpu, stamp) if self._context_info else b""
        return head.decode("latin-1") + f"type: {number}\n"

    def _field_list(self, payload: bytes) -> str:
        number = payload[0] | payload[1] << 8
        form = self._formats.get(number)
        if form is None or form.system == FTRACE:
            return f"UNKNOWN TYPE {number}\n"
        event = form.decode(payload)
        texts = (
            f" {field.name}={field_text(field.ctype, getattr(event, field.of_class))}"
            for field in form.fields
        )
        return f"{form.event}:{''.join(texts)}\n"


def field_text(kind: CType, value: Any) -> str:
    """Return a value as the option `fields` shows it. Like trace_output.c:print_fields (v6.18)."""
    if kind.holds in (Holds.CHARS, Holds.DYNAMIC):
        return str(value)
    if kind.size == 1:
        shown = f"'{chr(value)}'" if 0x20 <= value < 0x7F else ""
        return f"{shown}({value & 0xFF})"
    if kind.size not in (2, 4, 8) or kind.holds is Holds.TAIL:
        return "<INVALID-SIZE>"
    bits = 8 * kind.size
    unsigned = value & ((1 << bits) - 1)
    negative = kind.size > 2 and unsigned >> (bits - 1)
    return f"0x{unsigned:x} ({unsigned - (1 << bits) if negative else unsigned})"


def _micro(nanoseconds: int) -> int:
    """Return microseconds, rounded like the kernel's ns2usecs()."""
    return (nanoseconds + 500) // 1000


def delay_mark(microseconds: int) -> str:
    """Return the character for the time to the next event. Like trace_output.c:mark."""
    return next((mark for least, mark in _MARKS if microseconds > least), " ")


def _print_text(payload: bytes) -> str:
    return payload[_PRINT_HEAD:].partition(b"\0")[0].decode("latin-1")
