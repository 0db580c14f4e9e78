"""Why KVM_RUN returns, and those registers of a vCPU that matter here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from fakesys.subsystems.kvm_mmu.guest.programs import CODE


class Exit(IntEnum):
    """Why KVM_RUN returned: KVM_EXIT_*."""

    IO = 2
    HLT = 5
    MMIO = 6
    SHUTDOWN = 8
    INTR = 10
    INTERNAL_ERROR = 17
    DIRTY_RING_FULL = 31


# User space answers these and calls KVM_RUN again.
ANSWERED = (Exit.IO, Exit.MMIO)


class MmioType(IntEnum):
    """The field `type` of kvm_mmio."""

    UNSATISFIED_READ = 0
    READ = 1
    WRITE = 2


class VcpuExit(NamedTuple):
    """An exit to user space. `mmio`: address, whether it is a write, length.

    A non-zero `errno` means that KVM_RUN failed and there was no exit.
    """

    reason: Exit | None
    mmio: tuple[int, bool, int] | None = None
    errno: int = 0


def no_handler() -> VcpuExit | None:
    """Handle no SMI."""
    return None


@dataclass(eq=False)
class Registers:
    """Those registers of a vCPU that matter here. `mmio_data`: the buffer shared with user space.

    `ready`: they were set, so that the paging mode is known.
    """

    rip: int = CODE
    real_mode: bool = False
    ready: bool = False
    mmio_data: bytes = bytes(8)

    cs_base: int = 0
    smi_pending: bool = False
    # Where RSM returns to: rip, and whether that is real mode. None outside of SMM.
    interrupted: tuple[int, bool] | None = None

    @property
    def in_smm(self) -> bool:
        """Whether the vCPU is in system management mode."""
        return self.interrupted is not None

    @property
    def is_paged(self) -> bool:
        """Whether the guest has paging on."""
        return self.ready and not self.real_mode
