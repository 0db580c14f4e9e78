"""The IOAPIC alone."""

from __future__ import annotations

from fakesys.subsystems.apicv.chips.ioapic import SUCCESSIVE_MAX, Ioapic


def test_a_pin_that_got_more_ends_while_it_was_delayed_still_counts_as_a_storm() -> None:
    ioapic = Ioapic()
    ioapic.pins[4].level, ioapic.pins[4].masked, ioapic.irr = True, False, 1 << 4
    for _ in range(SUCCESSIVE_MAX + 5):
        assert ioapic.end_level(4)
    assert ioapic.is_storm(4)
    assert not ioapic.is_storm(4)
