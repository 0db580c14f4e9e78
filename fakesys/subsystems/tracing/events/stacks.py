"""Call chains: which functions of the kernel lead to an event, and the addresses of all of them.

A chain depends on the event and on the task: a vCPU thread comes from KVM_RUN, the owner of a VM
from an ioctl of the VM, a worker from its own function. `symbols_text` is what `/proc/kallsyms`
shows of them, so that programs that resolve addresses find these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakesys.core.events import Task

Chain = tuple[str, ...]

# Of any system call.
CALL: Chain = ("do_syscall_64", "entry_SYSCALL_64_after_hwframe")
_IOCTL: Chain = ("__x64_sys_ioctl", *CALL)
_VM: Chain = ("kvm_vm_ioctl", *_IOCTL)
_RUN: Chain = ("kvm_arch_vcpu_ioctl_run", "kvm_vcpu_ioctl", *_IOCTL)
_ENTER: Chain = ("vcpu_enter_guest", *_RUN)
_HANDLER: Chain = ("svm_invoke_exit_handler", *_ENTER)
_WORKER: Chain = ("kthread", "ret_from_fork")
_SLOT: Chain = ("kvm_set_memslot", "__kvm_set_memory_region", *_VM)
_NOTIFIER: Chain = (
    "kvm_mmu_notifier_invalidate_range_start",
    "__mmu_notifier_invalidate_range_start",
    "zap_page_range_single",
    "__x64_sys_madvise",
    *CALL,
)
_FAULT: Chain = ("kvm_mmu_page_fault", "npf_interception", *_HANDLER)
_IDLE: Chain = ("schedule_idle", "do_idle", "cpu_startup_entry")

# What records an event, and what a write to `trace_marker` does.
PROBE = "trace_event_raw_event"
MARKER_NAME = "tracing_mark_write"
MARKER_STACK: Chain = (MARKER_NAME, "vfs_write", "ksys_write", *CALL)

# By event: the chain of a vCPU thread.
_OF_VCPU: Mapping[str, Chain] = MappingProxyType(
    {
        "kvm_entry": ("svm_vcpu_run", *_ENTER),
        "kvm_exit": _ENTER,
        "kvm_fpu": _ENTER,
        "kvm_userspace_exit": ("kvm_vcpu_ioctl", *_IOCTL),
        "kvm_page_fault": ("npf_interception", *_HANDLER),
        "kvm_pio": ("kvm_fast_pio", "io_interception", *_HANDLER),
        "kvm_mmio": ("x86_emulate_instruction", *_FAULT),
        "kvm_emulate_insn": ("x86_emulate_instruction", *_FAULT),
        "kvm_msr": ("msr_interception", *_HANDLER),
        "kvm_cr": ("cr_interception", *_HANDLER),
        "kvm_cpuid": ("kvm_emulate_cpuid", *_HANDLER),
        "kvm_hypercall": ("kvm_emulate_hypercall", *_HANDLER),
        "kvm_halt_poll_ns": ("kvm_vcpu_halt", *_RUN),
        "kvm_vcpu_wakeup": ("kvm_vcpu_halt", *_RUN),
        "kvm_apic": ("kvm_lapic_reg_write", *_FAULT),
        "kvm_eoi": ("apic_set_eoi", "kvm_lapic_reg_write", *_FAULT),
        "kvm_apic_ipi": ("kvm_apic_send_ipi", "kvm_lapic_reg_write", *_FAULT),
        "kvm_apic_accept_irq": ("__apic_accept_irq", "kvm_irq_delivery_to_apic", *_ENTER),
        "sched_switch": ("__schedule", "schedule", "kvm_vcpu_block", "kvm_vcpu_halt", *_RUN),
    }
)
# By event: the chain of any other task.
_OF_OTHERS: Mapping[str, Chain] = MappingProxyType(
    {
        "kvm_mmu_zap_all_fast": ("kvm_mmu_zap_all_fast", "kvm_page_track_flush_slot", *_SLOT),
        "kvm_mmu_prepare_zap_page": (
            "__kvm_mmu_prepare_zap_page",
            "kvm_zap_obsolete_pages",
            "kvm_mmu_zap_all_fast",
            *_SLOT,
        ),
        "kvm_tdp_mmu_spte_changed": ("tdp_mmu_set_spte", "kvm_tdp_mmu_zap_all", *_SLOT),
        **dict.fromkeys(
            ("kvm_unmap_hva_range", "kvm_age_hva", "kvm_test_age_hva", "kvm_set_spte_hva"),
            _NOTIFIER,
        ),
        "sched_switch": ("__schedule", "schedule", "do_nanosleep", *CALL),
    }
)
_FAULTS = "kvmmmu"


def chain_of(system: str, event: str, task: Task) -> Chain:
    """Return the functions that lead to an event in a task, innermost first.

    >>> chain_of("kvm", "kvm_exit", Task(7, "CPU 0/KVM", 0))[:2]
    ('vcpu_enter_guest', 'kvm_arch_vcpu_ioctl_run')
    """
    if task.pid == 0:
        return ("__schedule", *_IDLE)
    if task.comm.startswith("CPU ") and task.comm.endswith("/KVM"):
        default = ("direct_page_fault", *_FAULT) if system == _FAULTS else _ENTER
        return _OF_VCPU.get(event, default)
    if task.comm.startswith("kvm-"):
        return ("kvm_nx_lpage_recovery_worker", *_WORKER)
    return _OF_OTHERS.get(event, _VM if system in ("kvm", _FAULTS) else CALL)


MARKER_IP = 0xFFFFFFFF8149895A
"""Address of the code that records a marker. Any constant works: `trace` shows its name."""
# Where a marker is recorded: name, offset, length.
_MARKER_PLACE = (MARKER_NAME, 0x8A, 0x170)
SYMBOL_REACH = 0x1000
"""The distance of two of these functions, which counts as their length."""

_NAMES: tuple[str, ...] = tuple(
    dict.fromkeys(
        (
            PROBE,
            *_ENTER,
            *MARKER_STACK,
            *(name for chain in (*_OF_VCPU.values(), *_OF_OTHERS.values()) for name in chain),
            *("direct_page_fault", "kvm_nx_lpage_recovery_worker", *_WORKER, *_VM, *_IDLE),
        )
    )
)
ADDRESSES: Mapping[str, int] = MappingProxyType(
    {name: 0xFFFFFFFF81000000 + SYMBOL_REACH * number for number, name in enumerate(_NAMES)}
)
_SYMBOLS = {address: name for name, address in ADDRESSES.items()}


def place_of(address: int) -> tuple[str, int, int]:
    """Return the function that an address is in, the offset in it and its length in bytes."""
    if address == MARKER_IP:
        return _MARKER_PLACE
    base = address - address % SYMBOL_REACH
    return _SYMBOLS.get(base, f"0x{base:x}"), address - base, SYMBOL_REACH


def symbol(address: int, *, with_offset: bool = False, with_address: bool = False) -> str:
    """Return an address as `trace` shows it. Like kernel/trace/trace_output.c:seq_print_ip_sym."""
    name, offset, size = place_of(address)
    text = f"{name}+{offset:#x}/{size:#x}" if with_offset else name
    return f"{text} <{address:x}>" if with_address else text


def symbols_text() -> str:
    """Return these functions as `/proc/kallsyms` lists them."""
    found = {**ADDRESSES, f"{MARKER_NAME}.part.0": MARKER_IP - _MARKER_PLACE[1]}
    ordered = sorted((address, name) for name, address in found.items())
    return "".join(f"{address:016x} T {name}\n" for address, name in ordered)
