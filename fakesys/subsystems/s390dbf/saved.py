"""The debug features in a snapshot."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import U63, Line, Saved, check
from fakesys.subsystems.s390dbf.model import (
    MOST_LEVEL,
    MOST_PAGES,
    OFF,
    DebugFeature,
    DebugFeatures,
    Entry,
)

_Level = Annotated[int, Meta(ge=OFF, le=MOST_LEVEL)]


class SavedFeature(Saved, frozen=True):
    """A feature; each message with its time and level, the oldest first."""

    level: _Level
    pages: Annotated[int, Meta(ge=0, le=MOST_PAGES)]
    entries: tuple[tuple[U63, _Level, Line], ...]


class SavedFeatures(Saved, frozen=True):
    """All features, present or not."""

    ap: SavedFeature
    zcrypt: SavedFeature
    pkey: SavedFeature
    vfio_ap: SavedFeature


def save(features: DebugFeatures) -> SavedFeatures:
    """Return what a snapshot holds of the features."""
    return SavedFeatures(**{name: _save(feature) for name, feature in features.all.items()})


def _save(feature: DebugFeature) -> SavedFeature:
    return SavedFeature(level=feature.level, pages=feature.pages, entries=tuple(feature.entries))


def restore(saved: SavedFeatures, features: DebugFeatures) -> None:
    """Fill the features. Raises BadSnapshotError."""
    now = features.kernel.clock.now_ns
    for name, feature in features.all.items():
        found: SavedFeature = getattr(saved, name)
        feature.level = found.level
        feature.set_pages(found.pages)
        check(len(found.entries) <= feature.capacity, f"{name} has more messages than pages")
        check(all(time <= now for time, _, _ in found.entries), f"{name} has later messages")
        feature.entries.extend(Entry(*entry) for entry in found.entries)
