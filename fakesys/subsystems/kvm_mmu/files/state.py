"""The memory of a VM as plain data: what the machine's state says of it."""

from __future__ import annotations

from typing import Any

from fakesys.subsystems.kvm_mmu.files.views import memslots_text, mmu_text
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory


def state(memory: VmMemory) -> dict[str, Any]:
    """Slots as the view shows them, host memory, numbers of the MMU; shadow pages as a count."""
    return {
        "host": memory.host.sizes(),
        "memslots": memslots_text(memory).splitlines(),
        "mmu": _numbers(mmu_text(memory)),
    }


def _numbers(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {name: int(value) for name, value in rows}
