"""The parameter that chooses the host's processor."""

from __future__ import annotations

from fakesys.core.commands import words_of
from fakesys.subsystems.kvm.params import Param, Params
from fakesys.subsystems.kvm.vcpu_run.processor import PROCESSORS, Processor

PROCESSOR = Param(
    "processor",
    words_of(*PROCESSORS),
    "amd",
    "of the host; qemu: AMD's as qemu emulates it, software: none that virtualises",
)


def processor_of(params: Params) -> Processor:
    """Return the processor on which a VM that is made now runs."""
    return PROCESSORS[params[PROCESSOR]]


def processor_named(name: str) -> Processor:
    """Return the processor of this name. Raises EINVAL."""
    return PROCESSORS[PROCESSOR.parse(name)]
