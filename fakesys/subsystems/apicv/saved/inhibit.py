"""The VM-wide state of AVIC in a snapshot: which reasons keep it off, in the kernel's own form."""

from __future__ import annotations

from typing import Literal

from fakesys.core.saved import U32, Natural, Saved, check
from fakesys.subsystems.apicv.state.inhibit import (
    BitInhibit,
    EnumInhibit,
    FlipInhibit,
    Flips,
    Inhibit,
    State,
)
from fakesys.subsystems.apicv.state.inhibit_reasons import Reason, mask_of
from fakesys.subsystems.apicv.state.policy import ApicvPolicy
from fakesys.subsystems.apicv.state.vm import ApicVm

_STATES: dict[State, Literal["disabled", "suspended", "activated"]] = {
    State.DISABLED: "disabled",
    State.SUSPENDED: "suspended",
    State.ACTIVATED: "activated",
}


class SavedInhibit(Saved, frozen=True):
    """`mask`: bits of the reasons. `state`: only of the kernel that has a state in place of bits.

    `off`, `on`: how often the VM went off and on.
    """

    mask: U32
    state: Literal["disabled", "suspended", "activated"] | None
    off: Natural
    on: Natural


def save_inhibit(inhibit: Inhibit) -> SavedInhibit:
    """Return what a snapshot holds of the state."""
    state = _STATES[inhibit.state] if isinstance(inhibit, EnumInhibit) else None
    flips = inhibit.flips
    return SavedInhibit(mask=inhibit.mask, state=state, off=flips.off, on=flips.on)


def restore_inhibit(saved: SavedInhibit, vm: ApicVm, windows: int) -> None:
    """Set the state of a VM. `windows`: number of vCPUs that wait for a window and are counted.

    Raises BadSnapshotError for a state that the VM's kernel, module and irqchip exclude.
    """
    inhibit, allowed = vm.inhibit, vm.module.avic
    inhibit.flips = Flips(saved.off, saved.on)
    if isinstance(inhibit, EnumInhibit):
        _restore_state(saved, inhibit, vm)
        return
    check(saved.state is None, "this kernel has inhibit reasons, no state")
    numbers = vm.policy.numbers
    check(not saved.mask & ~mask_of(numbers, *numbers), f"inhibit reasons {saved.mask:#x}")
    disabled = bool(saved.mask & mask_of(numbers, Reason.DISABLED))
    check(disabled == (not allowed), f"inhibit reasons {saved.mask:#x}: DISABLED")
    if isinstance(inhibit, FlipInhibit):
        inhibit.mask, inhibit.avic, inhibit.lapics = saved.mask, allowed, vm.has_lapics
    elif isinstance(inhibit, BitInhibit):
        _restore_bits(saved.mask, inhibit, vm)
        inhibit.window_requests = windows if allowed else 0


def _restore_state(saved: SavedInhibit, inhibit: EnumInhibit, vm: ApicVm) -> None:
    known = {word: state for state, word in _STATES.items()}
    check(saved.state is not None and not saved.mask, "this kernel has a state, no reasons")
    inhibit.state = known[saved.state or "disabled"]
    inhibit.avic, inhibit.lapics = vm.module.avic, vm.has_lapics
    check(vm.avic or inhibit.state is State.DISABLED, f"AVIC of {vm.kvm.name} is not disabled")


def _restore_bits(mask: int, inhibit: BitInhibit, vm: ApicVm) -> None:
    inhibit.mask, inhibit.avic = mask, vm.module.avic
    if not vm.module.avic:
        check(mask == without_avic(vm.policy), f"inhibit reasons {mask:#x} without AVIC")
        return
    absent = bool(mask & mask_of(vm.policy.numbers, Reason.ABSENT))
    check(absent == (not vm.has_lapics), f"inhibit reasons {mask:#x}: ABSENT")


def without_avic(policy: ApicvPolicy) -> int:
    """Return the bits of a VM whose module does not allow AVIC; they never change."""
    reasons = [Reason.ABSENT, Reason.DISABLED] if policy.absent_and_disabled else [Reason.DISABLED]
    return mask_of(policy.numbers, *reasons)
