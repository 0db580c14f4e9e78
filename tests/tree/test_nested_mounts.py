"""A mount below another mount's directory comes and goes with its model."""

from __future__ import annotations

from fakesys.core.events import Bus, Changed
from fakesys.tree.attr import Layout, Mount
from fakesys.tree.binder import Binder
from fakesys.tree.node import Directory


def test_changed_none_reaches_the_directories_of_outer_mounts() -> None:
    bus, there = Bus(), [object()]
    mounts = (
        Mount("outer", Layout(), lambda: "outer model"),
        Mount("outer/inner", Layout(), lambda: there[0] if there else None),
    )
    binder = Binder(bus, frozenset(), mounts)
    outer = binder.root.lookup("outer")
    assert isinstance(outer, Directory)
    inner = outer.lookup("inner")
    assert inner is not None
    there.clear()
    bus.emit(Changed((None,)))
    assert [(name, node) for _, name, node in binder.settle().gone] == [("inner", inner)]
    assert inner.gone
    assert outer.lookup("inner") is None
    there.append(object())
    bus.emit(Changed((None,)))
    assert binder.settle().new == [(outer, "inner")]
