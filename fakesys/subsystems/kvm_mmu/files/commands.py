"""The commands of `fakesys/kvm/ctl` that concern memory, in the order of its help."""

from __future__ import annotations

from fakesys.core.commands import Verb
from fakesys.subsystems.kvm_mmu.extension import MmuExtension
from fakesys.subsystems.kvm_mmu.files.vcpu_commands import vcpu_verbs
from fakesys.subsystems.kvm_mmu.files.vm_commands import (
    host_verbs,
    ioctl_verbs,
    memory_verbs,
    race_verbs,
)


def verbs() -> tuple[Verb[MmuExtension], ...]:
    """Return all commands; `Interpreter` runs them on the `MmuExtension`."""
    return (*memory_verbs(), *vcpu_verbs(), *ioctl_verbs(), *host_verbs(), *race_verbs())
