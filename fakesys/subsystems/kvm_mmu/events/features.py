"""Features by which kernels differ in the tracepoints of system `kvmmmu`."""

from __future__ import annotations

from fakesys.core.features import Feature


class MmuFeature(Feature):
    """Differences in what the events of the shadow MMU record and print."""

    TRACE_VALID_GEN = "trace.mmu_valid_gen"
    """Events of shadow pages record the generation."""
    TRACE_WIDE_GEN = "trace.mmu_valid_gen_wide"
    """The generation is an unsigned long, printed in hex."""
    TRACE_ZAP_FAST = "trace.mmu_zap_all_fast"
    TRACE_SPTES = "trace.mmu_sptes"
    """Sptes that are set, and those that a fault requests, are traced."""
    TRACE_TDP = "trace.mmu_tdp"
    """The TDP MMU is traced; a fast fault records how it ended."""
    TRACE_FAULT_GPA = "trace.mmu_fault_gpa"
    """A fast fault calls its address cr2_or_gpa (later 5.4.y)."""
    TRACE_WIDE_CODE = "trace.mmu_wide_error_code"
    """Fault codes have 64 bits (6.10), and a fast fault has other results (6.12)."""
    TRACE_CODE_NAMES = "trace.mmu_error_code_names"
    """Bits of fault codes have the names PK, SS, SGX, too (after 6.12)."""
    SHORT_GPTE = "mmu.role_has_4_byte_gpte"
    """Bit 4 of a role says that the guest's entries have 4 bytes; before, that they have 8."""
