"""Translations and registers of vCPUs in a snapshot."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import Natural, Saved, check, check_range
from fakesys.subsystems.kvm_mmu.guest.programs import AFTER_DOORBELL, CODE
from fakesys.subsystems.kvm_mmu.guest.vcpu_run import Guest, Registers
from fakesys.subsystems.kvm_mmu.mmu.roots import wanted_roots
from fakesys.subsystems.kvm_mmu.saved.packed import GENERATION_END
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch, Request
from fakesys.subsystems.kvm_mmu.shadow.role import INVALID
from fakesys.subsystems.kvm_mmu.shadow.vcpu import MmioCache, Paging, VcpuMmu

_REQUESTS = Request.RELOAD | Request.TLB_FLUSH | Request.TLB_FLUSH_GUEST


class SavedMmioCache(Saved, frozen=True):
    """The last MMIO page that the vCPU accessed."""

    gva: Natural
    gfn: Natural
    generation: Natural


class SavedRegisters(Saved, frozen=True):
    """See `Registers`. `ended`: rip is behind a program that has ended, not where one begins."""

    ended: bool
    real_mode: bool
    ready: bool
    mmio_data: Annotated[bytes, Meta(min_length=8, max_length=8)]


class SavedMmuVcpu(Saved, frozen=True):
    """One vCPU. `roots`: rows of its root pages. `requests`: KVM_REQ_* that concern memory."""

    paging: Paging
    cr3: Natural
    roots: Annotated[list[Natural], Meta(max_length=4)]
    requests: Natural
    mmio: SavedMmioCache | None
    registers: SavedRegisters


def save_vcpu(mmu: VcpuMmu, guest: Guest) -> SavedMmuVcpu:
    """Return what a snapshot holds of a vCPU."""
    registers, cache = guest.registers, mmu.mmio
    return SavedMmuVcpu(
        paging=mmu.paging,
        cr3=mmu.cr3,
        roots=list(mmu.roots),
        requests=mmu.requests,
        mmio=None
        if cache is None
        else SavedMmioCache(gva=cache.gva, gfn=cache.gfn, generation=cache.generation),
        registers=SavedRegisters(
            ended=registers.rip == AFTER_DOORBELL,
            real_mode=registers.real_mode,
            ready=registers.ready,
            mmio_data=registers.mmio_data,
        ),
    )


def restore_vcpu(
    saved: SavedMmuVcpu, mmu: VcpuMmu, guest: Guest, arch: MmuArch, used: set[int]
) -> None:
    """Fill a vCPU, and count its roots. `used`: rows of shadow pages. Raises BadSnapshotError."""
    what = f"vCPU {mmu.id}"
    found = saved.registers
    check((saved.paging is Paging.TDP) == arch.knobs.tdp, f"{what}: {saved.paging.value}")
    check(not saved.requests & ~_REQUESTS, f"{what}: requests {saved.requests:#x}")
    check_range(saved.cr3, 1 << 64, f"{what}: cr3")
    mmu.paging, mmu.cr3, mmu.requests = saved.paging, saved.cr3, saved.requests
    rip = AFTER_DOORBELL if found.ended else CODE
    guest.registers = Registers(rip, found.real_mode, found.ready, found.mmio_data)
    if saved.mmio is not None:
        check_range(saved.mmio.gva, 1 << 64, f"{what}: address of the last MMIO")
        check_range(saved.mmio.gfn, 1 << 52, f"{what}: gfn of the last MMIO")
        check_range(saved.mmio.generation, GENERATION_END, f"{what}: generation of the last MMIO")
        mmu.mmio = MmioCache(saved.mmio.gva, saved.mmio.gfn, saved.mmio.generation)
    _restore_roots(saved.roots, mmu, arch, used)


def _restore_roots(rows: list[int], mmu: VcpuMmu, arch: MmuArch, used: set[int]) -> None:
    wanted = wanted_roots(mmu, arch.policy.base_role)
    check(len(rows) in (0, len(wanted)), f"vCPU {mmu.id} has {len(rows)} roots")
    pages = arch.pages
    for row, root in zip(rows, wanted, strict=False):
        check(row in used, f"a root of vCPU {mmu.id} is no page")
        known = (pages.gfn[row], pages.role[row] & ~INVALID)
        check(known == root, f"page {row} cannot be a root of vCPU {mmu.id}")
        asked = mmu.requests & Request.RELOAD
        check(asked or not pages.is_stale(row), f"vCPU {mmu.id} keeps an invalid root")
        pages.root_count[row] += 1
        mmu.roots.append(row)
