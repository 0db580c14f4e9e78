"""Triggers without a table as the lines that make them, with what is left of their counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import Natural, Saved, check
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.instances.triggers import SwitchTrigger, write_trigger
from fakesys.subsystems.tracing.saved.hists import cpus_of
from fakesys.subsystems.tracing.saved.values import Written


class SavedSwitch(Saved, tag="switch", frozen=True):
    """A trigger without a table: its line without the count, and what is left of the count.

    `cpus`: how many CPUs a list of CPUs in its filter can name, as in `SavedFilter`.
    """

    line: Written
    cpus: Natural
    count: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


def save_switches(file: EventFile) -> Iterator[SavedSwitch]:
    """Return these triggers of an event, in the order in which they were made."""
    for trigger in reversed(file.triggers):
        if isinstance(trigger, SwitchTrigger):
            cpus = cpus_of(trigger.condition)
            yield SavedSwitch(line=trigger.line, cpus=cpus, count=trigger.count)


def restore_switch(saved: SavedSwitch, instance: Instance, file: EventFile) -> None:
    """Make a trigger as its line does. Raises BadSnapshotError, KernelError.

    Precondition: `Shared.cpus` is what `saved.cpus` says.
    """
    before = file.triggers
    write_trigger(instance, file, saved.line)
    check(len(file.triggers) == len(before) + 1, "its line makes no trigger")
    made = file.triggers[0]
    check(isinstance(made, SwitchTrigger) and made.line == saved.line, "it is another trigger")
    assert isinstance(made, SwitchTrigger)
    made.count = saved.count
