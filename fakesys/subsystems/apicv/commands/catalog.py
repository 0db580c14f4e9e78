"""The commands of `fakesys/kvm/ctl` about vCPUs, interrupts and what keeps AVIC off."""

from __future__ import annotations

from fakesys.core.commands import Verb
from fakesys.subsystems.apicv.commands import guest as verbs_guest
from fakesys.subsystems.apicv.commands import host as verbs_host
from fakesys.subsystems.apicv.commands import vcpu as verbs_vcpu
from fakesys.subsystems.apicv.model import Apicv

VERBS: tuple[Verb[Apicv], ...] = (*verbs_vcpu.VERBS, *verbs_guest.VERBS, *verbs_host.VERBS)
