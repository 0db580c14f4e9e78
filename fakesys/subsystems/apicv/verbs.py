"""The commands of `fakesys/kvm/ctl` about vCPUs, interrupts and what keeps AVIC off."""

from __future__ import annotations

from fakesys.core.commands import Verb
from fakesys.subsystems.apicv import verbs_guest, verbs_host, verbs_vcpu
from fakesys.subsystems.apicv.model import Apicv

VERBS: tuple[Verb[Apicv], ...] = (*verbs_vcpu.VERBS, *verbs_guest.VERBS, *verbs_host.VERBS)
