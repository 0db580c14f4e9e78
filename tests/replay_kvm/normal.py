"""Events as the recordings write them: tests/oracle/kvm/README.md, "normalisation"."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What the recordings leave out as noise.
NOISE = {
    "kvm_age_hva",
    "kvm_test_age_hva",
    "kvm_pvclock_update",
    "kvm_wait_lapic_expire",
    "kvm_hv_timer_state",
    "kvm_halt_poll_ns",
}
ENTRIES = {"kvm_entry", "kvm_exit"}
# What the guest's clock tells, with numbers that no recording has.
CLOCK = {"kvm_track_tsc", "kvm_update_master_clock", "kvm_write_tsc_offset"}
DROPPED_COUNTERS = re.compile(
    r"(exits|irq_exits|host_state_reload|fpu_reload|req_event|signal_exits|l1d_flush"
    r"|preemption_.*|halt_(attempted|successful)_poll|halt_poll_.*|halt_wait_.*|.*_ns|.*_hist)"
)
GAUGES = {"pages_4k", "pages_2m", "pages_1g", "mmu_unsync", "nx_lpage_splits"} | {
    "max_mmu_rmap_size",
    "max_mmu_page_hash_collisions",
}
PFN_MASK = ((1 << 52) - 1) & ~0xFFF
# Bit 11 of an spte: present for KVM.
PRESENT = 1 << 11


class Normal:
    """How one set of recordings writes events.

    `hosts`: as the recordings of ordinary hosts do. `full`: with entries, exits and faults.
    """

    def __init__(self, *, hosts: bool = False, full: bool = False) -> None:
        self.hosts = hosts
        self.full = full
        # Name of a memory -> its address, learnt when its first invalidation is told.
        self._addresses: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        # Invalidations that were fed to the model, or None where the model tells them itself.
        self.invalidated: list[tuple[str, int, int]] = []
        self._dropped = NOISE | CLOCK
        if not full:
            self._dropped |= ENTRIES
            if hosts:
                self._dropped.add("kvm_page_fault")

    def lines(self, lines: Iterable[str]) -> list[str]:
        """Return lines of a machine as the recordings write them, without noise."""
        return [line for line in map(self._line, lines) if line]

    def expected(self, lines: Iterable[str]) -> list[str]:
        """Return recorded lines without what lies beyond the memory of guests."""
        return [line for line in lines if not self._is_left_out(line)]

    def learn(self, memory: str, address: int, size: int) -> None:
        """Tell where a memory lies."""
        self._addresses[memory] = address
        self.sizes[memory] = size

    def _is_left_out(self, line: str) -> bool:
        if line.partition(":")[0] in self._dropped:
            return True
        found = re.search(r"^kvm_unmap_hva_range: .*: (\w+)\+0x(\w+) -- ", line)
        return found is not None and int(found[2], 16) >= self.sizes.get(found[1], 1 << 64)

    def _line(self, line: str) -> str:
        name, _, text = line.partition(": ")
        if name in self._dropped:
            return ""
        text = re.sub(r"(spte_requested.*)?\bpfn [0-9a-f]+", "pfn PFN", text)
        if self.hosts:
            text = re.sub(r"\b(spte|old_spte|new_spte|old|new) (0x)?([0-9a-f]+)\b", _spte, text)
            text = re.sub(r"\bsptep[: ]\S+", lambda found: f"{found[0][:6]}SPTEP", text)
        else:
            text = re.sub(r"\bspte ([0-9a-f]+)", _bits, text)
        text = re.sub(r"\bat ([0-9a-f]+)$", lambda m: f"at SPT+{int(m[1], 16) & 0xFFF:x}", text)
        if name in ("kvm_unmap_hva_range", "kvm_set_spte_hva"):
            text = self._relative(text)
        # A blank at the end of a print format is not in the recordings.
        return f"{name}: {text}".rstrip()

    def _relative(self, text: str) -> str:
        """Addresses as memory and offset."""
        numbers = [int(word, 16) for word in re.findall(r"0x([0-9a-f]+)", text)]
        if self.invalidated and not self.hosts:
            memory, start, _ = self.invalidated.pop(0)
            self._addresses.setdefault(memory, numbers[0] - start)
        memory = self._memory(numbers[0])
        base = self._addresses[memory]
        head = text.partition("0x")[0]
        return head + " -- ".join(f"{memory}+{number - base:#x}" for number in numbers)

    def _memory(self, address: int) -> str:
        below = {base: name for name, base in self._addresses.items() if base <= address}
        return below[max(below)]


def expanded(lines: Iterable[str]) -> list[str]:
    """Expand runs: `@seq FIRST LAST STEP TEXT` stands for TEXT with each number for %x."""
    found: list[str] = []
    for line in lines:
        if line.startswith("@seq "):
            _, first, last, step, text = line.split(" ", 4)
            numbers = range(int(first, 16), int(last, 16) + 1, int(step, 16))
            found.extend(text.replace("%x", f"{number:x}") for number in numbers)
        else:
            found.append(line)
    return found


def _bits(found: re.Match[str]) -> str:
    return f"spte {int(found[1], 16) & ~PFN_MASK:x}|PFN"


def _spte(found: re.Match[str]) -> str:
    value = int(found[3], 16)
    shown = f"{value & ~PFN_MASK:x}|PFN" if value & PRESENT else f"{value:x}"
    return f"{found[1]} {shown}"
