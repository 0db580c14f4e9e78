"""Features by which kernels differ in the parameters of the modules `kvm` and `kvm_amd`."""

from __future__ import annotations

from fakesys.core.features import Feature


class ParamFeature(Feature):
    """One step of the parameters each; a step has the name of a parameter that came with it."""

    MMIO_CACHING = "kvm.param_mmio_caching"
    """The parameters that came after 5.4 and until 6.1, or changed their type in that time."""
    ENABLE_VIRT_AT_LOAD = "kvm.param_enable_virt_at_load"
    """The same after 6.1 and until 6.12."""
    UNSAFE_MAPPINGS = "kvm.param_allow_unsafe_mappings"
    """The same after 6.12 and until 6.18."""
    BOOLEAN_AVIC = "apicv.boolean_parameter"
    """`kvm_amd.avic` is a bool (5.7), not a number."""
    SEV_SNP = "apicv.param_sev_snp"
    """What came after 6.1 and until 6.12."""
    FORCE_AVIC = "apicv.force_avic"
    """AVIC can be used on processors that do not announce it (5.17)."""
    ENABLE_IPIV = "apicv.enable_ipiv"
    """IPI virtualization can be switched off on its own (6.17)."""
