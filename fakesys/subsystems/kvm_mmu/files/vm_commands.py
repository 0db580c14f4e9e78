"""Commands on a VM's memory: slots, ioctls, and what the host does with the memory."""

from __future__ import annotations

from errno import ECHILD, EEXIST, EINVAL, ENOENT, ENOMEM, ENOTTY, ERANGE

from fakesys.core.commands import Args, Verb
from fakesys.core.scheduling.resched import cond_resched_killable, might_resched
from fakesys.subsystems.kvm.files.commands import VM, vm_of
from fakesys.subsystems.kvm_mmu.extension import MmuExtension
from fakesys.subsystems.kvm_mmu.files.operands import (
    ADDRESS,
    ARGUMENT,
    BACKING,
    BUDGET,
    BYTES,
    CALLS,
    CAP,
    FIRST,
    FLAGS,
    FLOW,
    GPA,
    HEX,
    HOST_ACTION,
    HUGETLB,
    LARGE,
    MASK,
    MAX_ROUNDS,
    MAX_TIME,
    MEM,
    NO_MEMORY,
    NO_VM,
    OFFSET,
    PAGES,
    PAUSE,
    PAUSED,
    POPULATE,
    PROTECTION,
    RACE_SLOT,
    RACERS,
    SEED,
    SLOT,
    TABLES,
    THP,
    WORKING_SET,
    memory_of,
    slots_of,
)
from fakesys.subsystems.kvm_mmu.guest.page_tables import write_guest_tables
from fakesys.subsystems.kvm_mmu.guest.race import RaceSetup
from fakesys.subsystems.kvm_mmu.shadow.policy import ZapFlow
from fakesys.subsystems.kvm_mmu.slots.memslots import Region

# More calls of the shrinker are made in slices.
FEW_CALLS = 64


def _add_memory(mmu: MmuExtension, args: Args) -> str:
    host = memory_of(mmu, args).host
    memory = host.add(args[MEM], args[BYTES], thp=args[THP], hugetlb=args[HUGETLB])
    if not args[POPULATE]:
        memory.populate_nothing()
    return ""


def _host_write(mmu: MmuExtension, args: Args) -> str:
    memory = memory_of(mmu, args)
    memory.write_host(memory.host.named(args[MEM]), args[OFFSET], args[HEX])
    return ""


def _set_slot(mmu: MmuExtension, args: Args) -> str:
    memory = slots_of(mmu, args)
    address = args[ADDRESS]
    if args[BACKING]:
        address = memory.host.named(args[BACKING]).hva + args[OFFSET]
    region = Region(args[SLOT], args[FLAGS], args[GPA], args[BYTES], address)
    zapped = memory.set_region(region)
    return "" if zapped is None else f"zapped={zapped.pages} rounds={zapped.rounds}"


def _guest_tables(mmu: MmuExtension, args: Args) -> str:
    write_guest_tables(memory_of(mmu, args), regions=args[TABLES], large=args[LARGE])
    return ""


def _get_dirty(mmu: MmuExtension, args: Args) -> str:
    ranges = slots_of(mmu, args).dirty.get(args[SLOT])
    words = [str(low) if low == high else f"{low}-{high}" for low, high in ranges]
    return "dirty=" + (",".join(words) or "none")


def _clear_dirty(mmu: MmuExtension, args: Args) -> str:
    slots_of(mmu, args).dirty.clear(args[SLOT], args[FIRST], args[PAGES])
    return ""


def _cap(mmu: MmuExtension, args: Args) -> str:
    slots_of(mmu, args).enable_cap(args[CAP], args[ARGUMENT])
    return ""


def _quirks(mmu: MmuExtension, args: Args) -> str:
    memory_of(mmu, args).disable_quirks(args[MASK])
    return ""


def _nr_mmu_pages(mmu: MmuExtension, args: Args) -> str:
    memory, budget = memory_of(mmu, args), args[BUDGET]
    if budget is None:
        return f"value={memory.get_nr_mmu_pages()}"
    memory.require_slots()
    memory.set_nr_mmu_pages(budget)
    return ""


def _notify(mmu: MmuExtension, args: Args) -> str:
    memory = memory_of(mmu, args)
    backing = memory.host.named(args[MEM])
    acts = {
        "invalidate": memory.notifier.invalidate,
        "unmap": memory.notifier.unmap,
        "munmap": memory.notifier.munmap,
        "collapse": memory.notifier.collapse,
    }
    acts[args[HOST_ACTION]](backing, args[OFFSET], args[BYTES])
    return ""


def _fork(mmu: MmuExtension, args: Args) -> str:
    memory = memory_of(mmu, args)
    memory.notifier.fork(reversed(memory.host.memories))
    return ""


def _fork_end(mmu: MmuExtension, args: Args) -> str:
    memory_of(mmu, args).notifier.end_child()
    return ""


def _reset_rings(mmu: MmuExtension, args: Args) -> str:
    memory = slots_of(mmu, args)
    return f"reset={memory.rings.reset(memory.vcpus.values())}"


def _protect(mmu: MmuExtension, args: Args) -> str:
    memory = memory_of(mmu, args)
    backing = memory.host.named(args[MEM])
    memory.notifier.protect(backing, args[OFFSET], args[BYTES], writable=args[PROTECTION] == "rw")
    return ""


def _shrink(mmu: MmuExtension, args: Args) -> str:
    calls = args[CALLS]
    if calls > FEW_CALLS:
        might_resched()
    mmu.shrinker.might_lock()
    freed = 0
    for _ in range(calls):
        cond_resched_killable()
        freed += mmu.shrinker.scan()
    return f"freed={freed}"


def _race(mmu: MmuExtension, args: Args) -> str:
    vm = vm_of(mmu.kvm, args)
    setup = RaceSetup(
        slot=args[RACE_SLOT],
        vcpus=args[RACERS],
        working_set=args[WORKING_SET],
        flow=None if args[FLOW] is None else ZapFlow(args[FLOW]),
        seed=args[SEED],
        max_rounds=args[MAX_ROUNDS],
        max_time_ns=args[MAX_TIME] * 1_000_000_000,
    )
    return mmu.race(vm, setup, args[PAUSE]).words()


def _resume_race(mmu: MmuExtension, args: Args) -> str:
    return mmu.resume(vm_of(mmu.kvm, args), args[PAUSE]).words()


def memory_verbs() -> tuple[Verb[MmuExtension], ...]:
    """Return the commands that make host memory and slots."""
    return (
        Verb(
            words=(VM, "mem", MEM),
            options=(BYTES, THP, HUGETLB, POPULATE),
            run=_add_memory,
            errors=NO_VM
            | {
                EEXIST: "there is such memory",
                EINVAL: "no number of pages",
                ENOMEM: "the owner's address space is too small",
            },
            doc="Host memory of the VM's owner, 2 MiB aligned, all present.",
        ),
        Verb(
            words=(VM, "host_write", MEM),
            options=(OFFSET, HEX),
            run=_host_write,
            errors=NO_MEMORY | {EINVAL: "beyond the end of the memory, or not hex"},
            doc="The owner writes guest memory: no fault, no event.",
        ),
        Verb(
            words=(VM, "slot", SLOT),
            options=(GPA, BYTES, BACKING, OFFSET, ADDRESS, FLAGS),
            run=_set_slot,
            errors=NO_MEMORY
            | PAUSED
            | {
                EINVAL: "not page aligned, out of range, unknown flag, or not the slot's size, "
                "address and kind; size 0 without such a slot",
                EEXIST: "overlaps another slot",
                ERANGE: "a number of more than 64 bits",
            },
            doc="KVM_SET_USER_MEMORY_REGION: create, move, change flags; size=0 deletes.",
        ),
        Verb(
            words=(VM, "guest_tables"),
            options=(TABLES, LARGE),
            run=_guest_tables,
            errors=NO_VM | {EINVAL: "slot 0 is not at gpa 0, has no memory, or not enough"},
            doc="Guest page tables at 0x10000 in slot 0: an identity map.",
        ),
    )


def ioctl_verbs() -> tuple[Verb[MmuExtension], ...]:
    """Return the commands that are ioctls of the VM."""
    return (
        Verb(
            words=(VM, "dirty_log", SLOT),
            run=_get_dirty,
            errors=PAUSED
            | {ENOENT: "no such VM, or the slot is not logged", EINVAL: "no such slot id"},
            doc="KVM_GET_DIRTY_LOG.",
        ),
        Verb(
            words=(VM, "ring_reset"),
            run=_reset_rings,
            errors=NO_VM | PAUSED | {EINVAL: "there are no dirty rings"},
            doc="KVM_RESET_DIRTY_RINGS: of the entries that `vcpu K ring` has shown.",
        ),
        Verb(
            words=(VM, "clear_dirty", SLOT),
            options=(FIRST, PAGES),
            run=_clear_dirty,
            errors=PAUSED
            | {
                ENOENT: "no such VM, or the slot is not logged",
                EINVAL: "not a multiple of 64 pages, or beyond the slot",
            },
            doc="KVM_CLEAR_DIRTY_LOG.",
        ),
        Verb(
            words=(VM, "cap", CAP, ARGUMENT),
            run=_cap,
            errors=NO_VM | PAUSED | {EINVAL: "no such capability, or not such an argument"},
            doc="KVM_ENABLE_CAP: 168 (manual dirty log), 192 (dirty rings of so many bytes),"
            " 213 (quirks), 220 (no nx_huge_pages).",
        ),
        Verb(
            words=(VM, "quirks", MASK),
            run=_quirks,
            errors=NO_VM | {EINVAL: "the kernel has no such quirk"},
            doc="KVM_CAP_DISABLE_QUIRKS2.",
        ),
        Verb(
            words=(VM, "nr_mmu_pages", BUDGET),
            run=_nr_mmu_pages,
            errors=NO_VM | PAUSED | {EINVAL: "fewer than 64", ENOTTY: "GET is gone in this kernel"},
            doc="KVM_SET_NR_MMU_PAGES; without a number KVM_GET_NR_MMU_PAGES.",
        ),
    )


def host_verbs() -> tuple[Verb[MmuExtension], ...]:
    """Return the commands by which the host acts on the memory."""
    return (
        Verb(
            words=(VM, "notifier", HOST_ACTION, MEM),
            options=(OFFSET, BYTES),
            run=_notify,
            errors=NO_MEMORY | {EINVAL: "not pages of the memory"},
            doc="The host invalidates a range; unmap, munmap: its pages are gone until touched, or"
            " for good; collapse: small pages become large ones.",
        ),
        Verb(
            words=(VM, "notifier", "protect", MEM),
            options=(OFFSET, BYTES, PROTECTION),
            run=_protect,
            errors=NO_MEMORY | {EINVAL: "not pages of the memory"},
            doc="The host may only read a range, or write it again.",
        ),
        Verb(
            words=(VM, "fork"),
            run=_fork,
            errors=NO_VM,
            doc="The owner forks a child, with which it shares all memory: a write copies a page.",
        ),
        Verb(
            words=(VM, "fork_end"),
            run=_fork_end,
            errors=NO_VM | {ECHILD: "it has no child"},
            doc="A child of the owner ends.",
        ),
        Verb(
            words=("shrink",),
            options=(CALLS,),
            run=_shrink,
            doc="Calls of the shrinker: one VM each gives up one page.",
        ),
    )


def race_verbs() -> tuple[Verb[MmuExtension], ...]:
    """Return the commands that let vCPUs fault while a slot is deleted."""
    return (
        Verb(
            words=(VM, "race"),
            options=(RACE_SLOT, RACERS, WORKING_SET, FLOW, SEED, MAX_ROUNDS, MAX_TIME, PAUSE),
            run=_race,
            errors=PAUSED
            | {
                ENOENT: "no such VM or slot",
                EINVAL: "the slot's number cannot be one, no room for the working sets, more than"
                " 1 TiB of them (shadow paging: 4 GiB), or the VM has the TDP MMU",
            },
            doc="Delete a slot while vCPUs fault over their working sets.",
        ),
        Verb(
            words=(VM, "race", "resume"),
            options=(PAUSE,),
            run=_resume_race,
            errors=NO_VM | {EINVAL: "no race is paused"},
            doc="Let a race go on that is paused.",
        ),
    )
