"""The interrupts of a VM as plain data: what the machine's state says of them."""

from __future__ import annotations

from typing import Any

from fakesys.subsystems.apicv.files.views import TEXTS, state_text, vcpu_text
from fakesys.subsystems.apicv.state.vm import ApicVm


def state(vm: ApicVm, kernel: str) -> dict[str, Any]:
    """What the views show; empty ones are left out. `kernel`: the name of the rules."""
    rows = (line.split(" ", 1) for line in state_text(vm, kernel).splitlines())
    texts = {name: show(vm).splitlines() for name, show, _ in TEXTS}
    return {
        "vm": dict(rows),
        "vcpus": {str(number): _words(vm, number) for number in vm.vcpus},
        **{name: lines for name, lines in texts.items() if lines},
    }


def _words(vm: ApicVm, number: int) -> dict[str, str]:
    """The first line of a vCPU's view; its counters stand elsewhere in the state."""
    first = vcpu_text(vm, vm.vcpus[number]).split("\n", 1)[0]
    words = (word.split("=", 1) for word in first.split())
    return dict(words)
