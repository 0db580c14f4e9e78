"""Shadow paging: guest tables that change, are shared, lose rights; write tracking; real mode."""

from __future__ import annotations

from errno import EINVAL

import pytest

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm.events.guest import KvmMmio, KvmPio
from fakesys.subsystems.kvm_mmu.events.pages import KvmMmuSyncPage
from fakesys.subsystems.kvm_mmu.events.walk import (
    HandleMmioPageFault,
    KvmMmuWalkerError,
    MarkMmioSpte,
)
from fakesys.subsystems.kvm_mmu.guest.exits import Exit, VcpuExit
from fakesys.subsystems.kvm_mmu.guest.page_tables import write_guest_tables
from fakesys.subsystems.kvm_mmu.guest.programs import DOORBELL, MAX_STEPS, GuestOp
from fakesys.subsystems.kvm_mmu.guest.real_mode import MAX_STEPS as MAX_REAL_STEPS
from fakesys.subsystems.kvm_mmu.guest.real_mode import RealMode
from fakesys.subsystems.kvm_mmu.mmu.fast_page_fault import RetPf
from fakesys.subsystems.kvm_mmu.mmu.zap import Step
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE, UNSYNC
from fakesys.subsystems.kvm_mmu.shadow.policy import K5_3, K5_4, K6_1, MmuPolicy, ZapFlow
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.slots.memslots import LOG_DIRTY_PAGES
from tests.models.kvm_mmu.rig import FIRST_TABLE, MIB, PAGE, Rig, gfns

PML4, PDPT, PD = 0x10000, 0x11000, 0x12000
NX = 1 << 63
BOTH = pytest.mark.parametrize("policy", [K5_4, K6_1], ids=lambda p: p.name)


def shadow(policy: MmuPolicy = K6_1, *, tables: int = 2, unsync: bool = False) -> Rig:
    """A VM whose vCPU 0 read a page in each of `tables` regions of 2 MiB, beginning at 2 MiB."""
    rig = Rig(policy, tdp=False)
    rig.shadowed(tables, unsync=unsync)
    rig.forget()
    return rig


def second(rig: Rig, cr3: int = PML4) -> VcpuMmu:
    """Another vCPU, with its own CR3."""
    vcpu = rig.vcpu(len(rig.guests))
    guest = rig.guests[vcpu.id]
    guest.set_up(real_mode=False)
    guest.set_cr3(cr3)
    return vcpu


def put(rig: Rig, gpa: int, entry: int) -> None:
    """The host writes an entry of a guest table."""
    rig.memory.host.named("m0").write(gpa, entry.to_bytes(8, "little"))


def run(rig: Rig, *items: GuestOp, vcpu: int = 0) -> list[VcpuExit]:
    """A program."""
    return rig.guests[vcpu].run(items)


def row_of(rig: Rig, gfn: int, level: int) -> int:
    """The valid page of a guest table."""
    (row,) = [r for r in rig.pages.at(gfn) if rig.pages.role[r] & 15 == level]
    return int(row)


@BOTH
def test_a_table_that_was_writable_is_protected_when_it_is_shadowed(policy: MmuPolicy) -> None:
    rig = shadow(policy)
    table = FIRST_TABLE + 5 * PAGE
    run(rig, GuestOp("w", table + 8))
    (at,) = rig.memory.arch.sptes.mappings(table >> 12, 1)
    assert rig.memory.setter.value(at.row, at.spte_index) & 2
    flushes = rig.stats.remote_tlb_flush_requests
    run(rig, GuestOp("r", 10 * MIB))
    assert not rig.memory.setter.value(at.row, at.spte_index) & 2
    if policy is K6_1:
        assert rig.stats.remote_tlb_flush_requests == flushes + 1


@BOTH
def test_an_entry_that_lost_w_loses_it_in_the_shadow_when_the_table_is_read_again(
    policy: MmuPolicy,
) -> None:
    rig = shadow(policy)
    entry = FIRST_TABLE + PAGE
    run(rig, GuestOp("w", 2 * MIB))
    (at,) = rig.memory.arch.sptes.mappings(2 * MIB >> 12, 1)
    assert rig.memory.setter.value(at.row, at.spte_index) & 2
    # The guest takes W from the entry; its table is unsync from then on.
    run(rig, GuestOp("w64", entry, value=2 * MIB | 0x65))
    assert rig.pages.flags[at.row] & UNSYNC
    # A second vCPU loads the root: every table is read again.
    second(rig)
    run(rig, GuestOp("r", 4 * MIB), vcpu=1)
    assert not rig.pages.flags[at.row] & UNSYNC
    assert not rig.memory.setter.value(at.row, at.spte_index) & 2
    assert gfns(rig.told(KvmMmuSyncPage)) == [entry >> 12]
    (left,) = run(rig, GuestOp("w", 2 * MIB))
    assert left.reason is Exit.SHUTDOWN
    assert rig.told(KvmMmuWalkerError)[-1].pferr & 3 == 3


@BOTH
def test_an_entry_that_points_elsewhere_is_dropped(policy: MmuPolicy) -> None:
    rig = shadow(policy)
    run(rig, GuestOp("r", 2 * MIB))
    run(rig, GuestOp("w64", FIRST_TABLE + PAGE, value=6 * MIB | 0x67))
    mapped = rig.memory.arch.sptes.mappings
    assert len(mapped(2 * MIB >> 12, 1)) == 1
    second(rig)
    run(rig, GuestOp("r", 4 * MIB), vcpu=1)
    assert mapped(2 * MIB >> 12, 1) == []
    run(rig, GuestOp("r", 2 * MIB), vcpu=1)
    assert len(mapped(6 * MIB >> 12, 1)) == 1


def test_an_entry_that_stays_is_made_again_as_if_prefetched() -> None:
    rig = shadow(K6_1)
    run(rig, GuestOp("w", 2 * MIB), GuestOp("w", 2 * MIB + PAGE))
    run(rig, GuestOp("w64", FIRST_TABLE + PAGE + 8, value=2 * MIB + PAGE | 0x67))
    (at,) = rig.memory.arch.sptes.mappings(2 * MIB >> 12, 1)
    assert rig.memory.setter.value(at.row, at.spte_index) & 0x20
    second(rig)
    run(rig, GuestOp("r", 4 * MIB), vcpu=1)
    value = rig.memory.setter.value(at.row, at.spte_index)
    assert (value & 2, value & 0x20) == (2, 0)


@BOTH
def test_tables_that_two_address_spaces_share(policy: MmuPolicy) -> None:
    rig = shadow(policy, tables=3, unsync=True)
    assert rig.stats.mmu_unsync == 3
    # Another PML4 with the same PDPT below it.
    put(rig, 0x14000, PDPT | 7)
    second(rig, 0x14000)
    run(rig, GuestOp("r", 2 * MIB), vcpu=1)
    # What was changed below the shared table is read again before it is used.
    assert rig.stats.mmu_unsync == 0
    pdpt = row_of(rig, PDPT >> 12, 3)
    assert len(list(rig.memory.links.parents(pdpt))) == 2
    roots = {row for vcpu in rig.memory.vcpus.values() for row in vcpu.roots}
    assert len(roots) == 2
    # The first vCPU makes a table unsync: both roots know, and lose it one by one.
    run(rig, GuestOp("w64", FIRST_TABLE + PAGE, value=2 * MIB | 0x67))
    assert roots <= set(rig.memory.links.unsync_below)
    rig.delete(0)
    assert rig.stats.mmu_unsync == 0
    assert list(rig.memory.links.parents(pdpt)) == []


def test_a_page_with_many_parents_forgets_any_of_them() -> None:
    rig = shadow(K6_1, tables=1)
    # Entries 1, 3 and 4 of the PD point to one table.
    for index in (3, 4):
        put(rig, PD + index * 8, FIRST_TABLE + PAGE | 7)
    run(rig, GuestOp("r", 6 * MIB), GuestOp("r", 8 * MIB))
    table = row_of(rig, FIRST_TABLE + PAGE >> 12, 1)
    pd = row_of(rig, PD >> 12, 2)
    links = rig.memory.links
    assert set(links.parents(table)) == {(pd, 1), (pd, 3), (pd, 4)}
    links.unlink(pd, 4)
    assert set(links.parents(table)) == {(pd, 1), (pd, 3)}
    links.unlink(pd, 1)
    assert list(links.parents(table)) == [(pd, 3)]
    links.unlink(pd, 3)
    assert list(links.parents(table)) == []


def test_an_unsync_table_is_read_again_when_it_is_found() -> None:
    rig = shadow(K6_1, tables=1)
    run(rig, GuestOp("r", 2 * MIB), GuestOp("w64", FIRST_TABLE + PAGE, value=6 * MIB | 0x67))
    table = row_of(rig, FIRST_TABLE + PAGE >> 12, 1)
    assert rig.pages.flags[table] & UNSYNC
    put(rig, PD + 3 * 8, FIRST_TABLE + PAGE | 7)
    flushes = rig.stats.remote_tlb_flush_requests
    run(rig, GuestOp("r", 6 * MIB))
    assert rig.stats.remote_tlb_flush_requests == flushes + 1
    # Linked below a second entry, it is known to be unsync there as well.
    assert rig.memory.links.unsync_below[row_of(rig, PD >> 12, 2)] >> 3 & 1


def test_a_lower_table_that_becomes_an_upper_one_is_zapped() -> None:
    rig = shadow(K6_1, tables=1, unsync=True)
    low = row_of(rig, FIRST_TABLE + PAGE >> 12, 1)
    assert rig.pages.flags[low] & UNSYNC
    put(rig, FIRST_TABLE + PAGE + 8, FIRST_TABLE | 7)
    put(rig, PDPT + 8, FIRST_TABLE + PAGE | 7)
    zapped = rig.stats.mmu_shadow_zapped
    assert run(rig, GuestOp("r", (1 << 30) + 2 * MIB)) == []
    assert rig.stats.mmu_shadow_zapped == zapped + 1
    assert rig.stats.mmu_unsync == 0
    assert row_of(rig, FIRST_TABLE + PAGE >> 12, 2) != NONE


def test_rights_of_the_guest_are_those_of_the_shadow() -> None:
    rig = shadow(K6_1)
    put(rig, FIRST_TABLE + PAGE + 8, 2 * MIB + PAGE | 7 | NX)
    put(rig, FIRST_TABLE + PAGE + 16, 2 * MIB + 2 * PAGE | 3)
    run(rig, GuestOp("r", 2 * MIB + PAGE))
    for item in (GuestOp("x", 2 * MIB + PAGE), GuestOp("r", 2 * MIB + 2 * PAGE)):
        (left,) = run(rig, item)
        assert left.reason is Exit.SHUTDOWN
    # A neighbour that the guest marked as used is mapped along, without the write it never had.
    put(rig, FIRST_TABLE + PAGE + 64, 2 * MIB + 8 * PAGE | 0x27)
    run(rig, GuestOp("r", 2 * MIB + 9 * PAGE))
    (at,) = rig.memory.arch.sptes.mappings((2 * MIB >> 12) + 8, 1)
    assert not rig.memory.setter.value(at.row, at.spte_index) & 2


def test_prefetch_stays_away_from_tables_and_from_nothing() -> None:
    rig = shadow(K6_1, tables=1)
    # Marked as used and written, but one is a table that is shadowed, one has no memory behind it.
    put(rig, FIRST_TABLE + PAGE + 8, FIRST_TABLE + PAGE | 0x67)
    put(rig, FIRST_TABLE + PAGE + 16, 1 << 40 | 0x67)
    run(rig, GuestOp("w", 2 * MIB + 3 * PAGE))
    (at,) = rig.memory.arch.sptes.mappings(FIRST_TABLE + PAGE >> 12, 1)
    assert not rig.memory.setter.value(at.row, at.spte_index) & 2
    assert rig.stats.mmu_unsync == 0


def test_mmio_of_a_shadowed_guest_is_remembered_by_its_own_address() -> None:
    rig = shadow(K6_1)
    put(rig, FIRST_TABLE + PAGE + 8, 1 << 40 | 7)
    for _ in range(2):
        (left,) = run(rig, GuestOp("r", 2 * MIB + PAGE))
        assert left == VcpuExit(Exit.MMIO, (1 << 40, False, 4))
    told = [event for event in rig.events if isinstance(event, MarkMmioSpte)]
    assert [event.gfn for event in told if event.gfn == 1 << 28] == [1 << 28]
    hits = rig.told(HandleMmioPageFault)
    # The doorbell is another page of MMIO.
    assert {(event.addr, event.gfn) for event in hits} == {
        (2 * MIB + PAGE, 1 << 28),
        (DOORBELL, DOORBELL >> 12),
    }


def test_without_pages_a_shadowed_guest_cannot_go_on() -> None:
    rig = shadow(K6_1)
    (vcpu,) = rig.memory.vcpus.values()
    rig.memory.roots.n_max = 1
    assert rig.memory.faults.page_fault(vcpu, 8 * MIB, 4) is RetPf.RETRY


def test_a_vcpu_without_paging_may_not_write_tables_of_another() -> None:
    rig = shadow(K6_1)
    vcpu = rig.vcpu(1)
    rig.guests[1].set_up(real_mode=True)
    rig.read(vcpu, PD)
    assert rig.memory.links.write_tracking.is_write_tracked(PD >> 12)
    writes = rig.stats.mmu_pte_write
    rig.write(vcpu, PD + 8)
    # Emulated, and seen by the shadow of the table; the direct page of the same gfn is left alone.
    assert rig.stats.mmu_pte_write == writes + 1
    assert vcpu.stats.insn_emulation == 1


def test_what_is_written_to_tables_and_how() -> None:
    rig = shadow(K6_1)
    writer = rig.memory.pte_writer
    pd = row_of(rig, PD >> 12, 2)
    table = row_of(rig, FIRST_TABLE + PAGE >> 12, 1)
    writer.pte_write(PD + 8, bytes(8))
    assert rig.memory.links.child(pd, 1) == NONE
    assert rig.stats.mmu_pde_zapped == 0
    run(rig, GuestOp("r", 2 * MIB))
    # A byte at an aligned place may be the start of anything; two bytes in the middle are not.
    writer.pte_write(FIRST_TABLE + PAGE, b"\x07")
    assert rig.stats.mmu_flooded == 0
    writer.pte_write(FIRST_TABLE + PAGE + 2, b"\x07\x00")
    assert rig.stats.mmu_flooded == 1
    assert rig.pages.is_stale(table)


def test_a_write_while_nothing_is_shadowed_is_no_matter() -> None:
    rig = Rig(K6_1)
    rig.slot(0)
    rig.memory.pte_writer.pte_write(0, bytes(8))
    assert rig.stats.mmu_pte_write == 0


def test_a_large_guest_page_becomes_small_and_changes_its_rights() -> None:
    rig = Rig(K6_1, tdp=False)
    rig.slot(0, 0, 64 * MIB)
    write_guest_tables(rig.memory, regions=31, large=(4,))
    rig.vcpu()
    rig.guests[0].set_up(real_mode=False)
    run(rig, GuestOp("r", 8 * MIB), GuestOp("w", 8 * MIB))
    # Read first: without W; then with it, by another direct table.
    directs = [row for row in rig.pages.at(8 * MIB >> 12) if rig.pages.role[row] & 0x80]
    assert sorted(rig.pages.role[row] >> 8 & 7 for row in directs) == [5, 7]


def test_zapping_everything_takes_unsync_tables_with_their_root() -> None:
    rig = shadow(K6_1, tables=5, unsync=True)
    used = rig.pages.used
    zap = rig.memory.begin_zap(ZapFlow.FAST)
    assert zap.step(budget=2) is Step.PAUSED
    assert zap.step() is Step.DONE
    # Five tables went along with the root.
    assert zap.zapped == used - 5
    assert rig.pages.used == 1
    assert rig.stats.mmu_shadow_zapped == used


def test_the_old_flow_begins_anew_when_a_table_went_along() -> None:
    rig = shadow(K5_3, tables=1)
    # A second address space has tables of its own above the same one of level 1.
    for table, entry in ((0x14000, 0x15000), (0x15000, 0x16000), (0x16008, FIRST_TABLE + PAGE)):
        put(rig, table, entry | 7)
    vcpu = second(rig, 0x14000)
    rig.read(vcpu, 2 * MIB)
    run(rig, GuestOp("w64", FIRST_TABLE + PAGE, value=2 * MIB | 0x67))
    used = rig.pages.used
    zap = rig.memory.begin_zap(ZapFlow.ZAP_ALL)
    assert zap.step(budget=1) is Step.PAUSED
    assert (rig.pages.used, rig.stats.mmu_unsync) == (used - 2, 0)
    assert zap.step() is Step.DONE
    assert (zap.zapped, rig.pages.used) == (used - 1, 2)


def test_recycling_begins_anew_when_more_pages_went_than_one() -> None:
    rig = shadow(K6_1, tables=5, unsync=True)
    used = rig.pages.used
    # The PDPT is the oldest page that is no root: five tables go with it.
    assert rig.memory.zapper.recycle(2) == 6
    assert rig.pages.used == used - 6


def test_dirty_logs_of_shadowed_guests() -> None:
    rig = shadow(K6_1)
    run(rig, GuestOp("w", 2 * MIB), GuestOp("w", 2 * MIB + PAGE))
    rig.slot(0, 0, 62 * MIB, flags=LOG_DIRTY_PAGES)
    rig.memory.dirty.get(0)
    run(rig, GuestOp("w", 2 * MIB + PAGE))
    assert (513, 513) in rig.memory.dirty.get(0)


def test_programs_have_an_end() -> None:
    rig = shadow(K6_1)
    with pytest.raises(KernelError) as refusal:
        run(rig, GuestOp("rloop", 0, times=MAX_STEPS + 1))
    assert refusal.value.errno == EINVAL
    small = Rig(K6_1, tdp=False)
    small.slot(0, 0, 128 * 1024)
    with pytest.raises(KernelError) as refusal:
        write_guest_tables(small.memory, regions=1)
    assert refusal.value.errno == EINVAL


def real(*code: int) -> tuple[Rig, list[VcpuExit], list[object]]:
    """16-bit code on a vCPU without paging; what it told."""
    rig = Rig(K6_1, tdp=False)
    rig.slot(0)
    told: list[object] = []
    for kind in (KvmMmio, KvmPio):
        rig.bus.subscribe(kind, told.append)
    vcpu = rig.vcpu()
    rig.guests[0].set_up(real_mode=True)
    machine = RealMode(rig.memory, vcpu, rig.guests[0])
    return rig, machine.run(bytes(code)), told


def test_real_mode_moves_loads_and_stores() -> None:
    # mov ax, 0x1234; mov [0x2000], ax; mov ax, 0; mov ax, [0x2000]; mov dx, 0x80; out dx, al; hlt
    code = "b83412a30020b80000a10020ba8000eef4"
    rig, exits, told = real(*bytes.fromhex(code))
    assert [left.reason for left in exits] == [Exit.IO, Exit.HLT]
    (out,) = told
    assert isinstance(out, KvmPio)
    assert (out.port, out.val) == (0x80, 0x34)
    assert rig.memory.guest_memory.read(0x2000, 2) == b"\x34\x12"
    assert rig.memory.vcpus[0].stats.halt_exits == 1


def test_real_mode_reaches_mmio() -> None:
    rig = Rig(K6_1, tdp=False)
    host = rig.memory.host.add("low", 8192)
    rig.slot(0, 0, 8192, name="low")
    assert host.npages == 2
    vcpu = rig.vcpu()
    rig.guests[0].set_up(real_mode=True)
    machine = RealMode(rig.memory, vcpu, rig.guests[0])
    # mov [0x8000], ax; mov ax, [0x8000]; hlt
    exits = machine.run(bytes.fromhex("a30080a10080f4"))
    assert [left.mmio for left in exits] == [(0x8000, True, 2), (0x8000, False, 2), None]
    assert vcpu.stats.mmio_exits == 2


def test_real_mode_stops_at_what_it_cannot_emulate_and_at_what_does_not_end() -> None:
    _, exits, _ = real(0x90, 0x0F)
    assert [left.reason for left in exits] == [Exit.INTERNAL_ERROR]
    rig = Rig(K6_1, tdp=False)
    rig.slot(0)
    rig.memory.host.named("m0").write(0, b"\x90" * 65536)
    vcpu = rig.vcpu()
    rig.guests[0].set_up(real_mode=True)
    assert RealMode(rig.memory, vcpu, rig.guests[0]).run(b"\x90") == []
    assert vcpu.stats.insn_emulation == MAX_REAL_STEPS
