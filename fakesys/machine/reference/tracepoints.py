"""Every tracepoint, with what it records and prints in which kernels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby, product
from typing import NamedTuple

from fakesys.core.event_format import EventFormat, Field, event_format
from fakesys.core.features import Feature, Features, FeatureSet
from fakesys.core.tracepoint import Tracepoint
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.machine.tracing import TRACEPOINTS

# A list of names in a print format: of a longer one only both ends are shown.
_NAME = r"\{ [^{}]*? \}"
_LONG_LIST = re.compile(rf"({_NAME}), (?:{_NAME}, ){{4,}}({_NAME})")

# A choice of kernels: that of KVM's memory, that of its interrupts.
Kernels = tuple[str, str]


class Form(NamedTuple):
    """What an event records and prints in some kernels. `fields`: as C declares them."""

    kernels: str
    fields: tuple[str, ...]
    print_fmt: str


class Event(NamedTuple):
    """A tracepoint in all kernels that have it."""

    doc: str
    forms: tuple[Form, ...]


def events() -> dict[str, Event]:
    """Return each event by `system:name`, in the order of `available_events`."""
    found: dict[str, Event] = {}
    for cls in TRACEPOINTS:
        for name, kernels in _by_name(cls).items():
            found[name] = Event(_summary(cls), tuple(_forms(kernels)))
    return found


def _by_name(cls: type[Tracepoint]) -> dict[str, dict[Kernels, EventFormat]]:
    """Return the formats by the name of the event, which a variant may change, and by kernels."""
    found: dict[str, dict[Kernels, EventFormat]] = {}
    for kernels in product(*_choices(cls)):
        mmu, apicv = kernels
        form = event_format(cls, 1, _features(mmu, apicv))
        if form is not None:
            found.setdefault(form.name, {})[mmu, apicv] = form
    return found


def _choices(cls: type[Tracepoint]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the kernels between which an event can differ; an empty name where it cannot."""
    asked = set(_asked(cls.needs, cls.unless))
    for variant in cls.variants:
        asked.update(_asked(variant.needs, variant.unless))
    mmu = frozenset().union(*(kernel.features for kernel in MMU_KERNELS.values()))
    apicv = frozenset().union(*(kernel.features for kernel in APICV_KERNELS.values()))
    return (
        tuple(MMU_KERNELS) if asked & mmu else ("",),
        tuple(APICV_KERNELS) if asked & apicv else ("",),
    )


def _asked(*groups: Features) -> Iterator[Feature]:
    for group in groups:
        yield from (group,) if isinstance(group, Feature) else group


def _features(mmu: str, apicv: str) -> FeatureSet:
    memory = MMU_KERNELS[mmu].features if mmu else frozenset[Feature]()
    return memory | (APICV_KERNELS[apicv].features if apicv else frozenset[Feature]())


def _forms(formats: dict[Kernels, EventFormat]) -> Iterator[Form]:
    """Yield the different forms, each with the kernels that have it."""
    same: dict[tuple[tuple[str, ...], str], list[Kernels]] = {}
    for kernels, form in formats.items():
        fields = tuple(_declaration(field) for field in form.fields)
        print_fmt = _LONG_LIST.sub(r"\1, ..., \2", form.print_fmt)
        same.setdefault((fields, _LONG_LIST.sub(r"\1, ..., \2", form.print_fmt)), []).append(
            kernels
        )
    for (fields, print_fmt), having in same.items():
        yield Form(_kernels(having), fields, print_fmt)


def _declaration(field: Field) -> str:
    return f"{field.ctype.text} {field.name}{field.ctype.suffix}"


def _kernels(having: list[Kernels]) -> str:
    """`In every kernel`, or which ones: the names of each choice that matters."""
    words = []
    for label, names, known in (
        ("mmu", {mmu for mmu, _ in having}, list(MMU_KERNELS)),
        ("apicv", {apicv for _, apicv in having}, list(APICV_KERNELS)),
    ):
        runs = list(_runs([name in names for name in known]))
        if runs and runs != [range(len(known))]:
            words.append(f"{label} {', '.join(_run(known, run) for run in runs)}")
    return f"In {' with '.join(words)}" if words else "In every kernel"


def _runs(chosen: list[bool]) -> Iterator[range]:
    """Yield the places of each run of chosen ones."""
    for is_chosen, group in groupby(range(len(chosen)), chosen.__getitem__):
        if is_chosen:
            places = tuple(group)
            yield range(places[0], places[-1] + 1)


def _run(known: list[str], run: range) -> str:
    if len(run) < 3:
        return ", ".join(known[place] for place in run)
    return f"{known[run[0]]} to {known[run[-1]]}"


def _summary(cls: type[Tracepoint]) -> str:
    """Return the docstring of the class, in one line."""
    return " ".join((cls.__doc__ or "").split())
