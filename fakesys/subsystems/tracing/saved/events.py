"""Events of an instance, as far as they are not as at boot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from fakesys.core.errors import KernelError
from fakesys.core.saved import BadSnapshotError, Natural, Saved, check
from fakesys.subsystems.tracing.events.ftrace import FTRACE
from fakesys.subsystems.tracing.filter.filters import compile_filter
from fakesys.subsystems.tracing.instances.event_file import NO_FILTER, EventFile
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.saved.hists import (
    SavedHist,
    Tables,
    fill_hists,
    make_hist,
    save_hists,
)
from fakesys.subsystems.tracing.saved.triggers import SavedSwitch, restore_switch, save_switches
from fakesys.subsystems.tracing.saved.values import Shown, Written


class SavedFilter(Saved, frozen=True):
    """A filter that works: what was written, and how many CPUs its lists of CPUs can name."""

    text: Written
    cpus: Natural


class SavedEvent(Saved, frozen=True):
    """One event of an instance. Whether it is attached, `SavedTracing.attached` says.

    `wrong_filter`: the text of the file after a filter that was refused.
    `triggers`: each kind in the order in which they were made, histograms last.
    """

    soft_disabled: bool
    filter: SavedFilter | None
    wrong_filter: Shown | None
    triggers: tuple[SavedSwitch | SavedHist, ...]


def save_events(instance: Instance, tables: Tables) -> dict[str, SavedEvent]:
    """Return the events of an instance that are not as at boot, in their usual order."""
    rank = instance.shared.catalog.rank
    return {
        file.form.name: _save_event(file, tables)
        for file in sorted(instance.known_files(), key=lambda file: rank(file.form))
        if file.soft_disabled or file.triggers or file.filter_text != NO_FILTER
    }


def restore_events(saved: Mapping[str, SavedEvent], instance: Instance, *, cpus: int) -> None:
    """Give events their filters and triggers without histograms. Raises BadSnapshotError.

    Precondition: what was attached is attached again. Afterwards `Shared.cpus` is undefined.
    """
    by_name = instance.shared.catalog.by_name
    for name, event in saved.items():
        check(name in by_name, f"there is no event {name!r}")
        with _about(name):
            _restore_event(event, instance, instance.file(by_name[name]), cpus)


def restore_hists(saved: Sequence[tuple[Instance, Mapping[str, SavedEvent]]], *, cpus: int) -> None:
    """Give the events of all instances their histograms. Raises BadSnapshotError.

    Precondition: `restore_events` was called for each.
    """
    files = [
        (instance.file(instance.shared.catalog.by_name[name]), instance, _hists(event))
        for instance, events in saved
        for name, event in events.items()
    ]
    places = [(one, instance, file) for file, instance, found in files for one in found]
    places.sort(key=lambda each: each[0].place)
    check([one.place for one, _, _ in places] == list(range(len(places))), "places of histograms")
    for one, instance, file in places:
        if not one.made:
            with _about(file.form.name):
                _use_cpus(instance, one.cpus, cpus)
                make_hist(one, instance, file)
    tables = Tables([])
    for file, _, found in files:
        with _about(file.form.name):
            fill_hists(found, file, tables)


def _hists(saved: SavedEvent) -> list[SavedHist]:
    return [trigger for trigger in saved.triggers if isinstance(trigger, SavedHist)]


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Say of which event a refusal is."""
    try:
        yield
    except (BadSnapshotError, KernelError) as error:
        why = error.why if isinstance(error, KernelError) else error
        raise BadSnapshotError(f"{name}: {why}") from None


def check_events(instance: Instance) -> None:
    """Check soft mode, once all triggers of the instance were made. Raises BadSnapshotError."""
    for file in instance.known_files():
        name = file.form.name
        check(file.soft_users or not file.soft_disabled, f"{name}: no trigger holds its soft mode")
        check(
            file.form.system != FTRACE or not file.enabled or file.soft_users,
            f"{name}: it cannot be enabled",
        )
        file.refresh()


def _save_event(file: EventFile, tables: Tables) -> SavedEvent:
    found = file.filter
    shown = None if found or file.filter_text == NO_FILTER else file.filter_text
    return SavedEvent(
        soft_disabled=file.soft_disabled,
        filter=None if found is None else SavedFilter(text=found.text, cpus=found.cpus),
        wrong_filter=shown,
        triggers=(*save_switches(file), *save_hists(file, tables)),
    )


def _restore_event(saved: SavedEvent, instance: Instance, file: EventFile, cpus: int) -> None:
    check(file.enabled or not (saved.triggers or saved.soft_disabled), "it is not attached")
    file.soft_disabled = saved.soft_disabled
    _restore_filter(saved, instance, file, cpus)
    for trigger in saved.triggers:
        if isinstance(trigger, SavedSwitch):
            _use_cpus(instance, trigger.cpus, cpus)
            restore_switch(trigger, instance, file)


def _restore_filter(saved: SavedEvent, instance: Instance, file: EventFile, cpus: int) -> None:
    hidden = file.form.system == FTRACE
    filters = saved.filter, saved.wrong_filter
    check(not hidden or filters == (None, None), "it has no filter")
    if saved.filter is not None:
        check(saved.wrong_filter is None, "a filter is right and wrong")
        _use_cpus(instance, saved.filter.cpus, cpus)
        file.filter = compile_filter(saved.filter.text, file.form, instance.dialect)
        file.filter_text = saved.filter.text
    elif saved.wrong_filter is not None:
        file.filter_text = saved.wrong_filter


def _use_cpus(instance: Instance, wanted: int, cpus: int) -> None:
    """Let filters be compiled as when there were fewer CPUs, which have grown since."""
    check(wanted <= cpus, f"a filter is for {wanted} of {cpus} CPUs")
    instance.shared.cpus = wanted
