"""The host's processor, as far as its exits differ: vendor, and what it tells of an instruction."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from msgspec import Struct

from fakesys.subsystems.kvm.exits import REASONS, SVM, VMX
from fakesys.subsystems.kvm.symbols import Symbols
from fakesys.subsystems.kvm.vcpu_run import amd, intel
from fakesys.subsystems.kvm.vcpu_run.reasons import Reason

_PRESENT, _RSVD = 1, 8


def _words(symbols: Symbols) -> Mapping[str, int]:
    return {name.replace(" ", "_").lower(): value for value, name in symbols.items()}


_NUMBERS = {VMX: _words(REASONS.vmx), SVM: _words(REASONS.svm)}


class Processor(Struct, frozen=True):
    """One kind of processor.

    `details`: the module that spells the details of its exits. `decodes`: it hands over the bytes
    of the instruction that faulted (DecodeAssists), so that KVM need not read them by a walk of the
    guest's tables. `next_rip`: it tells where the next instruction is (NRIPS).
    `tells_address_size`: of IN and OUT. `reserved_is_present`: P is set in the error code of a
    fault on a reserved bit. `traces_faults`: kvm_page_fault is emitted, with shadow paging too.
    `real_mode`: the guest runs in real mode without emulation.
    """

    name: str
    isa: int
    details: ModuleType
    decodes: bool = True
    next_rip: bool = True
    tells_address_size: bool = True
    reserved_is_present: bool = True
    traces_faults: bool = True
    real_mode: bool = True

    @property
    def numbers(self) -> Mapping[str, int]:
        """The exits that it has, by name in small letters, blanks being underscores."""
        return _NUMBERS[self.isa]

    def code(self, reason: Reason) -> int:
        """Return the number of a reason, -1 where the vendor has none."""
        return reason.vmx if self.isa == VMX else reason.svm

    def error_code(self, error: int) -> int:
        """Return the error code of a page fault as this processor reports it."""
        if error & _RSVD and not self.reserved_is_present:
            return error & ~_PRESENT
        return error


PROCESSORS: Mapping[str, Processor] = {
    processor.name: processor
    for processor in (
        Processor("amd", SVM, amd),
        # The AMD processor that qemu emulates without KVM.
        Processor(
            "qemu",
            SVM,
            amd,
            decodes=False,
            next_rip=False,
            tells_address_size=False,
            reserved_is_present=False,
        ),
        Processor("intel", VMX, intel, decodes=False),
        # A host without virtualisation in hardware, which emulates real mode.
        Processor(
            "software", SVM, amd, decodes=False, traces_faults=False, real_mode=False
        ),
    )
}  # fmt: skip
