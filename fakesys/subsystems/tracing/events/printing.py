"""The functions that make the lines of events, each compiled when its first line is made."""

from __future__ import annotations

from fakesys.core.event_format import EventFormat
from fakesys.core.print_fmt.compiler import LinePrinter, compile_printer
from fakesys.core.print_fmt.tokens import CannotCompileError
from fakesys.subsystems.tracing.events.stacks import symbol


class Printers(dict[EventFormat, LinePrinter]):
    """The function of each format; a mapping that fills itself."""

    def __missing__(self, form: EventFormat) -> LinePrinter:
        made = self[form] = printer_of(form)
        return made


def printer_of(form: EventFormat) -> LinePrinter:
    """Return the function that makes the lines of an event.

    It is compiled from the print format, or, where that is not possible, uses the event's text.
    """
    try:
        return compile_printer(form.event, form.print_fmt, form.fields, _symbol)
    except CannotCompileError:
        return decoded_printer(form)


def decoded_printer(form: EventFormat) -> LinePrinter:
    """Return the function that makes the lines of an event by its text."""

    def print_decoded(head: bytes, micro: int, record: bytes) -> bytes:
        text = f"{form.event}: {form.text(form.decode(record))}\n"
        return b"%b%06d: %b" % (head, micro, text.encode("latin-1"))

    return print_decoded


def _symbol(address: int, with_offset: bool) -> str:
    return symbol(address, with_offset=with_offset)
