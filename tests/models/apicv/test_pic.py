"""The two 8259 alone: spurious vectors and level-triggered pins, which no command makes."""

from __future__ import annotations

import pytest

from fakesys.subsystems.apicv.chips.pic import Pic


class Rig:
    """Both chips, unmasked, from vector 0x30; what they asked for and told."""

    def __init__(self, *, wakes_for_nothing: bool = False) -> None:
        self.woken = 0
        self.ended: list[int] = []
        self.pic = Pic(
            wake=self._wake, acked=self.ended.append, wakes_for_nothing=wakes_for_nothing
        )
        self.pic.configure(0x30, 0, auto_eoi=False)

    def _wake(self) -> None:
        self.woken += 1

    def set(self, pin: int, *, level: bool) -> int:
        return self.pic.set_irq(pin, 0, level=level, traced=lambda _result: None)


def test_nothing_to_acknowledge_is_pin_7() -> None:
    assert Rig().pic.acknowledge() == 0x37


def test_nothing_at_the_slave_is_its_pin_7() -> None:
    rig = Rig()
    rig.set(10, level=True)
    # The slave's request went while the master still has its own.
    rig.pic.slave.irr = 0
    assert rig.pic.acknowledge() == 0x3F
    assert rig.pic.master.isr == 1 << 2


@pytest.mark.parametrize("level", [False, True])
def test_how_a_pin_is_triggered(level: bool) -> None:
    rig = Rig()
    rig.pic.master.elcr = 1 << 3 if level else 0
    assert rig.set(3, level=True) == 1
    assert rig.pic.acknowledge() == 0x33
    # A level stays requested as long as the line is high.
    assert bool(rig.pic.master.irr) is level
    rig.pic.end(rig.pic.master)
    assert rig.ended == [3]
    assert rig.pic.output is level
    rig.set(3, level=False)
    assert rig.pic.master.requested() == -1


def test_an_end_of_nothing() -> None:
    rig = Rig()
    rig.pic.end(rig.pic.master)
    assert rig.ended == []


def test_a_line_of_two_sources_is_high_until_both_let_go() -> None:
    rig = Rig()
    rig.set(3, level=True)
    rig.pic.set_irq(3, 2, level=True, traced=lambda _result: None)
    rig.pic.acknowledge()
    rig.set(3, level=False)
    assert rig.pic.master.last_irr == 1 << 3
    rig.pic.set_irq(3, 2, level=False, traced=lambda _result: None)
    assert rig.pic.master.last_irr == 0


def test_a_state_that_is_set_wakes_for_what_waits_only() -> None:
    rig = Rig(wakes_for_nothing=True)
    before = rig.woken
    rig.pic.configure(0x30, 0xFFFF, auto_eoi=False)
    assert rig.woken == before
    rig.set(3, level=True)
    before = rig.woken
    rig.pic.configure(0x30, 0, auto_eoi=False)
    assert rig.woken == before + 1
