"""The interrupts of a VM as plain data, for the machine's state."""

from __future__ import annotations

from typing import Any

from fakesys.subsystems.apicv.files.views import TEXTS, state_text, vcpu_text
from fakesys.subsystems.apicv.state.vm import ApicVm


def state(vm: ApicVm, kernel: str) -> dict[str, Any]:
    """Return what the views show, without those that are empty. `kernel`: name of the kernel."""
    rows = (line.split(" ", 1) for line in state_text(vm, kernel).splitlines())
    texts = {name: show(vm).splitlines() for name, show, _ in TEXTS}
    return {
        "vm": dict(rows),
        "vcpus": {str(number): _words(vm, number) for number in vm.vcpus},
        **{name: lines for name, lines in texts.items() if lines},
    }


def _words(vm: ApicVm, number: int) -> dict[str, str]:
    """Return the first line of a vCPU's view; its counters are elsewhere in the state."""
    first = vcpu_text(vm, vm.vcpus[number]).split("\n", 1)[0]
    words = (word.split("=", 1) for word in first.split())
    return dict(words)
