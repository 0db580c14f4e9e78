"""Which vCPUs have not sent an EOI for the last tick of the real time clock.

Like arch/x86/kvm/ioapic.c: struct rtc_status, rtc_irq_eoi (v6.1).
"""

from __future__ import annotations


class RtcStatus:
    """EOIs that are missing for the last tick.

    `vectors`: vCPU id -> vector, for the vCPUs that still owe it. `pending_eoi`: their number.
    """

    __slots__ = ("pending_eoi", "vectors")

    def __init__(self) -> None:
        self.pending_eoi = 0
        self.vectors: dict[int, int] = {}

    def record_delivery(self, vcpu_ids: list[int], vector: int) -> None:
        """Expect an EOI from each of these vCPUs."""
        self.vectors = dict.fromkeys(vcpu_ids, vector)
        self.pending_eoi = len(vcpu_ids)

    def record_eoi(self, vcpu_id: int, vector: int) -> None:
        """Note an EOI; it counts only if the vCPU got the tick with this vector."""
        if self.vectors.get(vcpu_id) == vector:
            del self.vectors[vcpu_id]
            self.pending_eoi -= 1
