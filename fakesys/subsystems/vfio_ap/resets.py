"""Resets of the queues that are bound to vfio_ap, and the answers that were not normal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from fakesys.core.errors import KernelError
from fakesys.core.kernel import Kernel
from fakesys.core.text import ids
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.ap_bus.hardware import Hardware
from fakesys.subsystems.ap_bus.queues.answers import BUSY, NORMAL, RESET_IN_PROGRESS
from fakesys.subsystems.vfio_ap.assignments import Assignments
from fakesys.subsystems.vfio_ap.policy import VfioApPolicy


class Module(Protocol):
    """What resets need of the module: log, hardware, the choices of the kernel, and its queues."""

    kernel: Kernel
    policy: VfioApPolicy
    bound: Sequence[int]

    @property
    def hardware(self) -> Hardware:
        """The hardware that queues are reset on."""


class QueueResets:
    """Resets queues and knows which of them answered their last reset badly.

    A failed reset never stops an operation.
    """

    def __init__(self, module: Module, assignments: Assignments[Any]) -> None:
        self._module = module
        self._assignments = assignments
        # Answer other than NORMAL -> mask of domains per adapter.
        self._bad: dict[int, list[int]] = {}

    def reset(self, queues: Mapping[int, int]) -> int:
        """Reset these queues (adapter -> domains), or those that are bound, as the policy says.

        Return the errno that the last queue with a failed reset has for a user who asked for it; 0
        without one.
        """
        errno = 0
        for apid, wanted in queues.items():
            mask = wanted if self._policy.resets.unbound else wanted & self._module.bound[apid]
            if mask:
                errno = self._errno(self.reset_row(apid, mask)) or errno
        return errno

    def reset_for_user(self, queues: Mapping[int, int]) -> None:
        """Reset queues because a user asked for it. Raises the errno of the last that fails."""
        errno = self.reset(queues)
        if errno:
            raise KernelError(errno, "a queue of the matrix was not reset")

    def reset_row(self, apid: int, mask: int) -> Mapping[int, int]:
        """Reset queues of one adapter, which turns their interrupts off; return the answers.

        Like vfio_ap_ops.c:vfio_ap_mdev_reset_queue (v6.1). Differs: Linux 6.12 waits, not ended by
        any signal, until a queue answers otherwise that answers 02 or 05; here nothing waits.
        """
        answers = self._module.hardware.zeroize(apid, mask, self._policy.resets.attempts)
        bound = self._module.bound[apid]
        for rc in answers:
            if rc != NORMAL:
                self._bad.setdefault(rc, [0] * 256)
        for rc, rows in self._bad.items():
            rows[apid] = rows[apid] & ~mask | answers.get(rc, 0) & bound
        for holder in self._assignments.holders_of(apid, mask):
            holder.forget_interrupts(apid, mask)
        if self._policy.resets.warns:
            self._wait_for_empty(apid, answers.get(NORMAL, 0))
        return answers

    @property
    def _policy(self) -> VfioApPolicy:
        return self._module.policy

    def _errno(self, answers: Mapping[int, int]) -> int:
        """Return the errno of the last of the queues with an answer that has one."""
        failed = [(mask.bit_length(), rc) for rc, mask in answers.items() if rc != NORMAL]
        return self._policy.resets.errnos.get(max(failed)[1], 0) if failed else 0

    def _wait_for_empty(self, apid: int, mask: int) -> None:
        """Log the queues that answer oddly after a reset. Like vfio_ap_mdev_wait_for_qempty."""
        fine = (NORMAL, RESET_IN_PROGRESS, BUSY)
        odd = self._module.hardware.by_answer(apid, mask) if mask else {}
        for rc in sorted(odd.keys() - set(fine)):
            for apqi in ids(odd[rc]):
                self._module.kernel.log(
                    f"vfio_ap_mdev_wait_for_qempty: tapq response {rc:02x} "
                    f"waiting for queue {Apqn(apid, apqi)} empty"
                )

    def forget(self, apid: int, mask: int) -> None:
        """Forget the answers of queues that leave the driver."""
        for rows in self._bad.values():
            rows[apid] &= ~mask

    def passable(self, bad_answers: Collection[int]) -> Sequence[int]:
        """Return the bound domains per adapter whose last reset has none of these answers."""
        rows = [self._bad[rc] for rc in bad_answers if rc in self._bad]
        if not rows:
            return self._module.bound
        return [bound & ~_union(rows, apid) for apid, bound in enumerate(self._module.bound)]

    @property
    def bad(self) -> Mapping[int, Sequence[int]]:
        """The answers other than the normal one that were seen, with the domains per adapter."""
        return self._bad

    def restore(self, bad: Mapping[int, Mapping[int, int]]) -> None:
        """Know these bad answers: answer -> adapter -> mask of domains."""
        self._bad = {rc: [rows.get(apid, 0) for apid in range(256)] for rc, rows in bad.items()}

    def state(self) -> dict[str, Any]:
        """Return the bad answers as plain data: answer -> adapter -> mask."""
        return {
            f"{rc:02x}": {f"{apid:02x}": hex(mask) for apid, mask in enumerate(rows) if mask}
            for rc, rows in sorted(self._bad.items())
        }


def _union(rows: Sequence[Sequence[int]], apid: int) -> int:
    mask = 0
    for row in rows:
        mask |= row[apid]
    return mask
