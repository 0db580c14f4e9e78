"""All of tracing as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from fakesys.core.errors import KernelError
from fakesys.core.saved import BadSnapshotError, Natural, Saved, check
from fakesys.subsystems.tracing.base.options import NOP_ACCEPT
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.instances.tracing import COPY_MARKER, MAX_CPUS, PRINTK_DEST, Tracing
from fakesys.subsystems.tracing.saved.events import check_events, restore_events, restore_hists
from fakesys.subsystems.tracing.saved.hists import Tables
from fakesys.subsystems.tracing.saved.instance import (
    SavedInstance,
    restore_instance,
    restore_options,
    save_instance,
)
from fakesys.subsystems.tracing.saved.shared import SavedShared, restore_shared, save_shared
from fakesys.subsystems.tracing.saved.synthetic import (
    SavedSynthetic,
    restore_synthetic,
    save_synthetic,
)
from fakesys.subsystems.tracing.saved.values import Name, name_of, name_text

Number = Annotated[int, Meta(ge=0, lt=1 << 32)]


class SavedTracing(Saved, frozen=True):
    """The top directory and all instances.

    `names`: of all instances but the first of `instances`, which is the top directory. Others
    refer to an instance by its place in `instances`.
    `ids`: the numbers of all events by name, to refuse pages of another kernel.
    `attached`: the instances that hear of an event, in this order.
    `markers`: the instances that record markers of the top directory, newest first.
    """

    cpus: Annotated[int, Meta(ge=1, le=MAX_CPUS)]
    ids: dict[str, Number]
    names: tuple[Name, ...]
    instances: tuple[SavedInstance, ...]
    attached: dict[str, tuple[Natural, ...]]
    markers: tuple[Natural, ...]
    shared: SavedShared
    synthetic: SavedSynthetic


def save(tracing: Tracing) -> SavedTracing:
    """Return all of tracing as plain values."""
    instances = tracing.every_instance()
    place = {id(instance): number for number, instance in enumerate(instances)}
    tables = Tables(instances)
    return SavedTracing(
        cpus=tracing.shared.cpus,
        ids=_ids(tracing),
        names=tuple(map(name_text, tracing.instances)),
        instances=tuple(save_instance(instance, tables) for instance in instances),
        attached=_attached(tracing, place),
        markers=tuple(place[id(instance)] for instance in tracing.marker_copies),
        shared=save_shared(tracing.shared, tracing.watch),
        synthetic=save_synthetic(tracing.synthetic, tracing.shared.catalog),
    )


def restore(saved: SavedTracing, tracing: Tracing) -> None:
    """Fill a new tracing of the same kernel; its clock has the time of the snapshot already.

    Raises BadSnapshotError for a state that no machine can have.
    """
    try:
        _restore(saved, tracing)
    except (BadSnapshotError, KernelError) as error:
        why = error.why if isinstance(error, KernelError) else error
        raise BadSnapshotError(f"tracing: {why}") from None


def _restore(saved: SavedTracing, tracing: Tracing) -> None:
    restore_synthetic(saved.synthetic, tracing.synthetic, tracing.shared.catalog)
    check(saved.ids == _ids(tracing), "its events have other numbers than those of this kernel")
    check(len(saved.instances) == 1 + len(saved.names), "there are other names than instances")
    for name in saved.names:
        check(name not in (".", ".."), f"{name!r} is no name of an instance")
        tracing.make_instance(name_of(name))
    instances = tracing.every_instance()
    pairs = list(zip(saved.instances, instances, strict=True))
    for one, instance in pairs:
        restore_options(one, instance.options)
    _restore_markers(saved, tracing, instances)
    _attach(saved.attached, instances)
    for one, instance in pairs:
        restore_events(one.events, instance, cpus=saved.cpus)
    restore_hists([(instance, one.events) for one, instance in pairs], cpus=saved.cpus)
    for _, instance in pairs:
        check_events(instance)
    tracing.shared.cpus = saved.cpus
    for one, instance in pairs:
        restore_instance(one, instance, cpus=saved.cpus)
        instance.pids_changed()
    restore_shared(saved.shared, tracing.shared, tracing.watch)


def _ids(tracing: Tracing) -> dict[str, int]:
    return {form.name: form.id for form in tracing.shared.catalog.by_id.values()}


def _attached(tracing: Tracing, place: Mapping[int, int]) -> dict[str, tuple[int, ...]]:
    """Return `SavedTracing.attached`; `place`: of each instance, by id()."""
    rank = tracing.shared.catalog.rank
    found = sorted(tracing.listeners.attached(), key=lambda files: rank(files[0].form))
    return {
        files[0].form.name: tuple(place[id(file.recorder)] for file in files) for files in found
    }


def _attach(attached: Mapping[str, tuple[int, ...]], instances: list[Instance]) -> None:
    by_name = instances[0].shared.catalog.by_name
    for name, places in attached.items():
        check(name in by_name, f"there is no event {name!r}")
        for instance in _chosen(places, instances):
            instance.file(by_name[name]).enable()


def _restore_markers(saved: SavedTracing, tracing: Tracing, instances: list[Instance]) -> None:
    """Set who records markers. Raises BadSnapshotError, also for options that contradict."""
    chosen = _chosen(saved.markers, instances)
    tracing.marker_copies[:] = chosen
    options = [instance.options for instance in instances]
    check(len({each[NOP_ACCEPT] for each in options}) == 1, f"{NOP_ACCEPT} is on in some instances")
    if PRINTK_DEST in options[0].names():
        takers = sum(each[PRINTK_DEST] for each in options)
        check(takers == 1, f"{takers} instances take what trace_printk() writes")
    if COPY_MARKER not in options[0].names():
        check(saved.markers == (0,), "markers go to another instance")
        return
    copying = [instance for instance in instances if instance.options[COPY_MARKER]]
    check(
        set(map(id, chosen)) == set(map(id, copying)),
        f"markers do not go where {COPY_MARKER} is on",
    )


def _chosen(places: tuple[int, ...], instances: list[Instance]) -> list[Instance]:
    check(len(set(places)) == len(places), "an instance is named twice")
    check(all(place < len(instances) for place in places), "there is no such instance")
    return [instances[place] for place in places]
