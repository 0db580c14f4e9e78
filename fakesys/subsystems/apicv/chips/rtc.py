"""Which vCPUs have not yet EOIed the last tick of the real time clock.

Like arch/x86/kvm/ioapic.c: struct rtc_status, rtc_irq_eoi (v6.1).
"""

from __future__ import annotations


class RtcStatus:
    """`vectors`: by vCPU id, of those that got the last tick and owe its EOI."""

    __slots__ = ("pending_eoi", "vectors")

    def __init__(self) -> None:
        self.pending_eoi = 0
        self.vectors: dict[int, int] = {}

    def delivered(self, vcpu_ids: list[int], vector: int) -> None:
        """A tick went to these vCPUs."""
        self.vectors = dict.fromkeys(vcpu_ids, vector)
        self.pending_eoi = len(vcpu_ids)

    def ended(self, vcpu_id: int, vector: int) -> None:
        """The vCPU EOIed this vector."""
        if self.vectors.get(vcpu_id) == vector:
            del self.vectors[vcpu_id]
            self.pending_eoi -= 1
