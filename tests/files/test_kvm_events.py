"""Which tracepoints of KVM no part of the machine ever emits, and why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fakesys
from fakesys.core.tracepoint import IRQS_OFF, Tracepoint
from fakesys.machine.tracing import TRACEPOINTS
from fakesys.subsystems.kvm.events.memory import KvmDirtyRingPush
from fakesys.subsystems.kvm.events.run import KvmExit
from fakesys.subsystems.kvm.exits import SVM
from fakesys.subsystems.kvm_module.kvm import SETTINGS
from fakesys.subsystems.kvm_module.kvm_amd import AMD_SETTINGS
from tests.replay_kvm.machines import all_events

HOSTS = Path(__file__).parents[1] / "oracle" / "kvm-hosts"
_TIMER = "the timer of the local APIC is not modelled"
_ASYNC = "host memory is never on its way: no page fault is asynchronous"
_SEV = "no guest is encrypted"
_HYPERV = "of Hyper-V's devices only the SynIC's effect on AVIC is modelled"
_AGE = "the host never asks which pages a guest used"

UNFIRED = {
    "kvm_wait_lapic_expire": _TIMER,
    "kvm_hv_timer_state": _TIMER,
    "kvm_pv_tlb_flush": "no vCPU has the page in which the host says that it was preempted",
    "kvm_pv_eoi": "no guest asks for paravirtual EOIs",
    "kvm_xen_hypercall": "no VM is one of Xen",
    "kvm_nested_vmenter_failed": "VMRUN of a guest never fails",
    "kvm_nested_intr_vmexit": "interrupts for L1 wait until L2 exits",
    "kvm_age_hva": _AGE,
    "kvm_test_age_hva": _AGE,
    "kvm_age_page": _AGE,
    "kvm_try_async_get_page": _ASYNC,
    "kvm_async_pf_repeated_fault": _ASYNC,
    "kvm_async_pf_not_present": _ASYNC,
    "kvm_async_pf_ready": _ASYNC,
    "kvm_async_pf_completed": _ASYNC,
    "kvm_vmgexit_enter": _SEV,
    "kvm_vmgexit_exit": _SEV,
    "kvm_vmgexit_msr_protocol_enter": _SEV,
    "kvm_vmgexit_msr_protocol_exit": _SEV,
    "kvm_rmp_fault": _SEV,
    "kvm_hv_notify_acked_sint": _HYPERV,
    "kvm_hv_synic_set_irq": _HYPERV,
    "kvm_hv_synic_send_eoi": _HYPERV,
    "kvm_hv_stimer_set_config": _HYPERV,
    "kvm_hv_stimer_set_count": _HYPERV,
    "kvm_hv_stimer_start_periodic": _HYPERV,
    "kvm_hv_stimer_start_one_shot": _HYPERV,
    "kvm_hv_stimer_callback": _HYPERV,
    "kvm_hv_stimer_expiration": _HYPERV,
    "kvm_hv_stimer_cleanup": _HYPERV,
    "kvm_hv_syndbg_set_msr": _HYPERV,
    "kvm_hv_syndbg_get_msr": _HYPERV,
    "kvm_hv_hypercall": _HYPERV,
    "kvm_hv_hypercall_done": _HYPERV,
    "kvm_hv_flush_tlb": _HYPERV,
    "kvm_hv_flush_tlb_ex": _HYPERV,
    "kvm_hv_send_ipi": _HYPERV,
    "kvm_hv_send_ipi_ex": _HYPERV,
}
# Of the second MMU; it may be there or not.
OF_THE_MMU = {
    "kvm_set_spte_hva",
    "kvm_dirty_ring_push",
    "kvm_dirty_ring_reset",
    "kvm_dirty_ring_exit",
    "kvm_tdp_mmu_spte_changed",
    "kvm_mmu_split_huge_page",
}


def sources() -> str:
    """The text of all modules that may emit something."""
    package = Path(fakesys.__file__).parent
    paths = [path for path in package.rglob("*.py") if "events" not in path.parts]
    return "\n".join(path.read_text() for path in paths)


def test_the_list_of_events_that_nothing_emits() -> None:
    text = sources()
    made = set(re.findall(r"\b(\w+)\(", text))
    unfired = {cls.event for cls in all_events() if cls.__name__ not in made}
    assert unfired - OF_THE_MMU == set(UNFIRED)


def test_the_page_on_limits_lists_them() -> None:
    page = (Path(fakesys.__file__).parent / "docs" / "limits.md").read_text()
    missing = [event for event in UNFIRED if event not in page]
    assert missing == []


# Parameters of kvm and kvm_amd that change what guests or their events do; each has its test.
EFFECTIVE = {
    "halt_poll_ns",
    "halt_poll_ns_grow",
    "halt_poll_ns_grow_start",
    "halt_poll_ns_shrink",
    "pause_filter_count",
    "pause_filter_count_grow",
    "pause_filter_count_max",
    "nrips",
    "tdp_mmu",
    "eager_page_split",
}


def test_each_parameter_has_an_effect_or_is_on_the_page_on_limits() -> None:
    page = (Path(fakesys.__file__).parent / "docs" / "limits.md").read_text()
    silent = (set(SETTINGS) | set(AMD_SETTINGS)) - EFFECTIVE
    assert [name for name in sorted(silent) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("mode", ["tdp", "shadow"])
def test_flags_are_those_that_hosts_recorded(mode: str) -> None:
    """Need-resched (N) is chance: the host's tick came."""
    recorded = {
        (event, flags.replace("N", "."))
        for _, event, flags in map(str.split, _flags_of(mode).splitlines())
    }
    found = {(name, flags) for name, _ in recorded for flags in _flags(name)}
    assert recorded <= found
    # A ring that a vCPU with shadow paging filled without mmu_lock was not recorded.
    assert found - recorded <= {("kvm_dirty_ring_push", ".....")}
    assert mode == "shadow" or found == recorded


def _flags_of(mode: str) -> str:
    return (HOSTS / f"flags-6.1-{mode}.txt").read_text()


def _flags(name: str) -> set[str]:
    cls = next(cls for cls in TRACEPOINTS if cls.event == name)
    events: list[Tracepoint] = []
    if cls is KvmExit:
        events = [KvmExit(0x78, 0, SVM, 0, 0, 0, 0, 0, 0)]
    elif cls is KvmDirtyRingPush:
        events = [KvmDirtyRingPush(0, 1, 0, 0, 0, locked) for locked in (False, True)]
    contexts = [event.context() for event in events]
    contexts = contexts or [(cls.common_flags, cls.common_preempt_count)]
    return {f"{'d' if flags & IRQS_OFF else '.'}..{depth or '.'}." for flags, depth in contexts}
