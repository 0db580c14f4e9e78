"""A tracepoint declared once: its `format`, id, filter fields, text and binary record follow.

    class KvmPio(Tracepoint):
        system = "kvm"
        event = "kvm_pio"
        print_fmt = '"pio_%s at 0x%x", REC->rw ? "write" : "read", REC->port'

        rw: c.UnsignedInt
        port: c.UnsignedInt
        size: c.UnsignedInt

        def text(self) -> str:
            return f"pio_{'write' if self.rw else 'read'} at {self.port:#x}"

        # Kernels without this feature record less, and print it in another way.
        variants = (
            Variant(
                unless=KvmFeature.TRACE_STATE,
                fields=("rw", "port"),
                print_fmt='"pio at 0x%x", REC->port',
                text=lambda self: f"pio at {self.port:#x}",
            ),
        )

A field's annotation carries its C type (`core/c_types.py`); the order of the fields is the order
in the record. A model emits the class with all fields; `core/event_format.py` records what the
variant that a kernel's features choose has. Text is made from the record alone, so `text` of a
variant may use the variant's fields only (the others are zero or empty).
The call site asks first: `if KvmPio in bus.wanted: bus.emit(KvmPio(...))`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar

from msgspec import Struct

from fakesys.core.c_types import CType, c_type
from fakesys.core.features import Features

IRQS_OFF = 0x01
"""Bit of `Tracepoint.common_flags`: interrupts are off where this event is recorded."""


class Variant(Struct, frozen=True):
    """How an event differs in other kernels. What is None is inherited from the class.

    `fields`: names in record order; a pair gives the field another C type.
    The first variant whose features fit is used, else the class itself.
    """

    needs: Features = ()
    unless: Features = ()
    fields: tuple[str | tuple[str, CType], ...] | None = None
    print_fmt: str | None = None
    text: Callable[[Any], str] | None = None
    event: str | None = None
    # These kernels do not have the event.
    absent: bool = False


class Tracepoint(Struct):
    """Base of all tracepoints; one class is one event of the kernel.

    `common_flags` and `common_preempt_count` are the values of these common fields in its
    records: IRQS_OFF, and the depth of preempt_disable() in the low four bits.
    `needs`, `unless`: features of the kernels that have the event.
    A field must not have the name of an attribute of this class.
    """

    system: ClassVar[str]
    event: ClassVar[str]
    print_fmt: ClassVar[str]
    common_flags: ClassVar[int] = 0
    common_preempt_count: ClassVar[int] = 0
    needs: ClassVar[Features] = ()
    unless: ClassVar[Features] = ()
    variants: ClassVar[tuple[Variant, ...]] = ()

    def text(self) -> str:
        """Return what `trace` prints after the event's name and `: `."""
        raise NotImplementedError

    def context(self) -> tuple[int, int]:
        """Return common_flags and common_preempt_count, for events that differ in them."""
        return self.common_flags, self.common_preempt_count

    def pids(self, pid: int) -> tuple[int, ...]:
        """Return the pids that pid lists compare; `pid` is the task in whose context it is."""
        return (pid,)


# A class never changes, and each change of the kernel asks for all of them again.
@cache
def declared_fields(cls: type[Tracepoint]) -> Mapping[str, CType]:
    """Return the fields of a tracepoint class with their C types, in the order of the class."""
    annotations = {
        name: (base.__module__, text)
        for base in reversed(cls.__mro__)
        for name, text in vars(base).get("__annotations__", {}).items()
    }
    return MappingProxyType(
        {name: _annotated(*annotations[name]) for name in cls.__struct_fields__}
    )


# Hundreds of fields have the same few types; typing.get_type_hints would compile each of them.
@cache
def _annotated(module: str, text: str) -> CType:
    """Return the C type of an annotation as a module spells it."""
    return c_type(eval(text, vars(sys.modules[module])))


def hashed(pointer: int) -> str:
    """Return what `%p` prints of an address: a stable number that does not reveal it.

    Like lib/vsprintf.c:ptr_to_id (v6.1): 16 digits, of which the upper 8 are zero.
    """
    if pointer == 0:
        return "0" * 16
    mixed = pointer * 0x9E3779B97F4A7C15 + 0x7F4A7C15
    return f"{(mixed >> 29) & 0xFFFFFFFF:016x}"
