"""The VM-wide state: may the vCPUs of this VM use AVIC? Who asks, what is traced, what follows.

Three shapes of the same switch, chosen by `policy.InhibitStyle`. They speak to the VM through
`Effects`, so they know no vCPU list and no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from msgspec import Struct

from fakesys.subsystems.apicv.state.inhibit_reasons import Reason, mask_of
from fakesys.subsystems.apicv.state.policy import ApicvPolicy, InhibitStyle
from fakesys.subsystems.apicv.state.tracer import ApicTracer
from fakesys.subsystems.apicv.state.vcpu import ACTIVATE, DEACTIVATE, UPDATE, ApicVcpu


class State(Enum):
    """enum kvm_apicv_state of the third version of the series."""

    DISABLED = 0
    SUSPENDED = 1
    ACTIVATED = 2


class Effects(Struct, frozen=True):
    """What a flip does. `zap` the access page's gfn; `page`: create or delete its memslot.

    `page` tells how many memslot updates that took, one for each address space; 0: it cannot be.
    """

    request_all: Callable[[int], None]
    page: Callable[[bool], int]
    zap: Callable[[], None]


class Flips(Struct):
    """How often the VM went off and on, and what that cost in memslot updates."""

    off: int = 0
    on: int = 0
    memslot_updates: int = 0


class AccessPage:
    """The memslot behind 0xfee00000, or only its gfn."""

    def __init__(self, policy: ApicvPolicy, effects: Effects, flips: Flips) -> None:
        self.present = False
        self._policy = policy
        self._effects = effects
        self._flips = flips

    def create(self) -> None:
        """The first vCPU that is born active brings it."""
        if not self.present:
            self.present = self._effects.page(True) > 0

    def follow(self, *, active: bool) -> None:
        """The VM flipped."""
        if not self._policy.page_follows:
            if not active:
                self._effects.zap()
        elif self.present != active:
            updates = self._effects.page(active)
            self._flips.memslot_updates += updates
            # [v3/07] avic_update_access_page: it stays absent when its slot cannot be made.
            self.present = active and updates > 0


class Inhibit(Protocol):
    """The VM-wide state. `active`: the VM may use AVIC; `mask`: bits of what keeps it off."""

    flips: Flips
    page: AccessPage

    @property
    def active(self) -> bool: ...
    @property
    def state(self) -> State: ...
    @property
    def mask(self) -> int: ...
    @property
    def window_requests(self) -> int: ...

    def start(self, *, avic: bool) -> None:
        """The VM was created; `avic`: the module allows it."""

    def irqchip_created(self) -> None:
        """Its local APICs are in the kernel."""

    def enable_irq_window(self, vcpu: ApicVcpu) -> None:
        """The vCPU must wait until its guest takes interrupts."""

    def irq_window_opened(self, vcpu: ApicVcpu) -> None:
        """It does now: the vintr exit."""

    def irq_window_injected(self, vcpu: ApicVcpu) -> None:
        """The interrupt is about to be injected, and no other waits."""

    def set(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """A reason to be off has come."""

    def clear(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """It has gone."""


class EnumInhibit:
    """Disabled, suspended, activated: make_deactivate and make_activate of the series."""

    mask = 0
    window_requests = 0

    def __init__(self, policy: ApicvPolicy, tracer: ApicTracer, effects: Effects) -> None:
        self.flips = Flips()
        self.page = AccessPage(policy, effects, self.flips)
        self.state = State.DISABLED
        self._policy = policy
        self._tracer = tracer
        self._effects = effects
        self._avic = False
        self._lapics = False

    @property
    def active(self) -> bool:
        """May the VM use AVIC?"""
        return self.state is State.ACTIVATED

    def start(self, *, avic: bool) -> None:
        """It begins as disabled."""
        self._avic = avic

    def irqchip_created(self) -> None:
        """With AVIC it is activated, without a line or a request."""
        self._lapics = True
        if self._avic:
            self.state = State.ACTIVATED

    def enable_irq_window(self, vcpu: ApicVcpu) -> None:
        """Suspend, if this vCPU has AVIC on."""
        if vcpu.apicv_active and self._avic and self._lapics:
            self._deactivate(vcpu, State.SUSPENDED)

    def irq_window_opened(self, vcpu: ApicVcpu) -> None:
        """Activate, if this vCPU has AVIC off."""
        if self._avic and self._lapics and not vcpu.apicv_active:
            self._activate(vcpu)

    def irq_window_injected(self, vcpu: ApicVcpu) -> None:
        """Too late for this kernel."""

    def set(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Disable for good, for the two reasons that do."""
        if reason in self._policy.numbers and vcpu is not None:
            self._deactivate(vcpu, State.DISABLED)

    def clear(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Nothing ends the two reasons."""

    def _deactivate(self, vcpu: ApicVcpu, to: State) -> None:
        self._tracer.kvm_apicv_deactivate_request(vcpu, disable=to is State.DISABLED)
        if self.state is not State.ACTIVATED:
            return
        self.page.follow(active=False)
        self.state = to
        self.flips.off += 1
        self._effects.request_all(DEACTIVATE)

    def _activate(self, vcpu: ApicVcpu) -> None:
        self._tracer.kvm_apicv_activate_request(vcpu)
        if self.state is not State.SUSPENDED:
            return
        self.page.follow(active=True)
        self.state = State.ACTIVATED
        self.flips.on += 1
        self._effects.request_all(ACTIVATE)


class _Bits:
    """A mask of reasons: what both kinds of bit switches share by holding one."""

    def __init__(self, policy: ApicvPolicy, tracer: ApicTracer, effects: Effects) -> None:
        self.flips = Flips()
        self.page = AccessPage(policy, effects, self.flips)
        self.policy = policy
        self.tracer = tracer
        self.effects = effects
        self.mask = 0
        self.avic = False

    def changed(self, reason: Reason, *, on: bool) -> int:
        """The mask with this bit set or cleared."""
        bit = mask_of(self.policy.numbers, reason)
        return self.mask | bit if on else self.mask & ~bit

    def flip(self, *, active: bool) -> None:
        """Count it."""
        if active:
            self.flips.on += 1
        else:
            self.flips.off += 1


class FlipInhibit:
    """Bits; a call that does not flip the VM is silent. [5.6] kvm_request_apicv_update."""

    window_requests = 0

    def __init__(self, policy: ApicvPolicy, tracer: ApicTracer, effects: Effects) -> None:
        self._bits = _Bits(policy, tracer, effects)
        self._lapics = False
        self.flips = self._bits.flips
        self.page = self._bits.page

    @property
    def mask(self) -> int:
        """Bits of what keeps the VM off."""
        return self._bits.mask

    @property
    def active(self) -> bool:
        """No bit is set."""
        return not self._bits.mask

    @property
    def state(self) -> State:
        """What the enum would say."""
        return State.SUSPENDED if self._bits.mask else State.ACTIVATED

    def start(self, *, avic: bool) -> None:
        """Without AVIC a bit is set for ever."""
        self._bits.mask = 0 if avic else mask_of(self._bits.policy.numbers, Reason.DISABLED)
        self._bits.avic = avic

    def irqchip_created(self) -> None:
        """Changes no bit; only vCPUs with a local APIC toggle for a window."""
        self._lapics = True

    def enable_irq_window(self, vcpu: ApicVcpu) -> None:
        """Off while a window is needed."""
        if self._bits.avic and self._lapics:
            self.set(Reason.IRQWIN)

    def irq_window_opened(self, vcpu: ApicVcpu) -> None:
        """On again."""
        if self._bits.avic and self._lapics:
            self.clear(Reason.IRQWIN)

    def irq_window_injected(self, vcpu: ApicVcpu) -> None:
        """Too late for this kernel."""

    def set(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Set the bit."""
        self._update(reason, on=True)

    def clear(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Clear the bit."""
        self._update(reason, on=False)

    def _update(self, reason: Reason, *, on: bool) -> None:
        bits = self._bits
        if reason not in bits.policy.numbers:
            return
        was_active = self.active
        bits.mask = bits.changed(reason, on=on)
        if self.active == was_active:
            return
        bits.tracer.kvm_apicv_update_request(bits.policy.numbers[reason], activate=self.active)
        bits.flip(active=self.active)
        self.page.follow(active=self.active)
        bits.effects.request_all(UPDATE)


class BitInhibit:
    """Bits; every call has its line. [6.1] __kvm_set_or_clear_apicv_inhibit.

    `counts`: vCPUs that need a window are counted, and every change of another reason looks at
    that count again. [7.x] kvm_inc_or_dec_irq_window_inhibit.
    """

    def __init__(
        self, policy: ApicvPolicy, tracer: ApicTracer, effects: Effects, *, counts: bool
    ) -> None:
        self._bits = _Bits(policy, tracer, effects)
        self.flips = self._bits.flips
        self.page = self._bits.page
        self.window_requests = 0
        self._counts = counts

    @property
    def mask(self) -> int:
        """Bits of what keeps the VM off."""
        return self._bits.mask

    @property
    def active(self) -> bool:
        """No bit is set."""
        return not self._bits.mask

    @property
    def state(self) -> State:
        """What the enum would say."""
        return State.SUSPENDED if self._bits.mask else State.ACTIVATED

    def start(self, *, avic: bool) -> None:
        """ApicTracer for what keeps a new VM off, which nobody can ask to react yet."""
        bits = self._bits
        bits.avic = avic
        reasons = [Reason.ABSENT] if avic else [Reason.DISABLED]
        if bits.policy.absent_and_disabled and not avic:
            reasons = [Reason.ABSENT, Reason.DISABLED]
        for reason in reasons:
            bits.mask = bits.changed(reason, on=True)
            bits.tracer.kvm_apicv_inhibit_changed(bits.policy.numbers[reason], bits.mask, on=True)

    def irqchip_created(self) -> None:
        """The irqchip is not absent any more."""
        self.clear(Reason.ABSENT)

    def enable_irq_window(self, vcpu: ApicVcpu) -> None:
        """Off while a window is needed; not for a vCPU in a nested guest, which has AVIC off."""
        if vcpu.in_l2:
            return
        if not self._counts:
            self.set(Reason.IRQWIN)
        elif not vcpu.window:
            vcpu.window = True
            self._count(+1)

    def irq_window_opened(self, vcpu: ApicVcpu) -> None:
        """On again, unless windows are counted."""
        if not self._counts:
            self.clear(Reason.IRQWIN)

    def irq_window_injected(self, vcpu: ApicVcpu) -> None:
        """Give the unit back."""
        if vcpu.window:
            vcpu.window = False
            self._count(-1)

    def set(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Set the bit."""
        self._change(reason, on=True)

    def clear(self, reason: Reason, vcpu: ApicVcpu | None = None) -> None:
        """Clear the bit."""
        self._change(reason, on=False)

    def _change(self, reason: Reason, *, on: bool) -> None:
        if not self._bits.avic or reason not in self._bits.policy.numbers:
            return
        mask = self._trace(reason, self._bits.mask, on=on)
        if self._counts and reason is not Reason.IRQWIN:
            mask = self._trace(Reason.IRQWIN, mask, on=self.window_requests > 0)
        self._become(mask)

    def _count(self, step: int) -> None:
        if not self._bits.avic:
            return
        before = self.window_requests
        self.window_requests += step
        others = self._bits.changed(Reason.IRQWIN, on=False)
        if not others and not (before and self.window_requests):
            self._change(Reason.IRQWIN, on=self.window_requests > 0)

    def _trace(self, reason: Reason, mask: int, *, on: bool) -> int:
        """The mask after this change, which is traced whether it is one or not."""
        bits = self._bits
        bit = mask_of(bits.policy.numbers, reason)
        new = mask | bit if on else mask & ~bit
        bits.tracer.kvm_apicv_inhibit_changed(bits.policy.numbers[reason], new, on=on)
        return new

    def _become(self, new: int) -> None:
        bits = self._bits
        if bool(new) == bool(bits.mask):
            bits.mask = new
            return
        bits.effects.request_all(UPDATE)
        bits.mask = new
        bits.flip(active=not new)
        self.page.follow(active=not new)


def make_inhibit(policy: ApicvPolicy, tracer: ApicTracer, effects: Effects) -> Inhibit:
    """The switch that this kernel has."""
    if policy.style is InhibitStyle.ENUM:
        return EnumInhibit(policy, tracer, effects)
    if policy.style is InhibitStyle.FLIPS:
        return FlipInhibit(policy, tracer, effects)
    return BitInhibit(policy, tracer, effects, counts=policy.style is InhibitStyle.COUNTED)
