"""Halt polling: a vCPU that halts is watched for a while before its thread sleeps.

Follows virt/kvm/kvm_main.c:kvm_vcpu_halt, grow_halt_poll_ns, shrink_halt_poll_ns,
update_halt_poll_stats (v6.1, v6.12).
"""

from __future__ import annotations

from collections.abc import Mapping

from fakesys.subsystems.kvm.events.run import KvmHaltPollNs, KvmVcpuWakeup
from fakesys.subsystems.kvm.stats import bucket_of
from fakesys.subsystems.kvm.vcpu_run.run import VcpuRun

# The parameters of the module kvm, with the values that they have unless they were written.
MAX_NS, GROW, GROW_START = 200_000, 2, 10_000
_U32 = 0xFFFFFFFF


class HaltPolling:
    """The parameters. `settings`: what was written to them, as text. `shrink`: its default."""

    def __init__(self, settings: Mapping[str, str], shrink: int) -> None:
        self._settings = settings
        self._shrink = shrink

    @property
    def max_ns(self) -> int:
        """The longest time that a vCPU polls, 0: none does."""
        return self._number("halt_poll_ns", MAX_NS)

    @property
    def grow(self) -> int:
        """The factor by which the time grows, 0: it does not."""
        return self._number("halt_poll_ns_grow", GROW)

    @property
    def grow_start(self) -> int:
        """The shortest time that is not 0."""
        return self._number("halt_poll_ns_grow_start", GROW_START)

    @property
    def shrink(self) -> int:
        """The divisor by which the time shrinks, 0: to nothing."""
        return self._number("halt_poll_ns_shrink", self._shrink)

    def is_awake(self, run: VcpuRun, halted_ns: int) -> bool:
        """Return whether a vCPU that halted so long ago still polls, so that nothing wakes it."""
        return halted_ns < min(run.halt_poll_ns, self.max_ns)

    def end(self, run: VcpuRun, halt_ns: int) -> None:
        """Account a halt of so many nanoseconds, and adapt how long the vCPU polls next time."""
        longest = self.max_ns
        run.halt_poll_ns = min(run.halt_poll_ns, longest)
        polled = run.halt_poll_ns
        waited = halt_ns >= polled
        if waited:
            _count_wait(run, halt_ns - polled)
        if polled:
            _count_poll(run, min(halt_ns, polled), success=not waited)
        if longest:
            self._adapt(run, halt_ns, longest)
        else:
            run.halt_poll_ns = 0
        run.emit(KvmVcpuWakeup, lambda: KvmVcpuWakeup(ns=halt_ns, waited=waited, valid=True))

    def _adapt(self, run: VcpuRun, halt_ns: int, longest: int) -> None:
        polls = run.halt_poll_ns
        if halt_ns <= polls:
            return
        if polls and halt_ns > longest:
            self._change(run, self._shrunk(polls), grow=False)
        elif polls < longest and halt_ns < longest:
            self._change(run, self._grown(polls), grow=True)

    def _grown(self, polls: int) -> int:
        if not self.grow:
            return polls
        return max(polls * self.grow & _U32, self.grow_start)

    def _shrunk(self, polls: int) -> int:
        left = polls // self.shrink if self.shrink else 0
        return 0 if left < self.grow_start else left

    def _change(self, run: VcpuRun, new: int, *, grow: bool) -> None:
        old, run.halt_poll_ns = run.halt_poll_ns, new
        run.emit(KvmHaltPollNs, lambda: KvmHaltPollNs(grow=grow, vcpu_id=run.id, new=new, old=old))

    def _number(self, name: str, default: int) -> int:
        text = self._settings.get(name)
        return default if text is None else int(text)


def _count_wait(run: VcpuRun, waited_ns: int) -> None:
    run.stats.halt_wait_ns += waited_ns
    run.stats.halt_wait_hist[bucket_of(waited_ns)] += 1


def _count_poll(run: VcpuRun, polled_ns: int, *, success: bool) -> None:
    stats = run.stats
    stats.halt_attempted_poll += 1
    if success:
        stats.halt_successful_poll += 1
        stats.halt_poll_success_ns += polled_ns
        stats.halt_poll_success_hist[bucket_of(polled_ns)] += 1
    else:
        stats.halt_poll_fail_ns += polled_ns
        stats.halt_poll_fail_hist[bucket_of(polled_ns)] += 1
