"""The order of KVM's events in `available_events`, which numbers them too.

It is the order in which the linker placed them in a 6.18; others have no better claim.
"""

from __future__ import annotations

from collections.abc import Iterable

from fakesys.core.tracepoint import Tracepoint

# fmt: off
_ORDER = ["kvm:kvm_test_age_hva", "kvm:kvm_age_hva", "kvm:kvm_unmap_hva_range", "kvm:kvm_dirty_ring_exit", "kvm:kvm_dirty_ring_reset", "kvm:kvm_dirty_ring_push", "kvm:kvm_halt_poll_ns", "kvm:kvm_async_pf_completed", "kvm:kvm_async_pf_ready", "kvm:kvm_async_pf_not_present", "kvm:kvm_async_pf_repeated_fault", "kvm:kvm_try_async_get_page", "kvm:kvm_fpu", "kvm:kvm_mmio", "kvm:kvm_ack_irq", "kvm:kvm_set_irq", "kvm:kvm_vcpu_wakeup", "kvm:kvm_userspace_exit", "kvm:kvm_rmp_fault", "kvm:kvm_vmgexit_msr_protocol_exit", "kvm:kvm_vmgexit_msr_protocol_enter", "kvm:kvm_vmgexit_exit", "kvm:kvm_vmgexit_enter", "kvm:kvm_hv_syndbg_get_msr", "kvm:kvm_hv_syndbg_set_msr", "kvm:kvm_nested_vmenter_failed", "kvm:kvm_pv_tlb_flush", "kvm:kvm_hv_send_ipi_ex", "kvm:kvm_hv_send_ipi", "kvm:kvm_hv_flush_tlb_ex", "kvm:kvm_hv_flush_tlb", "kvm:kvm_hv_timer_state", "kvm:kvm_avic_doorbell", "kvm:kvm_avic_kick_vcpu_slowpath", "kvm:kvm_avic_ga_log", "kvm:kvm_avic_unaccelerated_access", "kvm:kvm_avic_incomplete_ipi", "kvm:kvm_apicv_accept_irq", "kvm:kvm_apicv_inhibit_changed", "kvm:kvm_hv_stimer_cleanup", "kvm:kvm_hv_stimer_expiration", "kvm:kvm_hv_stimer_callback", "kvm:kvm_hv_stimer_start_one_shot", "kvm:kvm_hv_stimer_start_periodic", "kvm:kvm_hv_stimer_set_count", "kvm:kvm_hv_stimer_set_config", "kvm:kvm_hv_synic_set_msr", "kvm:kvm_hv_synic_send_eoi", "kvm:kvm_hv_synic_set_irq", "kvm:kvm_hv_notify_acked_sint", "kvm:kvm_pi_irte_update", "kvm:kvm_smm_transition", "kvm:kvm_wait_lapic_expire", "kvm:kvm_pvclock_update", "kvm:kvm_ple_window_update", "kvm:kvm_pml_full", "kvm:kvm_track_tsc", "kvm:kvm_update_master_clock", "kvm:kvm_write_tsc_offset", "kvm:vcpu_match_mmio", "kvm:kvm_emulate_insn", "kvm:kvm_skinit", "kvm:kvm_invlpga", "kvm:kvm_nested_intr_vmexit", "kvm:kvm_nested_vmexit_inject", "kvm:kvm_nested_vmexit", "kvm:kvm_nested_intercepts", "kvm:kvm_nested_vmenter", "kvm:kvm_pv_eoi", "kvm:kvm_eoi", "kvm:kvm_apic_accept_irq", "kvm:kvm_apic_ipi", "kvm:kvm_pic_set_irq", "kvm:kvm_cr", "kvm:kvm_msr", "kvm:kvm_page_fault", "kvm:kvm_inj_exception", "kvm:kvm_inj_virq", "kvm:kvm_exit", "kvm:kvm_apic", "kvm:kvm_msi_set_irq", "kvm:kvm_ioapic_delayed_eoi_inj", "kvm:kvm_ioapic_set_irq", "kvm:kvm_cpuid", "kvm:kvm_fast_mmio", "kvm:kvm_pio", "kvm:kvm_xen_hypercall", "kvm:kvm_hv_hypercall_done", "kvm:kvm_hv_hypercall", "kvm:kvm_hypercall", "kvm:kvm_entry", "kvmmmu:kvm_mmu_split_huge_page", "kvmmmu:kvm_tdp_mmu_spte_changed", "kvmmmu:kvm_mmu_spte_requested", "kvmmmu:kvm_mmu_set_spte", "kvmmmu:check_mmio_spte", "kvmmmu:kvm_mmu_zap_all_fast", "kvmmmu:fast_page_fault", "kvmmmu:handle_mmio_page_fault", "kvmmmu:mark_mmio_spte", "kvmmmu:kvm_mmu_prepare_zap_page", "kvmmmu:kvm_mmu_unsync_page", "kvmmmu:kvm_mmu_sync_page", "kvmmmu:kvm_mmu_get_page", "kvmmmu:kvm_mmu_walker_error", "kvmmmu:kvm_mmu_set_dirty_bit", "kvmmmu:kvm_mmu_set_accessed_bit", "kvmmmu:kvm_mmu_paging_element", "kvmmmu:kvm_mmu_pagetable_walk"]
# fmt: on
_RANK = {name: rank for rank, name in enumerate(_ORDER)}


def in_order(classes: Iterable[type[Tracepoint]]) -> tuple[type[Tracepoint], ...]:
    """The classes as `available_events` lists them; those that 6.18 has not come last."""
    last = len(_RANK)
    return tuple(sorted(classes, key=lambda cls: _RANK.get(f"{cls.system}:{cls.event}", last)))
