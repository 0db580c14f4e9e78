"""Features: the differences between kernels that decide which rows and events exist.

Each subsystem declares its features once, as members of an enumeration derived from `Feature`:

    class ApFeature(Feature):
        STRICT_POLL = "ap.strict_poll"

A kernel profile lists members, a row or a tracepoint names them in `needs=` and `unless=`. A text
in place of a member is a type error.
"""

from __future__ import annotations

from enum import StrEnum


class Feature(StrEnum):
    """Base of the enumerations of features. Values are unique over all subsystems."""


# What `needs=` and `unless=` take: one feature or several.
Features = Feature | tuple[Feature, ...]
FeatureSet = frozenset[Feature]


def has_features(needs: Features, unless: Features, features: FeatureSet) -> bool:
    """Return whether all of `needs` and none of `unless` are among `features`."""
    wanted = (needs,) if isinstance(needs, Feature) else needs
    banned = (unless,) if isinstance(unless, Feature) else unless
    return features.issuperset(wanted) and features.isdisjoint(banned)
