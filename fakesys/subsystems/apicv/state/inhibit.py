"""The VM-wide state of AVIC: on or off, what keeps it off, and what is traced when that changes.

`Inhibit` has three implementations, one of which `make_inhibit` chooses by `InhibitStyle`:

* `EnumInhibit`: disabled, suspended or activated ([v3] of the series);
* `FlipInhibit`: a bit per reason, traced when AVIC goes off or on ([5.6]);
* `BitInhibit`: a bit per reason, every call traced ([6.1]), windows counted or not ([7.x]).

They know the access page and a function that makes a request to all vCPUs, but no VM. `avic`: the
module allows AVIC. `lapics`: the local APICs are in the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from msgspec import Struct

from fakesys.subsystems.apicv.state.access_page import AccessPage
from fakesys.subsystems.apicv.state.inhibit_reasons import Reason, mask_of
from fakesys.subsystems.apicv.state.policy import ApicvPolicy, InhibitStyle
from fakesys.subsystems.apicv.state.tracer import ApicTracer
from fakesys.subsystems.apicv.state.vcpu import ACTIVATE, DEACTIVATE, UPDATE, ApicVcpu

RequestAll = Callable[[int], None]
"""Makes an APICv request to all vCPUs of the VM."""


class State(Enum):
    """enum kvm_apicv_state of the third version of the series."""

    DISABLED = 0
    SUSPENDED = 1
    ACTIVATED = 2


class Flips(Struct):
    """How often the VM went off and on."""

    off: int = 0
    on: int = 0

    def count(self, *, active: bool) -> None:
        """Count a change to this state."""
        if active:
            self.on += 1
        else:
            self.off += 1


class Inhibit(Protocol):
    """The VM-wide state.

    `active`: the VM may use AVIC. `mask`: bits of the reasons that keep it off, 0 without bits.
    `state`: the same as the enumeration of the series. `window_requests`: number of vCPUs that
    wait for an interrupt window, where they are counted.
    """

    flips: Flips

    @property
    def active(self) -> bool: ...
    @property
    def state(self) -> State: ...
    @property
    def mask(self) -> int: ...
    @property
    def window_requests(self) -> int: ...

    def start(self, *, avic: bool) -> None:
        """Set the state of a VM that was just created. `avic`: the module allows AVIC."""

    def irqchip_created(self, *, allowed: bool) -> None:
        """React to the creation of the local APICs. `allowed`: AVIC works with this irqchip."""

    def enable_irq_window(self, vcpu: ApicVcpu) -> None:
        """Switch AVIC off until the guest of this vCPU takes interrupts."""

    def irq_window_opened(self, vcpu: ApicVcpu) -> None:
        """React to the exit (VINTR) that says that the guest takes interrupts now."""

    def irq_window_injected(self, vcpu: ApicVcpu) -> None:
        """React to the injection that ends the window: no further interrupt is pending."""

    def set(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Set a reason to be off; nothing happens in kernels that do not know it.

        `vcpu`: the vCPU that causes it, if there is one. Like x86.c:kvm_set_apicv_inhibit (v6.1).
        """

    def clear(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Clear a reason. Like x86.c:kvm_clear_apicv_inhibit (v6.1)."""


class EnumInhibit:
    """Disabled, suspended or activated: make_deactivate and make_activate of the series."""

    mask = 0
    window_requests = 0

    def __init__(
        self, policy: ApicvPolicy, tracer: ApicTracer, page: AccessPage, request_all: RequestAll
    ) -> None:
        self.flips = Flips()
        self.state = State.DISABLED
        self._policy = policy
        self._tracer = tracer
        self._page = page
        self._request_all = request_all
        self.avic = False
        self.lapics = False

    @property
    def active(self) -> bool:
        """Whether the VM may use AVIC."""
        return self.state is State.ACTIVATED

    def start(self, *, avic: bool) -> None:
        """Leave the VM disabled until it has local APICs."""
        self.avic = avic

    def irqchip_created(self, *, allowed: bool) -> None:
        """Activate AVIC where it is allowed; there is no event and no request."""
        self.lapics = True
        if self.avic and allowed:
            self.state = State.ACTIVATED

    def enable_irq_window(self, vcpu: ApicVcpu) -> None:
        """Suspend the VM if AVIC is on on this vCPU."""
        if vcpu.apicv_active and self.avic and self.lapics:
            self._deactivate(vcpu, State.SUSPENDED)

    def irq_window_opened(self, vcpu: ApicVcpu) -> None:
        """Activate the VM if AVIC is off on this vCPU."""
        guarded = self._policy.suspends_for_window and self.avic and self.lapics
        if guarded and not vcpu.apicv_active:
            self._activate(vcpu)

    def irq_window_injected(self, vcpu: ApicVcpu) -> None:
        """Do nothing: in this kernel the window ended with the exit."""

    def set(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Disable the VM for good; only two reasons do that."""
        if reason in self._policy.numbers and vcpu is not None:
            self._deactivate(vcpu, State.DISABLED)

    def clear(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Do nothing: the two reasons are permanent."""

    def _deactivate(self, vcpu: ApicVcpu, to: State) -> None:
        self._tracer.kvm_apicv_deactivate_request(vcpu, disable=to is State.DISABLED)
        if self.state is not State.ACTIVATED:
            return
        self._page.follow(active=False)
        self.state = to
        self.flips.count(active=False)
        self._request_all(DEACTIVATE)

    def _activate(self, vcpu: ApicVcpu) -> None:
        self._tracer.kvm_apicv_activate_request(vcpu)
        if self.state is not State.SUSPENDED:
            return
        self._page.follow(active=True)
        self.state = State.ACTIVATED
        self.flips.count(active=True)
        self._request_all(ACTIVATE)


class FlipInhibit:
    """A bit per reason; only a call that flips the VM is traced. [5.6] kvm_request_apicv_update."""

    window_requests = 0

    def __init__(
        self, policy: ApicvPolicy, tracer: ApicTracer, page: AccessPage, request_all: RequestAll
    ) -> None:
        self.flips = Flips()
        self.mask = 0
        self._numbers = policy.numbers
        self._tracer = tracer
        self._page = page
        self._request_all = request_all
        self.avic = False
        self.lapics = False

    @property
    def active(self) -> bool:
        """Whether no bit is set."""
        return not self.mask

    @property
    def state(self) -> State:
        """The state as the enumeration of the series names it."""
        return State.SUSPENDED if self.mask else State.ACTIVATED

    def start(self, *, avic: bool) -> None:
        """Set DISABLED for good if the module does not allow AVIC."""
        self.mask = 0 if avic else mask_of(self._numbers, Reason.DISABLED)
        self.avic = avic

    def irqchip_created(self, *, allowed: bool) -> None:
        """Let windows inhibit AVIC from now on; no bit changes."""
        self.lapics = True

    def enable_irq_window(self, vcpu: ApicVcpu) -> None:
        """Set IRQWIN."""
        if self.avic and self.lapics:
            self.set(Reason.IRQWIN)

    def irq_window_opened(self, vcpu: ApicVcpu) -> None:
        """Clear IRQWIN."""
        if self.avic and self.lapics:
            self.clear(Reason.IRQWIN)

    def irq_window_injected(self, vcpu: ApicVcpu) -> None:
        """Do nothing: in this kernel the window ended with the exit."""

    def set(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Set the bit."""
        self._update(reason, on=True)

    def clear(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Clear the bit."""
        self._update(reason, on=False)

    def _update(self, reason: Reason, *, on: bool) -> None:
        if reason not in self._numbers:
            return
        was_active = self.active
        bit = mask_of(self._numbers, reason)
        self.mask = self.mask | bit if on else self.mask & ~bit
        if self.active == was_active:
            return
        self._tracer.kvm_apicv_update_request(self._numbers[reason], activate=self.active)
        self.flips.count(active=self.active)
        self._page.follow(active=self.active)
        self._request_all(UPDATE)


class BitInhibit:
    """A bit per reason; every call is traced. [6.1] __kvm_set_or_clear_apicv_inhibit.

    `counts`: vCPUs that need a window are counted, and every change of another reason evaluates
    that count again. [7.x] kvm_inc_or_dec_irq_window_inhibit.
    """

    def __init__(
        self,
        policy: ApicvPolicy,
        tracer: ApicTracer,
        page: AccessPage,
        request_all: RequestAll,
        *,
        counts: bool,
    ) -> None:
        self.flips = Flips()
        self.mask = 0
        self.window_requests = 0
        self._counts = counts
        self._policy = policy
        self._tracer = tracer
        self._page = page
        self._request_all = request_all
        self.avic = False

    @property
    def active(self) -> bool:
        """Whether no bit is set."""
        return not self.mask

    @property
    def state(self) -> State:
        """The state as the enumeration of the series names it."""
        return State.SUSPENDED if self.mask else State.ACTIVATED

    def start(self, *, avic: bool) -> None:
        """Set and trace what inhibits a new VM; it has no vCPU yet to make a request to."""
        self.avic = avic
        reasons = [Reason.ABSENT] if avic else [Reason.DISABLED]
        if self._policy.absent_and_disabled and not avic:
            reasons = [Reason.ABSENT, Reason.DISABLED]
        for reason in reasons:
            self.mask = self._trace(reason, self.mask, on=True)

    def irqchip_created(self, *, allowed: bool) -> None:
        """Clear ABSENT."""
        self.clear(Reason.ABSENT)

    def enable_irq_window(self, vcpu: ApicVcpu) -> None:
        """Set IRQWIN, or count the vCPU; not for one in a nested guest, where AVIC is off."""
        if vcpu.in_l2:
            return
        if not self._counts:
            self.set(Reason.IRQWIN)
        elif not vcpu.counts_window:
            vcpu.counts_window = True
            self._count(+1)

    def irq_window_opened(self, vcpu: ApicVcpu) -> None:
        """Clear IRQWIN, unless windows are counted."""
        if not self._counts:
            self.clear(Reason.IRQWIN)

    def irq_window_injected(self, vcpu: ApicVcpu) -> None:
        """Count the vCPU no longer."""
        if vcpu.counts_window:
            vcpu.counts_window = False
            self._count(-1)

    def set(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Set the bit."""
        self._change(reason, on=True)

    def clear(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Clear the bit."""
        self._change(reason, on=False)

    def _change(self, reason: Reason, *, on: bool) -> None:
        if not self.avic or reason not in self._policy.numbers:
            return
        mask = self._trace(reason, self.mask, on=on)
        if self._counts and reason is not Reason.IRQWIN:
            mask = self._trace(Reason.IRQWIN, mask, on=self.window_requests > 0)
        self._become(mask)

    def _count(self, step: int) -> None:
        if not self.avic:
            return
        before = self.window_requests
        self.window_requests += step
        others = self.mask & ~mask_of(self._policy.numbers, Reason.IRQWIN)
        if not others and not (before and self.window_requests):
            self._change(Reason.IRQWIN, on=self.window_requests > 0)

    def _trace(self, reason: Reason, mask: int, *, on: bool) -> int:
        """Trace the call and return the mask after it, which may be the same as before."""
        bit = mask_of(self._policy.numbers, reason)
        new = mask | bit if on else mask & ~bit
        self._tracer.kvm_apicv_inhibit_changed(self._policy.numbers[reason], new, on=on)
        return new

    def _become(self, new: int) -> None:
        if bool(new) == bool(self.mask):
            self.mask = new
            return
        self._request_all(UPDATE)
        self.mask = new
        self.flips.count(active=not new)
        self._page.follow(active=not new)


def make_inhibit(
    policy: ApicvPolicy, tracer: ApicTracer, page: AccessPage, request_all: RequestAll
) -> Inhibit:
    """Return the state in the form that this kernel has."""
    if policy.style is InhibitStyle.ENUM:
        return EnumInhibit(policy, tracer, page, request_all)
    if policy.style is InhibitStyle.FLIPS:
        return FlipInhibit(policy, tracer, page, request_all)
    counts = policy.style is InhibitStyle.COUNTED
    return BitInhibit(policy, tracer, page, request_all, counts=counts)
