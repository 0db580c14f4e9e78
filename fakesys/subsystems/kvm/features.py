"""Features by which kernels differ in the files and events of KVM itself."""

from __future__ import annotations

from fakesys.core.features import Feature


class KvmFeature(Feature):
    """Differences in the counters of debugfs and, with `TRACE_`, in the events of system `kvm`."""

    STRICT_NUMBERS = "debugfs.strict_numbers"
    """Simple attributes accept a number only (5.10, later also in older stable kernels)."""
    STATS_DESCRIBED = "kvm.stats_described"
    """Counters carry a descriptor (5.14): several were renamed, many are new."""
    STATS_PAGE_FAULTS = "kvm.stats_page_faults"
    """Page faults are counted by outcome (6.0)."""
    STATS_NX_PAGES = "kvm.stats_nx_pages"
    """The counter of huge pages split because of no-execute (5.4)."""
    VCPU_PID_FILE = "kvm.vcpu_pid_file"
    VCPU_GUEST_MODE_FILE = "kvm.vcpu_guest_mode_file"
    RMAPS_STAT_FILE = "kvm.rmaps_stat_file"

    TRACE_VCPU = "trace.kvm_vcpu"
    """What came with 5.4: exits name the vCPU, failed entries of nested guests are traced."""
    TRACE_STATE = "trace.kvm_state"
    """What came until 6.1: entries and exits record the guest's state; many events are new."""
    TRACE_NAMES = "trace.kvm_inhibit_names"
    """What came until 6.12: inhibit reasons have names, hypercalls tell from where they came."""
    TRACE_REQUESTS = "trace.kvm_requests"
    """What came until 6.18: exits record pending requests, entries the injected event."""
    TRACE_FAULT_VCPU = "trace.kvm_fault_vcpu"
    """Faults name the vCPU; pages are aged without an event each."""
    TRACE_DIRTY_RING = "trace.dirty_ring"
    TRACE_NO_CHANGE_PTE = "trace.no_change_pte"
    """The host no longer tells KVM of a changed page table entry."""
    TRACE_APICV_REQUEST_PAIR = "trace.apicv_request_pair"
    """Starting and stopping APICv are two requests with an event each."""
    TRACE_APICV_REQUEST_BIT = "trace.apicv_request_bit"
    """One request serves both; its event carries the number of the reason."""
