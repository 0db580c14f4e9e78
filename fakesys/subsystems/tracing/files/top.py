"""The tables of `sys/kernel/tracing`: the top directory and `instances/`, at two places."""

from __future__ import annotations

from errno import EBUSY, EEXIST, EINVAL, ENODEV, ENOENT

from fakesys.subsystems.tracing.files import settings
from fakesys.subsystems.tracing.files.instance import COMMON, INSTANCE
from fakesys.subsystems.tracing.files.readme import readme
from fakesys.subsystems.tracing.instances.instance import Instance, Owner
from fakesys.subsystems.tracing.instances.tracing import Tracing
from fakesys.tree.attr import Attr, Children, Dir, Layout, Mount
from fakesys.tree.kinds import TRACEFS, TRACEFS_SEQ, TRACEFS_STREAM

PLACES = ("sys/kernel/tracing", "sys/kernel/debug/tracing")
DEFINITION = {
    EINVAL: "the definition is wrong: error_log says where and why",
    EEXIST: "there is such an event",
    ENOENT: "there is no such event to remove",
    EBUSY: "it is enabled, or a histogram makes or counts it",
    ENODEV: "all numbers of events are taken",
}

INSTANCES: Layout[Owner] = Layout(
    rows=(
        Children(
            names=lambda owner: owner.instances,
            get=lambda owner, name: owner.instances.get(name),
            layout=INSTANCE,
        ),
    ),
    mode=0o750,
    mkdir=lambda owner, name: owner.make_instance(name),
    rmdir=lambda owner, name: owner.remove_instance(name),
)
TOP: Layout[Instance] = Layout(
    rows=(
        *COMMON,
        Attr(
            name="README",
            mode=0o440,
            show=lambda instance: readme(instance.shared.build),
            doc="What the files here are for.",
        ),
        Attr(
            name="available_events",
            mode=0o440,
            kind=TRACEFS_SEQ,
            show=settings.available_events,
            doc="All events, SYSTEM:EVENT.",
        ),
        Attr(
            name="saved_cmdlines",
            mode=0o440,
            kind=TRACEFS_SEQ,
            show=lambda instance: instance.shared.cmdlines.text(),
            doc="Names of the tasks seen in events.",
        ),
        Attr(
            name="saved_cmdlines_size",
            mode=0o640,
            kind=TRACEFS_STREAM,
            show=lambda instance: f"{instance.shared.cmdlines.size}\n",
            store=settings.write_cmdlines_size,
            doc="How many names are kept.",
            errors={EINVAL: "not a number from 1 to 32768"},
        ),
        Attr(
            name="saved_tgids",
            mode=0o440,
            kind=TRACEFS_SEQ,
            show=lambda instance: instance.shared.cmdlines.tgids_text(),
            doc="Thread groups of tasks, while record-tgid is on.",
        ),
        Attr(
            name="printk_formats",
            mode=0o440,
            kind=TRACEFS_SEQ,
            show=lambda instance: "",
            doc="Formats of trace_printk: none.",
        ),
        Attr(
            name="synthetic_events",
            mode=0o640,
            kind=TRACEFS_SEQ,
            present=lambda instance: instance.shared.build.hist,
            show=lambda instance: instance.owner.synthetic.text(),
            store=settings.write_synthetic,
            truncate=lambda instance: instance.owner.synthetic.clear(),
            doc="Events that histograms make: NAME TYPE FIELD[; ...], !NAME.",
            errors=DEFINITION,
        ),
        Attr(
            name="dynamic_events",
            mode=0o640,
            kind=TRACEFS_SEQ,
            present=lambda instance: instance.shared.build.hist,
            show=lambda instance: instance.owner.synthetic.dynamic_text(),
            store=settings.write_dynamic,
            truncate=lambda instance: instance.owner.synthetic.clear(),
            doc="The same: s:[synthetic/]NAME TYPE FIELD[; ...], -:[synthetic/]NAME.",
            errors=DEFINITION,
        ),
        Dir(name="instances", layout=INSTANCES, of=lambda instance: instance.owner),
    ),
    mode=0o700,
    kind=TRACEFS,
)


def mounts(tracing: Tracing) -> tuple[Mount, ...]:
    """Return the two mounts of the top directory."""
    return tuple(Mount(place, TOP, lambda: tracing.top) for place in PLACES)
