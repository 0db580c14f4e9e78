"""Operands and options of the commands that concern memory, and what refusals have in common."""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENOENT

from fakesys.core.commands import (
    Args,
    Operand,
    Option,
    OptionalOperand,
    flag,
    number,
    number_within,
    octets,
    size,
    word,
    words_of,
)
from fakesys.core.errors import KernelError
from fakesys.core.scheduling.resched import might_resched
from fakesys.subsystems.kvm.files.commands import vm_of
from fakesys.subsystems.kvm_mmu.extension import MmuExtension
from fakesys.subsystems.kvm_mmu.shadow.policy import ZapFlow
from fakesys.subsystems.kvm_mmu.slots.memslots import LOG_DIRTY_PAGES, READONLY
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

MAX_ACCESSES = 1 << 28

_FLAG_NAMES = {"log_dirty": LOG_DIRTY_PAGES, "readonly": READONLY}


def _flags(text: str) -> int:
    """Parse `log_dirty,readonly` or a number. Raises EINVAL, ERANGE."""
    if text[:1].isdigit():
        return number(text)
    flags = 0
    for name in text.split(","):
        if name not in _FLAG_NAMES:
            raise KernelError(EINVAL, f"{name!r} is neither log_dirty nor readonly")
        flags |= _FLAG_NAMES[name]
    return flags


def _hugetlb(text: str) -> int:
    found = size(text)
    if found not in (0, 2 << 20, 1 << 30):
        raise KernelError(EINVAL, f"{text!r} is neither 2M nor 1G")
    return found


def _regions(text: str) -> tuple[int, ...]:
    return tuple(number(word) for word in text.split(","))


SLOT = Operand("SLOT", number)
MEM = Operand("MEM", word)
FLAGS = Option("flags", _flags, 0, "log_dirty, readonly, or a number")
GPA = Option("gpa", number, 0, "guest physical address", required=True)
BYTES = Option("size", size, 0, "bytes", required=True)
BACKING = Option("mem", word, "", "the memory behind it")
OFFSET = Option("off", size, 0, "offset within the memory")
ADDRESS = Option("ua", number, 0, "a raw host address, without memory behind it")
THP = Option("thp", flag, False, "1: in pages of 2 MiB")
HUGETLB = Option("hugetlb", _hugetlb, 0, "size of the pages of hugetlbfs: 2M or 1G")
POPULATE = Option("populate", flag, True, "0: no page is there before it is touched")
HEX = Option("hex", octets, b"", "bytes as hex digits", required=True)
TABLES = Option("n", number_within(1, 512), 32, "page tables, 2 MiB each")
LARGE = Option[tuple[int, ...]]("large", _regions, (), "regions mapped by one 2 MiB entry")
REAL_MODE = Option("real", flag, False, "1: real mode")
KIND = Operand("r|w|x", words_of("r", "w", "x"), one_of=("r", "w", "x"))
WHERE = Operand("ADDR", number)
TIMES = Option("n", number_within(1, MAX_ACCESSES), 1, "how many accesses")
STRIDE = Option("stride", size, 4096, "bytes from one access to the next")
VALUE = Option[int | None]("value", number, None, "what is written, 8 bytes")
CR3_VALUE = Operand("VALUE", number)
FIRST = Option("first", number, 0, "first page", required=True)
PAGES = Option("n", number, 0, "number of pages", required=True)
ENTRIES = Option("n", number_within(1, 4096), 1, "number of entries")
CAP = Operand("NR", number)
ARGUMENT = Operand("ARG", number)
MASK = Operand("MASK", number)
BUDGET = OptionalOperand[int | None]("N", number, None)
CALLS = Option("n", number_within(1, 1 << 20), 1, "calls")
PROTECTION = Option("prot", words_of("r", "rw"), "rw", "what the host may do", required=True)
_ACTIONS = ("invalidate", "unmap", "munmap", "collapse")
HOST_ACTION = Operand("|".join(_ACTIONS), words_of(*_ACTIONS), one_of=_ACTIONS)
RACE_SLOT = Option("slot", number, 0, "the slot to delete", required=True)
RACERS = Option("vcpus", number_within(0, 64), 4, "vCPUs that fault meanwhile")
WORKING_SET = Option("ws", size, 64 << 20, "bytes that each vCPU touches")
FLOW = Option[str | None](
    "flow", words_of(*(flow.value for flow in ZapFlow)), None, "the flow; else the kernel's"
)
SEED = Option("seed", number, 1, "of the order in which the vCPUs begin")
MAX_ROUNDS = Option(
    "max_rounds", number_within(1, 1_000_000), 100_000, "drops of the lock until it is given up"
)
MAX_TIME = Option("max_time", number_within(1, 3600), 60, "virtual seconds until it is given up")
PAUSE = Option("pause", number_within(1, 1_000_000), 0, "drops of the lock until it is paused")

NO_VM = {ENOENT: "there is no such VM"}
NO_VCPU = {ENOENT: "there is no such VM or vCPU, or it is closed"}
NO_MEMORY = {ENOENT: "there is no such VM or memory"}
PAUSED = {EBUSY: "a race of the VM is paused"}


def memory_of(mmu: MmuExtension, args: Args) -> VmMemory:
    """Return the memory of the VM that a command names, which may take long. Raises ENOENT."""
    memory = mmu.memories[vm_of(mmu.kvm, args)]
    if memory.takes_long:
        might_resched()
    return memory


def slots_of(mmu: MmuExtension, args: Args) -> VmMemory:
    """Return the memory of the VM for an ioctl that takes slots_lock. Raises ENOENT, EBUSY."""
    memory = memory_of(mmu, args)
    memory.require_slots()
    return memory
