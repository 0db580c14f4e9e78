"""VMs with the TDP MMU: what is done to whole tables at once is what single sptes would become."""

from __future__ import annotations

import random

import pytest

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm_mmu.guest.traced_faults import TracedFaults
from fakesys.subsystems.kvm_mmu.shadow.sptes import ALL
from fakesys.subsystems.kvm_mmu.tdp.tables import FULL_RW, HUGE, MIXED, Directory
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory
from tests.files.mmu import CONTROL, GIB, MIB, TRACING, MmuVm
from tests.long import LONG

SEEDS = 40 if LONG else 1
COMMANDS = 40
KERNELS = ("6.1", "6.12")
# Of each slot: guest physical address, bytes, name and options of the memory behind it.
SLOTS = (
    (0, 8 * MIB, "small", ""),
    (8 * MIB, 8 * MIB, "large", " thp=1"),
    (GIB, GIB, "giant", " hugetlb=1G"),
)


def vm_of_all_sizes(kernel: str, *, traced: bool = False, **knobs: object) -> MmuVm:
    """A VM with memory in pages of 4 KiB, 2 MiB and 1 GiB. `traced`: each spte is an event."""
    events = ("kvmmmu/kvm_tdp_mmu_spte_changed",) if traced else ()
    vm = MmuVm(kernel, size=0, vcpus=2, events=events, **({"paging": "modules"} | knobs))  # type: ignore[arg-type]
    for number, (gpa, size, name, options) in enumerate(SLOTS):
        vm.ctl(f"a mem {name} size={size}{options}")
        vm.ctl(f"a slot {number} gpa={gpa} size={size} mem={name}")
    for number in range(2):
        vm.ctl(f"a vcpu {number} setup")
    return vm


def memory_of(vm: MmuVm) -> VmMemory:
    models = vm.machine.subsystems.kvm
    return models.memory.memories[models.kvm.vm("a")]


def sptes(vm: MmuVm) -> list[tuple[object, ...]]:
    """Each present leaf and each table of level 1, as masks, of all roots."""
    tdp, found = memory_of(vm).tdp, list[tuple[object, ...]]()
    assert tdp is not None
    for root in tdp.tables.roots:
        for gfn, upper, index in root.directories(0, (1 << 36) - 1):
            entry = upper.entries[index]
            if isinstance(entry, Directory):
                found += [(root.as_id, gfn, *row) for row in _rows(entry)]
            else:
                found.append((root.as_id, gfn, entry))
    return found


def _rows(directory: Directory) -> list[tuple[object, ...]]:
    rows = list[tuple[object, ...]]()
    for index, state in enumerate(directory.state):
        leaf = directory.leaves.get(index)
        if state & HUGE:
            rows.append((index, state))
        elif leaf is not None:
            masks = (leaf.present, leaf.writable, leaf.readonly, leaf.clean)
            rows.append((index, *masks, tuple(leaf.mmio)))
        elif state:
            full = 0 if state == MIXED else ALL
            rows.append((index, full, full if state == FULL_RW else 0, 0, 0, ()))
    return rows


def some_command(chance: random.Random) -> str:
    """What a guest, its owner or the host does with some pages of one slot."""
    number = chance.randrange(len(SLOTS))
    gpa, size, name, _ = SLOTS[number]
    # More of the giant page would be very many events.
    pages = min(size, 8 * MIB) >> 12
    first = chance.choice((0, 0, chance.randrange(pages), chance.randrange(pages) & -512))
    npages = min(chance.choice((1, 5, 512, 1024, pages)), pages - first)
    where = f"off={first << 12} size={npages << 12}"
    whole = f"off={first << 12 & -2 * MIB} size={npages << 12 & -2 * MIB or 2 * MIB}"
    log = chance.choice((0, 1, 1)) if name != "giant" else 0
    access = f"vcpu {chance.randrange(2)} access {chance.choice('rwwx')} {gpa + (first << 12)}"
    return "a " + chance.choice(
        (
            *[f"{access} n={npages}"] * 5,
            *[f"slot {number} gpa={gpa} size={size} mem={name} flags={log}"] * 3,
            f"slot {number} gpa={gpa} size={chance.choice((0, size, size))} mem={name}",
            *[f"dirty_log {number}"] * 2,
            f"clear_dirty {number} first={first & -64} n={max(64, npages & -64)}",
            f"notifier {chance.choice(('invalidate', 'unmap'))} {name} {where}",
            f"notifier protect {name} {where} prot={chance.choice(('r', 'rw', 'rw'))}",
            f"notifier collapse {name} {whole}",
            chance.choice((f"cap 168 {chance.choice((0, 1, 3))}", "fork", "fork_end", access)),
        )
    )


def answer(vm: MmuVm, command: str) -> object:
    try:
        return vm.ctl(command)
    except KernelError as refusal:
        return refusal.name, refusal.why


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("mode", ["plain", "lazy", "nx"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_whole_tables_become_what_single_sptes_become(kernel: str, mode: str, seed: int) -> None:
    chance = random.Random(f"{mode} {seed}")
    knobs = {"eager_page_split": 0} if mode == "lazy" else {}
    traced, plain = (vm_of_all_sizes(kernel, traced=on, **knobs) for on in (True, False))
    for vm in (traced, plain):
        vm.machine.write("sys/module/kvm/parameters/nx_huge_pages", f"{int(mode == 'nx')}\n")
    for _ in range(COMMANDS):
        command = some_command(chance)
        assert answer(traced, command) == answer(plain, command), command
        assert sptes(traced) == sptes(plain), command
        assert traced.counters() == plain.counters(), command
        for log in plain.machine.listdir(f"{CONTROL}/vms/a/dirty"):
            assert traced.view(f"dirty/{log}") == plain.view(f"dirty/{log}"), command


GIANT = f"a slot 2 gpa={GIB} size={GIB} mem=giant flags="
LARGE = f"a slot 1 gpa={8 * MIB} size={8 * MIB} mem=large flags="
PAGES = 512 * 512


def sizes(vm: MmuVm, command: str) -> tuple[int, int, int]:
    """How many leaves of 4 KiB, 2 MiB and 1 GiB one command adds."""
    changed = vm.changes(command)
    small, large, giant = (changed.get(f"pages_{size}", 0) for size in ("4k", "2m", "1g"))
    return small, large, giant


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_log_splits_a_giant_page_whose_end_brings_it_back(kernel: str) -> None:
    vm = vm_of_all_sizes(kernel)
    assert sizes(vm, f"a vcpu 0 access w {GIB}") == (0, 0, 1)
    assert sizes(vm, f"{GIANT}1") == (PAGES, 0, -1)
    assert vm.changes(f"a vcpu 0 access w {GIB + 4096}")["pf_fast"] == 1
    assert vm.ctl("a dirty_log 2") == {"dirty": "1"}
    assert vm.changes(f"a vcpu 0 access w {GIB + 4096}")["pf_fast"] == 1
    changes = vm.changes(f"{GIANT}0")
    assert (changes["pages_4k"], changes["remote_tlb_flush_requests"]) == (-PAGES, 1)
    assert sizes(vm, f"a vcpu 0 access w {GIB + 4096}") == (0, 0, 1)


@pytest.mark.parametrize(("kernel", "split"), [("6.1", (1, 0, -1)), ("6.12", (512, 511, -1))])
def test_without_eager_splits_the_first_write_makes_way(
    kernel: str, split: tuple[int, int, int]
) -> None:
    vm = vm_of_all_sizes(kernel, eager_page_split=0)
    vm.ctl(f"a vcpu 0 access w {GIB}")
    assert sizes(vm, f"{GIANT}1") == (0, 0, 0)
    assert vm.ctl(f"a vcpu 0 access r {GIB} n=512") == {"faults": "0"}
    assert sizes(vm, f"a vcpu 0 access w {GIB + 4096}") == split
    assert vm.ctl("a dirty_log 2") == {"dirty": "1"}
    gone = split[0], split[1], 0
    assert sizes(vm, f"{GIANT}0") == tuple(-number for number in gone)


@pytest.mark.parametrize(
    ("gpa", "logs", "size"), [(8 * MIB, LARGE, "pages_2m"), (GIB, GIANT, "pages_1g")]
)
def test_w_comes_back_without_the_lock_where_a_log_ended(gpa: int, logs: str, size: str) -> None:
    vm = vm_of_all_sizes("6.1", eager_page_split=0)
    vm.ctl(f"a vcpu 0 access w {gpa}")
    vm.ctl(f"{logs}1")
    vm.ctl(f"{logs}0")
    changes = vm.changes(f"a vcpu 0 access w {gpa}")
    assert (changes["pf_fast"], size in changes) == (1, False)
    assert vm.ctl(f"a vcpu 0 access w {gpa}") == {"faults": "0"}


@pytest.mark.parametrize("kernel", KERNELS)
def test_clearing_a_full_log_splits_what_it_clears(kernel: str) -> None:
    vm = vm_of_all_sizes(kernel)
    vm.ctl("a cap 168 3")
    vm.ctl(f"a vcpu 0 access w {GIB}")
    assert sizes(vm, f"{GIANT}1") == (0, 0, 0)
    # Two words, on both sides of a border of 2 MiB.
    assert sizes(vm, "a clear_dirty 2 first=448 n=128") == (1024, 510, -1)
    assert vm.ctl(f"a vcpu 0 access w {GIB} n=448") == {"faults": "0"}
    assert vm.ctl(f"a vcpu 0 access w {GIB + 448 * 4096} n=128") == {"faults": "128"}
    assert vm.ctl(f"a vcpu 0 access w {GIB + 576 * 4096} n=500") == {"faults": "0"}


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_eager_splits_clearing_protects_for_good(kernel: str) -> None:
    vm = vm_of_all_sizes(kernel, eager_page_split=0)
    vm.ctl("a cap 168 3")
    vm.ctl(f"a vcpu 0 access w {GIB}")
    vm.ctl(f"a vcpu 0 access w {8 * MIB} n=2048")
    for logs in (GIANT, LARGE):
        vm.ctl(f"{logs}1")
    for number in (1, 2):
        assert sizes(vm, f"a clear_dirty {number} first=448 n=128") == (0, 0, 0)
        gpa = SLOTS[number][0]
        assert vm.ctl(f"a vcpu 0 access r {gpa} n=1024") == {"faults": "0"}
        # The fast path may not give W back.
        assert "pf_fast" not in vm.changes(f"a vcpu 0 access w {gpa}")
    changes = vm.changes(f"a vcpu 0 access w {10 * MIB}")
    assert (changes["pages_2m"], changes.get("pf_fast")) == (-1, None)
    assert vm.ctl(f"a vcpu 0 access w {12 * MIB}") == {"faults": "0"}


@pytest.mark.parametrize(
    ("number", "logs", "size"), [(1, LARGE, "pages_2m"), (2, GIANT, "pages_1g")]
)
def test_what_clearing_protects_needs_the_lock_after_the_log_too(
    number: int, logs: str, size: str
) -> None:
    vm = vm_of_all_sizes("6.1", eager_page_split=0)
    write = f"a vcpu 0 access w {SLOTS[number][0]}"
    vm.ctl("a cap 168 3")
    vm.ctl(write)
    vm.ctl(f"{logs}1")
    vm.ctl(f"a clear_dirty {number} first=448 n=64")
    vm.ctl(f"{logs}0")
    changes = vm.changes(write)
    assert (changes["pf_fixed"], "pf_fast" in changes, size in changes) == (1, False, False)
    assert vm.ctl(write) == {"faults": "0"}


def test_a_gigabyte_of_small_pages_is_logged_and_invalidated_at_once() -> None:
    vm = vm_of_all_sizes("6.1")
    gpa = 4 * GIB
    vm.ctl("a mem many size=1G")
    vm.ctl(f"a slot 3 gpa={gpa} size=1G mem=many")
    assert sizes(vm, f"a vcpu 0 access w {gpa} n={PAGES}") == (PAGES, 0, 0)
    vm.ctl("a notifier invalidate many off=4096 size=4096")
    vm.ctl(f"a slot 3 gpa={gpa} size=1G mem=many flags=log_dirty")
    assert vm.changes(f"a vcpu 0 access w {gpa} n=3")["pf_fast"] == 2
    assert vm.ctl("a dirty_log 3") == {"dirty": "0-2"}
    assert vm.ctl(f"a vcpu 0 access w {gpa} n={PAGES}") == {"faults": str(PAGES)}
    assert sizes(vm, "a notifier invalidate many size=1G") == (-PAGES, 0, 0)
    assert "pages_4k" not in vm.changes("a notifier invalidate many size=1G")
    assert vm.ctl(f"a vcpu 0 access r {gpa} n=2") == {"faults": "2"}


def test_the_recovery_zaps_tables_of_both_levels() -> None:
    vm = vm_of_all_sizes("6.12")
    vm.machine.write("sys/module/kvm/parameters/nx_huge_pages", "force\n")
    vm.machine.write("sys/module/kvm/parameters/nx_huge_pages_recovery_ratio", "1\n")
    vm.ctl(f"a vcpu 0 access x {GIB + 4 * MIB}")
    assert vm.counter("nx_lpage_splits") == 2
    vm.ctl(f"a vcpu 0 access x {8 * MIB}")
    assert (vm.counter("nx_lpage_splits"), vm.counter("pages_4k")) == (3, 2)
    vm.machine.clock.advance(3600)
    assert (vm.counter("nx_lpage_splits"), vm.counter("pages_4k")) == (0, 0)
    assert sizes(vm, f"a vcpu 0 access w {GIB}") == (0, 0, 1)


def test_faults_that_no_leaf_can_answer() -> None:
    vm = vm_of_all_sizes("6.1", mmio_caching=0)
    beyond = 100 * MIB
    for _ in range(2):
        found = vm.ctl(f"a vcpu 0 access r {beyond}")
        assert found == {"faults": "1", "exits": f"MMIO:{beyond:#x}:read:4"}
    assert vm.counter("pf_mmio_spte_created") == 0
    vm.ctl("a notifier munmap small off=4096 size=4096")
    assert vm.ctl("a vcpu 0 access w 4096") == {"faults": "1", "exits": "EFAULT"}
    # Beside it all is as it was, one by one or all at once.
    assert vm.ctl(f"a vcpu 0 access w {2 * 4096} n=510") == {"faults": "510"}


@pytest.mark.parametrize("traced", [False, True])
def test_accesses_of_a_table_with_mmio_sptes(traced: bool) -> None:
    vm = vm_of_all_sizes("6.1", traced=traced)
    vm.ctl("a mem part size=1M")
    vm.ctl(f"a slot 3 gpa={6 * GIB} size=1M mem=part")
    assert vm.ctl(f"a vcpu 0 access r {6 * GIB + MIB}")["exits"].startswith("MMIO:0x180100000:")
    assert vm.counter("pf_mmio_spte_created") == 1
    assert vm.ctl(f"a vcpu 0 access w {6 * GIB} n=256") == {"faults": "256"}
    assert vm.ctl(f"a vcpu 0 access w {6 * GIB} n=256") == {"faults": "0"}
    assert vm.counter("pages_4k") == 256


RUNS = (
    "vcpu 0 access w 0x1000 n=700",
    "vcpu 1 access r 0x200000 n=100",
    "vcpu 0 access r 0x1c0000 n=300",
    "slot 0 gpa=0 size=8M mem=small flags=log_dirty",
    "vcpu 0 access w 0x300000 n=600",
    "vcpu 0 access w 0x300000 n=600",
    "vcpu 1 access r 0x7f0000 n=40",
    "notifier unmap small off=1M size=1M",
    "vcpu 0 access w 0xf0000 n=80",
    "fork small",
    "vcpu 0 access r 0 n=300",
    "vcpu 0 access w 0 n=300",
    "fork_end",
    "slot 0 gpa=0 size=0",
    "vcpu 0 access r 0 n=5",
    "slot 0 gpa=0 size=8M mem=small",
    "vcpu 0 access w 0 n=100",
)


@pytest.mark.parametrize("processor", ["amd", "qemu", "intel", "software"] if LONG else ["amd"])
def test_faults_in_runs_tell_what_single_ones_tell(
    processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = "6.12" if processor == "qemu" else "6.1"
    calls = list[int]()
    whole = TracedFaults.access
    told: list[list[object]] = [[], []]
    for number, access in enumerate((whole, lambda *_args, **_kwargs: 0)):

        def counted(*args: object, access: object = access, **kwargs: object) -> int:
            calls.append(int(access(*args, **kwargs)))  # type: ignore[operator]
            return calls[-1]

        monkeypatch.setattr(TracedFaults, "access", counted)
        vm = vm_of_all_sizes(kernel, processor=processor)
        vm.machine.write(f"{TRACING}/buffer_size_kb", "20000")
        for system in ("kvm", "kvmmmu"):
            vm.machine.write(f"{TRACING}/events/{system}/enable", "1")
        vm.events()
        for command in RUNS:
            try:
                found: object = vm.ctl(f"a {command}")
            except KernelError as error:
                found = error.errno
            columns = [
                line.split()[3:4] for line in vm.machine.read(f"{TRACING}/trace").split("\n")
            ]
            told[number] += [command, found, columns, vm.events(), vm.counters(), sptes(vm)]
            logs = vm.machine.listdir(f"{CONTROL}/vms/a/dirty")
            told[number] += [vm.view(f"dirty/{log}") for log in sorted(logs)]
    assert sum(calls) > 1000
    for one, other in zip(*told, strict=True):
        assert one == other
