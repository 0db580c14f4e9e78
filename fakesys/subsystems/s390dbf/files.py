"""`debug/s390dbf/NAME`: level, pages, flush and the view sprintf.

Source: arch/s390/kernel/debug.c: debug_level_view, debug_pages_view, debug_flush_view,
debug_sprintf_view, debug_dflt_header_fn (v6.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from errno import EINVAL
from typing import NamedTuple

from msgspec.structs import replace

from fakesys.core.errors import KernelError
from fakesys.subsystems.s390dbf.model import MOST_PAGES, OFF, DebugFeature, DebugFeatures, Entry
from fakesys.tree.attr import Attr, Children, Layout, Mount
from fakesys.tree.kinds import DEBUGFS

# A text of the moment of the open; writes of any length.
VIEW = replace(DEBUGFS, name="debugfs-view", store_limit=None)
_NUMBER = re.compile(r"[ \t\n\v\f\r]*([0-9]*)")
# Where code of a feature would be.
_CALLER = 0x3FF8000_1000


class View(NamedTuple):
    """A feature and the register."""

    features: DebugFeatures
    feature: DebugFeature


def _number(text: str) -> int | None:
    """Return the number in a text, None for other texts. Like debug.c:debug_get_uint (v6.1)."""
    body = text.removesuffix("\n")
    found = _NUMBER.fullmatch(body)
    if found is None:
        return None
    value = int(found[1][-24:] or "0") % (1 << 32)
    return None if value >> 31 else value


def _set_level(view: View, text: str) -> None:
    features, feature = view
    if text.startswith("-"):
        features.set_level(feature, OFF)
        return
    level = _number(text)
    if level is None:
        shown = text.removesuffix("\n")
        features.kernel.log(f"s390dbf: {shown} is not a valid level for a debug feature")
        raise KernelError(EINVAL, f"{shown!r} is no level")
    features.set_level(feature, level)


def _set_pages(view: View, text: str) -> None:
    pages = _number(text)
    if pages is None or pages > MOST_PAGES:
        raise KernelError(EINVAL, f"{text!r} is no number of pages up to {MOST_PAGES}")
    view.features.set_pages(view.feature, pages)


def _flush(view: View, text: str) -> None:
    # There is one area, with number 0.
    if text.startswith(("-", "0")):
        view.feature.entries.clear()
    elif not text[:1].isdigit():
        why = f"{text[:1]} is not a valid area"
        view.features.kernel.log(f"s390dbf: Flushing debug data failed because {why}")


def _line(view: View, entry: Entry) -> str:
    seconds, rest = divmod(entry.time_ns // 1000, 1_000_000)
    place = list(view.features.all).index(view.feature.name)
    caller = _CALLER + place * 0x40_0000
    return f"00 {seconds:011d}:{rest:06d} {entry.level} - 0000 {caller:016x}  {entry.text}\n"


FEATURE: Layout[View] = Layout(
    (
        Attr(
            name="level",
            mode=0o600,
            doc="Messages up to this level are kept: 3 errors, 4 warnings, 5 information,"
            " 6 debugging; `-` for none.",
            show=lambda view: "-\n" if view.feature.level == OFF else f"{view.feature.level}\n",
            store=_set_level,
            errors={EINVAL: "neither a number nor `-`"},
        ),
        Attr(
            name="pages",
            mode=0o600,
            doc="How many pages of messages are kept, at most 1024 here.",
            show=lambda view: f"{view.feature.pages}\n",
            store=_set_pages,
            errors={EINVAL: "not a number, or too large"},
        ),
        Attr(
            name="flush",
            mode=0o200,
            doc="Write `-` or `0` to drop the messages.",
            store=_flush,
        ),
        Attr(
            name="sprintf",
            mode=0o400,
            doc="The messages: area, time, level, exception, CPU, caller, text.",
            show=lambda view: "".join(_line(view, entry) for entry in view.feature.entries),
        ),
    ),
    kind=VIEW,
)


def _view(features: DebugFeatures, name: str) -> View | None:
    feature = features.find(name)
    return None if feature is None else View(features, feature)


TOP: Layout[DebugFeatures] = Layout(
    (Children(names=DebugFeatures.present, get=_view, layout=FEATURE, label="NAME"),),
    kind=DEBUGFS,
)


def mount(features: Callable[[], DebugFeatures]) -> Mount:
    """Return where the files appear."""
    return Mount("sys/kernel/debug/s390dbf", TOP, features)
