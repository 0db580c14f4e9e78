"""The memory of a VM as plain data, for the machine's state JSON."""

from __future__ import annotations

from typing import Any

from fakesys.subsystems.kvm_mmu.files.views import memslots_text, mmu_text
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory


def state(memory: VmMemory) -> dict[str, Any]:
    """Return slots as the view shows them, host memory, and numbers of the MMU."""
    return {
        "host": memory.host.sizes(),
        "memslots": memslots_text(memory).splitlines(),
        "mmu": _numbers(mmu_text(memory)),
    }


def _numbers(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {name: int(value) for name, value in rows}
