"""Values that are made when they are first asked for."""

from __future__ import annotations

import pytest

from fakesys.core.scheduling.later import Later, LaterMapping


def test_it_is_made_once_at_the_first_call() -> None:
    made: list[int] = []

    def make() -> list[int]:
        made.append(1)
        return made

    value = Later(make)
    assert (value.is_made, made) == (False, [])
    assert value() is value() is made
    assert (value.is_made, made) == (True, [1])


def test_what_making_raises_passes_on_and_is_tried_again() -> None:
    attempts = iter((ValueError("no"), None))

    def make() -> str:
        error = next(attempts)
        if error is not None:
            raise error
        return "made"

    value = Later(make)
    with pytest.raises(ValueError, match="no"):
        value()
    assert value() == "made"


def test_two_calls_at_a_time_get_the_same() -> None:
    inner: list[object] = []

    def make() -> object:
        # As a call that comes while the first one rests between two slices.
        if not inner:
            inner.append(None)
            inner[0] = value()
        return object()

    value = Later(make)
    assert value() is inner[0]


def test_a_mapping_is_made_when_it_is_looked_at() -> None:
    made: list[int] = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"a": 1, "b": 2}

    mapping = LaterMapping(make)
    assert made == []
    assert (dict(mapping), len(mapping), mapping["b"], "c" in mapping) == (
        {"a": 1, "b": 2},
        2,
        2,
        False,
    )
    assert made == [1]
