"""All commands of `fakesys/kvm/ctl` about vCPUs, interrupts and AVIC."""

from __future__ import annotations

from fakesys.core.commands import Verb
from fakesys.subsystems.apicv.commands import controllers, devices, exits, guest, vcpu
from fakesys.subsystems.apicv.model import Apicv

VERBS: tuple[Verb[Apicv], ...] = (
    *vcpu.VERBS,
    *exits.VERBS,
    *guest.VERBS,
    *controllers.VERBS,
    *devices.VERBS,
)
