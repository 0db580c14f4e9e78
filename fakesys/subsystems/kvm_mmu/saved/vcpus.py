"""Translations and registers of vCPUs in a snapshot."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import U32, U63, Natural, Saved, check, check_range
from fakesys.subsystems.kvm.vcpu_run.smm import SMBASE
from fakesys.subsystems.kvm_mmu.guest.exits import Registers
from fakesys.subsystems.kvm_mmu.guest.vcpu_run import Guest
from fakesys.subsystems.kvm_mmu.mmu.roots import wanted_roots
from fakesys.subsystems.kvm_mmu.saved.packed import GENERATION_END
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch, Request
from fakesys.subsystems.kvm_mmu.shadow.dirty_ring import DIRTY, HARVESTED, DirtyRing
from fakesys.subsystems.kvm_mmu.shadow.role import INVALID, SMM_SHIFT
from fakesys.subsystems.kvm_mmu.shadow.vcpu import MmioCache, Paging, VcpuMmu
from fakesys.subsystems.kvm_mmu.tdp.mmu import TdpMmu

REQUESTS = Request.RELOAD | Request.TLB_FLUSH | Request.TLB_FLUSH_GUEST


class SavedMmioCache(Saved, frozen=True):
    """The last MMIO page that the vCPU accessed."""

    gva: Natural
    gfn: Natural
    generation: Natural


class SavedRegisters(Saved, frozen=True):
    """See `Registers`."""

    rip: Natural
    smi_pending: bool
    interrupted: tuple[Natural, bool] | None
    real_mode: bool
    ready: bool
    mmio_data: Annotated[bytes, Meta(min_length=8, max_length=8)]


class SavedRing(Saved, frozen=True):
    """A ring of dirty pages. `entries`: flags, slot and offset by index."""

    dirty_index: U32
    reset_index: U32
    entries: dict[Natural, tuple[Natural, U32, U63]]


class SavedMmuVcpu(Saved, frozen=True):
    """One vCPU. `roots`: rows of its root pages. `requests`: KVM_REQ_* that concern memory."""

    paging: Paging
    cr3: Natural
    roots: Annotated[list[Natural], Meta(max_length=4)]
    requests: Natural
    mmio: SavedMmioCache | None
    registers: SavedRegisters
    ring: SavedRing | None


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
            rip=registers.rip,
            smi_pending=registers.smi_pending,
            interrupted=registers.interrupted,
            real_mode=registers.real_mode,
            ready=registers.ready,
            mmio_data=registers.mmio_data,
        ),
        ring=None if mmu.ring is None else _save_ring(mmu.ring),
    )


def _save_ring(ring: DirtyRing) -> SavedRing:
    return SavedRing(
        dirty_index=ring.dirty_index,
        reset_index=ring.reset_index,
        entries={
            index: (entry.flags, entry.slot, entry.offset) for index, entry in ring.entries.items()
        },
    )


def _restore_ring(saved: SavedRing | None, mmu: VcpuMmu) -> None:
    check((saved is None) == (mmu.ring is None), f"the ring of vCPU {mmu.id}")
    if saved is None or mmu.ring is None:
        return
    mmu.ring.dirty_index, mmu.ring.reset_index = saved.dirty_index, saved.reset_index
    check(mmu.ring.used <= mmu.ring.size, f"the ring of vCPU {mmu.id} has too many entries")
    for index, (flags, slot, offset) in saved.entries.items():
        check_range(index, mmu.ring.size, "the index of an entry of a ring")
        check_range(flags, 1 + (DIRTY | HARVESTED), "the flags of an entry of a ring")
        entry = mmu.ring.entry(index)
        entry.flags, entry.slot, entry.offset = flags, slot, offset


def restore_vcpu(
    saved: SavedMmuVcpu,
    mmu: VcpuMmu,
    guest: Guest,
    arch: MmuArch,
    used: set[int],
    tdp: TdpMmu | None,
    *,
    zapping: bool = False,
) -> None:
    """Fill a vCPU, and count its roots. `used`: rows of shadow pages. Raises BadSnapshotError.

    `zapping`: a zap of all pages is in its middle.
    """
    what = f"vCPU {mmu.id}"
    found = saved.registers
    check((saved.paging is Paging.TDP) == arch.knobs.tdp, f"{what}: {saved.paging.value}")
    check(not saved.requests & ~REQUESTS, f"{what}: requests {saved.requests:#x}")
    check_range(saved.cr3, 1 << 64, f"{what}: cr3")
    mmu.paging, mmu.cr3, mmu.requests = saved.paging, saved.cr3, saved.requests
    _restore_registers(found, mmu, guest, arch)
    _restore_ring(saved.ring, mmu)
    if saved.mmio is not None:
        check_range(saved.mmio.gva, 1 << 64, f"{what}: address of the last MMIO")
        check_range(saved.mmio.gfn, 1 << 52, f"{what}: gfn of the last MMIO")
        check_range(saved.mmio.generation, GENERATION_END, f"{what}: generation of the last MMIO")
        mmu.mmio = MmioCache(saved.mmio.gva, saved.mmio.gfn, saved.mmio.generation)
    if tdp is None:
        restore_roots(saved.roots, mmu, arch, used, zapping=zapping)
    else:
        _restore_tdp_roots(saved, mmu, tdp)


def _restore_registers(found: SavedRegisters, mmu: VcpuMmu, guest: Guest, arch: MmuArch) -> None:
    check_range(found.rip, 1 << 64, f"vCPU {mmu.id}: rip")
    smi = found.smi_pending or found.interrupted is not None
    check(guest.is_hardware or not smi, f"vCPU {mmu.id}: an SMI without a processor")
    guest.registers = Registers(found.rip, found.real_mode, found.ready, found.mmio_data)
    guest.registers.smi_pending = found.smi_pending
    if found.interrupted is not None:
        check_range(found.interrupted[0], 1 << 64, f"vCPU {mmu.id}: rip of the SMI")
        guest.registers.interrupted = found.interrupted
        guest.registers.cs_base = SMBASE
        mmu.as_id = arch.knobs.as_num - 1
    guest.follow_registers()


def _restore_tdp_roots(saved: SavedMmuVcpu, mmu: VcpuMmu, tdp: TdpMmu) -> None:
    check(len(saved.roots) <= 1, f"vCPU {mmu.id} has {len(saved.roots)} roots")
    known = {root.number: root.as_id for root in tdp.tables.roots}
    for number in saved.roots:
        asked = saved.requests & Request.RELOAD
        check(asked or known.get(number) == mmu.as_id, f"vCPU {mmu.id} keeps an invalid root")
        check(0 < number <= tdp.tables.roots_made, f"the root of vCPU {mmu.id}")
        mmu.roots.append(number)


def restore_roots(
    rows: list[int], mmu: VcpuMmu, arch: MmuArch, used: set[int], *, zapping: bool
) -> None:
    """Set the roots of a vCPU, and count them. Raises BadSnapshotError.

    `zapping`: kernels that do not ask for a reload at once let it keep an obsolete root.
    """
    wanted = wanted_roots(mmu, arch.policy.base_role | mmu.as_id << SMM_SHIFT)
    check(len(rows) in (0, len(wanted)), f"vCPU {mmu.id} has {len(rows)} roots")
    pages = arch.pages
    for row, root in zip(rows, wanted, strict=False):
        check(row in used, f"a root of vCPU {mmu.id} is no page")
        known = (pages.gfn[row], pages.role[row] & ~INVALID)
        check(known == root, f"page {row} cannot be a root of vCPU {mmu.id}")
        asked = mmu.requests & Request.RELOAD or zapping
        check(asked or not pages.is_stale(row), f"vCPU {mmu.id} keeps an invalid root")
        pages.root_count[row] += 1
        mmu.roots.append(row)
