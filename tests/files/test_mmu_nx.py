"""`nx_huge_pages` of the kvm module: large pages without X, their splits, how they come back."""

from __future__ import annotations

from errno import EBUSY, EINVAL, EPERM, ERANGE

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from tests.files.mmu import CONTROL, MIB, MmuVm

PARAMETERS = "sys/module/kvm/parameters"
MODE = f"{PARAMETERS}/nx_huge_pages"
RATIO = f"{MODE}_recovery_ratio"
PERIOD = f"{MODE}_recovery_period_ms"
KERNELS = ("5.4", "6.1", "6.12", "6.18")
SPLITS = {
    "5.4": "nx_largepages_splitted",
    **dict.fromkeys(("6.1", "6.12", "6.18"), "nx_lpage_splits"),
}
REGIONS = 4


def mapped(kernel: str = "6.1", *, mode: str = "force", **options: object) -> MmuVm:
    """A VM whose memory is mapped by large pages, with the workaround on."""
    vm = MmuVm(kernel, thp=1, size=2 * REGIONS * MIB, **options)  # type: ignore[arg-type]
    vm.machine.write(MODE, f"{mode}\n")
    vm.ctl("a vcpu 0 setup")
    vm.ctl(f"a vcpu 0 access w 0 n={512 * REGIONS}")
    vm.events()
    return vm


def split(vm: MmuVm, regions: int = REGIONS) -> None:
    """Fetch from so many large pages."""
    for region in range(regions):
        vm.ctl(f"a vcpu 0 access x {region * 2 * MIB + 0x3000}")


def splits(vm: MmuVm, kernel: str = "6.1") -> int:
    return vm.counter(SPLITS[kernel])


def refused(machine: Machine, path: str, text: str) -> int:
    before = machine.read(path)
    with pytest.raises(KernelError) as refusal:
        machine.write(path, f"{text}\n")
    assert machine.read(path) == before
    errno = refusal.value.errno
    assert errno is not None
    return errno


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_fetch_splits_a_large_page_and_the_recovery_brings_it_back(kernel: str) -> None:
    vm = mapped(kernel)
    large = "largepages" if kernel == "5.4" else "pages_2m"
    assert vm.changes("a vcpu 0 access x 0x3000") | {large: -1, SPLITS[kernel]: 1} == (
        changes := vm.changes("a vcpu 0 access x 0x203000")
    )
    assert (changes["mmu_cache_miss"], changes["pf_fixed"]) == (1, 1)
    assert vm.told("kvm_mmu_spte_requested") == [
        "gfn 3 pfn 100003 level 1",
        "gfn 203 pfn 100203 level 1",
    ]
    # What was written to before may be executed from now on, without another fault.
    left = {"exits": 1, "fpu_reload": 1, "irq_exits": 1, "signal_exits": 1}
    assert vm.changes("a vcpu 0 access w 0x5000") == left
    vm.machine.clock.advance(59)
    assert splits(vm, kernel) == 2
    vm.machine.clock.advance(1)
    assert splits(vm, kernel) == 1
    assert vm.machine.read("sys/kernel/tracing/trace").count("kvm-nx-lpage-re-79 ") == 1
    assert vm.changes("a vcpu 0 access w 0x5000")[large] == 1
    vm.machine.clock.advance(60)
    assert splits(vm, kernel) == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_large_pages_are_mapped_without_x_and_small_ones_with_it(kernel: str) -> None:
    vm = mapped(kernel)
    vm.ctl("a vcpu 0 access x 0x3000")
    vm.machine.write(MODE, "off\n")
    vm.events()
    vm.ctl("a vcpu 0 access w 0")
    vm.machine.write(MODE, "force\n")
    vm.ctl("a vcpu 0 access w 0")
    vm.ctl("a vcpu 0 access x 0")
    rights = [text.partition("(")[2][:4] for text in vm.told("kvm_mmu_set_spte")]
    assert rights[:3] == ["rwxu", "rw-u", "rwxu"]


def test_a_table_with_small_pages_is_not_replaced_by_a_large_one() -> None:
    vm = mapped()
    split(vm, 1)
    # The host takes pages away: the next access there asks for a large one again.
    vm.ctl("a notifier invalidate A off=0x100000 size=4096")
    changes = vm.changes("a vcpu 0 access w 0x100000")
    assert (changes["pages_4k"], changes.get("pages_2m")) == (8, None)
    assert splits(vm) == 1


@pytest.mark.parametrize(("kernel", "counted"), [("5.4", 3), ("6.1", 0), ("6.18", 0)])
def test_5_4_counts_tables_that_no_large_page_could_replace(kernel: str, counted: int) -> None:
    vm = MmuVm(kernel, size=4 * MIB)
    vm.machine.write(MODE, "force\n")
    vm.ctl("a vcpu 0 setup")
    vm.ctl("a vcpu 0 access x 0")
    assert splits(vm, kernel) == counted


def test_without_tdp_a_guest_without_paging_is_split_but_not_counted() -> None:
    vm = MmuVm("6.1", thp=1, size=4 * MIB, paging="shadow")
    vm.ctl("a vcpu 0 setup real=1")
    vm.machine.write(MODE, "force\n")
    assert vm.changes("a vcpu 0 access w 0")["pages_2m"] == 1
    changes = vm.changes("a vcpu 0 access x 0x3000")
    assert changes["pages_2m"] == -1
    assert splits(vm) == 0


@pytest.mark.parametrize("events", [(), ("kvmmmu",)])
def test_a_change_zaps_the_pages_of_every_vm_and_with_them_the_splits(
    events: tuple[str, ...],
) -> None:
    vm = mapped(events=events)
    vm.ctl("vm create b pid=78 fd=11")
    split(vm)
    assert splits(vm) == REGIONS
    vm.machine.write(MODE, "Y\n")
    vm.machine.write(MODE, "on\n")
    assert splits(vm) == REGIONS
    vm.events()
    vm.machine.write(MODE, "auto\n")
    assert vm.machine.read(MODE) == "N\n"
    # The vCPU still holds its root.
    assert (splits(vm), vm.mmu("n_used")) == (0, 1)
    told = [text.rpartition("used_pages ")[2] for text in vm.told("kvm_mmu_zap_all_fast")]
    # The younger VM is first.
    assert told == (["0", "7"] if events else [])
    assert vm.changes("a vcpu 0 access x 0")["pages_2m"] == 1


def test_a_new_vm_gets_what_is_set_and_one_that_goes_takes_its_thread_along() -> None:
    vm = mapped()
    split(vm)
    vm.ctl("vm create b pid=78 fd=11")
    for command in ("vcpu add", "mem B size=2M thp=1", "slot 0 gpa=0 size=2M mem=B",
                    "vcpu 0 setup", "vcpu 0 access w 0", "vcpu 0 access x 0"):  # fmt: skip
        vm.ctl(f"b {command}")
    assert vm.machine.read("sys/kernel/debug/kvm/78-11/nx_lpage_splits") == "1\n"
    assert vm.machine.read("sys/kernel/debug/kvm/nx_lpage_splits") == f"{REGIONS + 1}\n"
    vm.ctl("vm destroy a")
    vm.machine.clock.advance(61)
    assert vm.machine.read("sys/kernel/debug/kvm/nx_lpage_splits") == "0\n"


def test_ratio_and_period_say_how_many_and_how_often() -> None:
    vm = mapped()
    split(vm)
    vm.machine.write(RATIO, "2\n")
    # An hour divided by 2.
    vm.machine.clock.advance(1790)
    assert splits(vm) == REGIONS
    vm.machine.clock.advance(20)
    assert splits(vm) == 2
    vm.machine.write(RATIO, "0\n")
    vm.machine.clock.advance(7200)
    assert splits(vm) == 2
    vm.machine.write(PERIOD, "500\n")
    vm.machine.write(RATIO, "1\n")
    # That long ago was the last time.
    vm.machine.clock.advance(0)
    assert splits(vm) == 0
    split(vm, 1)
    vm.machine.clock.advance(0.4)
    assert splits(vm) == 1
    vm.machine.clock.advance(0.2)
    assert splits(vm) == 0


def test_the_period_of_5_4_is_a_minute() -> None:
    vm = mapped("5.4")
    assert "nx_huge_pages_recovery_period_ms" not in vm.machine.listdir(PARAMETERS)
    split(vm, 2)
    vm.machine.write(RATIO, "1\n")
    vm.machine.clock.advance(59)
    assert splits(vm, "5.4") == 2
    vm.machine.clock.advance(2)
    assert splits(vm, "5.4") == 0


@pytest.mark.parametrize(("kernel", "stay"), [("6.1", False), ("6.12", True), ("6.18", True)])
def test_what_a_logged_slot_maps_is_spared_by_newer_kernels(kernel: str, stay: bool) -> None:
    vm = mapped(kernel)
    split(vm, 1)
    vm.ctl(f"a slot 0 gpa=0 size={2 * REGIONS}M mem=A flags=log_dirty")
    before = vm.counter("pages_4k")
    vm.machine.clock.advance(61)
    assert splits(vm, kernel) == 0
    assert (vm.counter("pages_4k") == before) is stay


def test_the_words_of_the_mode() -> None:
    machine = Machine("6.1", scenario="empty")
    for word, shown in (("force", "Y"), ("off", "N"), ("1", "Y"), ("auto", "N"), ("yes", "Y"),
                        ("0", "N"), ("on", "Y"), ("n", "N")):  # fmt: skip
        machine.write(MODE, f"{word}\n")
        assert machine.read(MODE) == f"{shown}\n"
    for word in ("maybe", "", "forced", "2"):
        assert refused(machine, MODE, word) == EINVAL
    for path in (RATIO, PERIOD):
        assert refused(machine, path, "many") == EINVAL
        assert refused(machine, path, str(1 << 32)) == ERANGE


def test_never_is_for_good_and_not_while_a_vm_exists() -> None:
    vm = MmuVm("6.1")
    assert refused(vm.machine, MODE, "never") == EBUSY
    vm.ctl("vm destroy a")
    vm.machine.write(MODE, "never\n")
    assert vm.machine.read(MODE) == "never\n"
    for path, text in ((MODE, "force"), (MODE, "maybe"), (RATIO, "1"), (PERIOD, "1")):
        assert refused(vm.machine, path, text) == EPERM
    # Another kernel is another module.
    vm.machine.write(f"{CONTROL}/mmu_profile", "5.4\n")
    assert vm.machine.read(MODE) == "N\n"
    # There the word is just one that begins with n.
    vm.machine.write(MODE, "never\n")
    vm.machine.write(MODE, "force\n")


@pytest.mark.parametrize("kernel", ["5.3", "series-11"])
def test_older_kernels_have_no_such_parameter(kernel: str) -> None:
    vm = MmuVm(kernel, size=0)
    assert not [name for name in vm.machine.listdir(PARAMETERS) if name.startswith("nx")]


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "6.18"])
def test_a_vm_can_be_spared_before_its_first_vcpu(kernel: str) -> None:
    vm = MmuVm(kernel, thp=1, size=4 * MIB, vcpus=0)
    vm.machine.write(MODE, "force\n")
    vm.refused(EINVAL, "a cap 220 1")
    vm.ctl("a cap 220 0")
    vm.ctl("a vcpu add")
    vm.refused(EINVAL, "a cap 220 0")
    vm.ctl("a vcpu 0 setup")
    changes = vm.changes("a vcpu 0 access x 0")
    assert (changes["pages_2m"], splits(vm, kernel)) == (1, 0)
    # The change itself zaps its pages all the same.
    assert vm.counter("pages_2m") == 1
    vm.machine.write(MODE, "off\n")
    assert vm.counter("pages_2m") == 0


def test_5_4_spares_no_vm() -> None:
    MmuVm("5.4", vcpus=0).refused(EINVAL, "a cap 220 0")


def test_a_snapshot_holds_the_splits_and_when_they_are_recovered() -> None:
    vm = mapped(events=())
    split(vm)
    vm.machine.clock.advance(30)
    other = Machine("6.18", scenario="empty")
    other.load(vm.machine.save())
    counter = "sys/kernel/debug/kvm/nx_lpage_splits"
    assert other.read(counter) == f"{REGIONS}\n"
    other.clock.advance(31)
    assert other.read(counter) == f"{REGIONS - 1}\n"


def test_parameters_that_vms_look_at() -> None:
    machine = Machine("6.1", scenario="empty")
    machine.write(f"{PARAMETERS}/tdp_mmu", "N\n")
    assert machine.read(f"{PARAMETERS}/tdp_mmu") == "N\n"
    assert refused(machine, f"{PARAMETERS}/tdp_mmu", "maybe") == EINVAL
    assert Machine("6.12", "empty").read(f"{PARAMETERS}/tdp_mmu") == "Y\n"
    assert machine.read(f"{PARAMETERS}/mmio_caching") == "Y\n"
    machine.write(f"{CONTROL}/params/mmio_caching", "0\n")
    assert machine.read(f"{PARAMETERS}/mmio_caching") == "N\n"
