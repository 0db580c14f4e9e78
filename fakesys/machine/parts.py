"""What is saved of a machine: its models and its settings."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from fakesys.core.kernel import Kernel
from fakesys.machine.profiles import Profile
from fakesys.machine.scenario import Origin
from fakesys.subsystems.ap_control.model import ApSystem
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.control.faults import Faults
from fakesys.subsystems.control.model import Refusal
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm_mmu.extension import MmuExtension
from fakesys.subsystems.selftest.model import Selftest
from fakesys.subsystems.tracing.instances.tracing import Tracing


class Parts(Struct, frozen=True, kw_only=True):
    """The models and settings of a machine: all that makes it differ from another one.

    `origin` is what the machine was made from and what `reset` goes back to; `profile` and `seed`
    are those of now. `uevents` and `log` are the journals: number of the last record, records.
    """

    kernel: Kernel
    ap: ApSystem
    kvm: Kvm
    memory: MmuExtension
    apicv: Apicv
    tracing: Tracing
    selftest: Selftest | None
    origin: Origin
    profile: Profile
    seed: int
    lockdown: bool
    faults: Faults
    last_error: Refusal | None
    uevents: tuple[int, tuple[Any, ...]]
    log: tuple[int, tuple[str, ...]]
