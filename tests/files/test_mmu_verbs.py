"""Every command that concerns memory: what it does, what `last` says, every refusal."""

from __future__ import annotations

from errno import EBUSY, ECHILD, EEXIST, EINVAL, ENOENT, ENOMEM, ENOTTY, ERANGE

import pytest

from fakesys.subsystems.kvm_mmu.files.commands import verbs
from tests.files.mmu import CONTROL, DIRECTORY, GIB, MIB, MmuVm

# Words of each verb -> errno -> commands that are refused with it. VM `a` has
# 64 MiB in slot 0; slot 2 is read-only, slot 3 is logged; `b` is another VM; vCPU 1 is closed.
REFUSED: dict[str, dict[int, tuple[str, ...]]] = {
    "VM mem MEM": {
        ENOENT: ("x mem B size=4096",),
        EEXIST: ("a mem A size=4096",),
        EINVAL: ("a mem B size=4095", "a mem B size=0", "a mem B", "a mem B size=1M thp=2"),
        ENOMEM: ("a mem B size=48T",),
    },
    "VM host_write MEM": {
        ENOENT: ("x host_write A hex=00", "a host_write B hex=00"),
        EINVAL: (
            f"a host_write A off={64 * MIB - 1} hex=0000",
            "a host_write A hex=0",
            "a host_write A",
        ),
    },
    "VM slot SLOT": {
        EBUSY: ("paused slot 1 gpa=0 size=0",),
        ENOENT: ("x slot 1 gpa=0 size=0", "a slot 1 gpa=0x4000000 size=4096 mem=B"),
        EINVAL: (
            "a slot 1 gpa=0x40000000 size=4097 mem=A",
            "a slot 1 gpa=0x40000001 size=4096 mem=A",
            "a slot 1 gpa=0x40000000 size=4096 mem=A off=1",
            "a slot 1 gpa=0x40000000 size=4096 ua=0x8000000000000000",
            "a slot 1 gpa=0xfffffffffffff000 size=8192 mem=A",
            "a slot 1 gpa=0x10000000000000 size=4096 mem=A",
            "a slot 1 gpa=0x40000000 size=4096 mem=A flags=8",
            "a slot 1 gpa=0x40000000 size=4096 mem=A flags=dirty",
            "a slot 1 gpa=0x40000000 size=16T ua=0x100000",
            "a slot 509 gpa=0x40000000 size=4096 mem=A",
            "a slot 0x20001 gpa=0x40000000 size=4096 mem=A",
            "a slot 1 gpa=0 size=0",
            "a slot 0 gpa=0 size=32M mem=A",
            "a slot 0 gpa=0 size=64M mem=A off=4096",
            "a slot 0 gpa=0 size=64M mem=A flags=readonly",
            "a slot 2 gpa=0x20000000 size=4096 mem=A",
        ),
        EEXIST: (
            "a slot 1 gpa=0x3fff000 size=8192 mem=A",
            "a slot 2 gpa=0x1000 size=4096 mem=A flags=readonly",
        ),
        ERANGE: ("a slot 1 gpa=0x10000000000000000 size=4096", "a slot 99999999999999999999"),
    },
    "VM guest_tables": {
        ENOENT: ("x guest_tables",),
        EINVAL: ("a guest_tables n=0", "a guest_tables n=513", "b guest_tables"),
    },
    "VM vcpu K setup": {ENOENT: ("x vcpu 0 setup", "a vcpu 5 setup", "a vcpu 1 setup")},
    "VM vcpu K cr3 VALUE": {ENOENT: ("a vcpu 5 cr3 0x10000", "a vcpu 1 cr3 0x10000")},
    "VM vcpu K run ITEM...": {
        ENOENT: ("a vcpu 5 run", "a vcpu 1 run r=0x1000"),
        EINVAL: (
            "a vcpu 2 run r=0x1000",
            "a vcpu 3 run",
            "a vcpu 0 run z=1",
            "a vcpu 0 run w64=1",
            "a vcpu 0 run r=1,2",
            "a vcpu 0 run rloop=0",
            "a vcpu 0 run rloop=0,1048577",
        ),
    },
    "VM vcpu K run_real": {
        ENOENT: ("a vcpu 5 run_real hex=f4", "a vcpu 1 run_real hex=f4"),
        EINVAL: ("a vcpu 0 run_real hex=f4", "a vcpu 3 run_real hex=f"),
    },
    "VM vcpu K access r|w|x ADDR": {
        ENOENT: ("a vcpu 5 access r 0", "a vcpu 1 access w 0"),
        EINVAL: (
            "a vcpu 0 access z 0",
            "a vcpu 0 access r 0 n=268435457",
            "a vcpu 0 access x 0 n=1048577",
            "a vcpu 0 access r 0 n=1048577 stride=8",
            "a vcpu 0 access w 0x100000000 n=1048577",
            "a vcpu 0 access w 0 value=x",
        ),
    },
    "VM dirty_log SLOT": {
        EBUSY: ("paused dirty_log 0",),
        ENOENT: ("x dirty_log 0", "a dirty_log 0", "a dirty_log 7"),
        EINVAL: ("a dirty_log 509", "a dirty_log 0x20000"),
    },
    "VM clear_dirty SLOT": {
        EBUSY: ("paused clear_dirty 0 first=0 n=64",),
        ENOENT: ("x clear_dirty 3 first=0 n=64", "a clear_dirty 0 first=0 n=64"),
        EINVAL: (
            "a clear_dirty 3 first=1 n=64",
            "a clear_dirty 3 first=0 n=63",
            "a clear_dirty 3 first=0 n=576",
            "a clear_dirty 3 first=576 n=64",
            "a clear_dirty 509 first=0 n=64",
            "a clear_dirty 509 first=1 n=64",
        ),
    },
    "VM cap NR ARG": {
        EBUSY: ("paused cap 168 1",),
        ENOENT: ("x cap 168 1",),
        EINVAL: ("a cap 1 1", "a cap 168 2", "a cap 168 4", "a cap 213 0x80", "a cap 192 65536"),
    },
    "VM quirks MASK": {ENOENT: ("x quirks 0",), EINVAL: ("a quirks 1",)},
    "VM nr_mmu_pages N": {
        EBUSY: ("paused nr_mmu_pages 100",),
        ENOENT: ("x nr_mmu_pages", "x nr_mmu_pages 100"),
        EINVAL: ("a nr_mmu_pages 63", "a nr_mmu_pages 0", "a nr_mmu_pages many"),
        ENOTTY: ("modern nr_mmu_pages",),
    },
    "VM notifier invalidate|unmap|munmap|collapse MEM": {
        ENOENT: ("x notifier unmap A size=4096", "a notifier invalidate B size=4096"),
        EINVAL: (
            "a notifier unmap A off=1 size=4096",
            "a notifier unmap A size=0",
            "a notifier munmap A size=1",
            "a notifier collapse A size=1",
            "a notifier invalidate A size=4097",
            f"a notifier invalidate A off={64 * MIB} size=4096",
        ),
    },
    "VM notifier protect MEM": {
        ENOENT: ("x notifier protect A size=4096 prot=r", "a notifier protect B size=4096 prot=r"),
        EINVAL: (
            "a notifier protect A size=4096",
            "a notifier protect A size=4096 prot=w",
            "a notifier protect A off=4095 size=4096 prot=r",
        ),
    },
    "VM fork": {ENOENT: ("x fork",)},
    "VM fork_end": {ENOENT: ("x fork_end",), ECHILD: ("a fork_end",)},
    "VM ring_reset": {
        EBUSY: ("paused ring_reset",),
        ENOENT: ("x ring_reset",),
        EINVAL: ("a ring_reset",),
    },
    "VM vcpu K smi": {ENOENT: ("a vcpu 5 smi", "a vcpu 1 smi"), EINVAL: ("a vcpu 0 smi",)},
    "VM vcpu K ring": {
        ENOENT: ("a vcpu 5 ring first=0 n=1",),
        EINVAL: ("a vcpu 0 ring first=0 n=1", "a vcpu 0 ring n=1", "a vcpu 0 ring first=0 n=0"),
    },
    "shrink": {},
    "VM race": {
        EBUSY: ("paused race slot=1",),
        ENOENT: ("x race slot=0", "a race slot=7"),
        EINVAL: (
            "a race",
            "a race slot=509",
            "a race slot=0 vcpus=65",
            "a race slot=0 vcpus=16 ws=128G",
            "a race slot=0 ws=1.5M",
            "a race slot=0 flow=slow",
            "a race slot=0 max_rounds=0",
            "a race slot=0 max_rounds=1000001",
            "a race slot=0 max_time=3601",
            "a race slot=0 pause=0",
        ),
    },
    "VM race resume": {
        ENOENT: ("x race resume",),
        EINVAL: ("a race resume", "a race resume pause=0", "a race resume slot=0"),
    },
}
CASES = [
    (errno, command)
    for errnos in REFUSED.values()
    for errno, commands in errnos.items()
    for command in commands
]


@pytest.fixture
def crowded() -> MmuVm:
    """The VM that `REFUSED` speaks of; nothing watches its events, so that commands are quick."""
    vm = MmuVm(vcpus=4, events=())
    vm.ctl("a slot 2 gpa=0x10000000 size=4096 mem=A flags=readonly")
    vm.ctl("a slot 3 gpa=0x11000000 size=2M mem=A flags=log_dirty")
    vm.ctl("a vcpu 0 setup")
    vm.ctl("a vcpu 3 setup real=1")
    vm.ctl("a vcpu 1 close")
    vm.ctl("vm create b")
    return vm


@pytest.mark.parametrize(("errno", "command"), CASES)
def test_refused(crowded: MmuVm, errno: int, command: str) -> None:
    if command.startswith("modern"):
        crowded = MmuVm("6.18")
        command = command.replace("modern", "a")
    if command.startswith("paused"):
        crowded = MmuVm("5.3", events=())
        crowded.ctl("a race slot=0 vcpus=2 ws=2M pause=1")
        command = command.replace("paused", "a")
    assert crowded.refused(errno, command)


def test_every_errno_of_every_verb_has_a_refusal() -> None:
    listed = {
        " ".join(str(getattr(part, "name", part)) for part in verb.words): set(verb.errors)
        for verb in verbs()
    }
    assert set(listed) == set(REFUSED)
    for name, errnos in listed.items():
        assert errnos <= set(REFUSED[name]), name


def test_memory_of_every_kind() -> None:
    vm = MmuVm(size=0)
    assert vm.ctl("a mem small size=4096") == {}
    assert vm.ctl("a mem large size=4M thp=1") == {}
    vm.ctl("a slot 0 gpa=0 size=4M mem=large")
    vm.ctl("a slot 1 gpa=0x40000000 size=4096 mem=small")
    vm.ctl("a slot 2 gpa=0x50000000 size=4096 mem=large off=0x3ff000")
    assert vm.view("memslots") == (
        "0 0x0 0x400000 - large+0x0\n"
        "1 0x40000000 0x1000 - small+0x0\n"
        "2 0x50000000 0x1000 - large+0x3ff000\n"
    )
    vm.ctl("a vcpu 0 access w 0 n=1024")
    assert vm.counter("largepages") == 2


def test_host_writes_are_seen_by_the_guest_and_told_by_nobody() -> None:
    vm = MmuVm()
    vm.ctl("a vcpu 0 setup real=1")
    # mov ax, [0x2000]; out 0x10, al; hlt
    vm.ctl("a host_write A off=0x2000 hex=2a00")
    assert vm.told("kvm_mmu_set_spte") == []
    vm.machine.write("sys/kernel/tracing/events/kvm/kvm_pio/enable", "1")
    assert vm.ctl("a vcpu 0 run_real hex=a10020e610f4") == {"exits": "IO,HLT"}
    assert vm.told("kvm_pio") == ["pio_write at 0x10 size 1 count 1 val 0x2a "]


def test_deletes_and_moves_say_what_they_zapped() -> None:
    vm = MmuVm()
    vm.ctl("a vcpu 0 access w 0 n=3 stride=2M")
    assert vm.mmu("n_used") == 6
    assert vm.ctl("a slot 0 gpa=0x40000000 size=64M mem=A") == {"zapped": "6", "rounds": "0"}
    assert vm.view("memslots") == "0 0x40000000 0x4000000 - A+0x0\n"
    assert vm.ctl("a slot 0 gpa=0 size=0") == {"zapped": "0", "rounds": "0"}
    assert vm.view("memslots") == ""
    assert vm.ctl("a slot 0 gpa=0 size=64M mem=A flags=3") == {}
    assert vm.view("memslots") == "0 0x0 0x4000000 log_dirty,readonly A+0x0\n"


def test_programs_tell_their_exits() -> None:
    vm = MmuVm(paging="shadow", mmio_caching=0)
    vm.ctl("a guest_tables n=32 large=3,4")
    vm.ctl("a vcpu 0 setup")
    run = "a vcpu 0 run"
    assert vm.ctl(f"{run} w=0x400000 r=0x400000 x=0x1800 w64=0x5000,0x77") == {}
    assert vm.ctl(f"{run} r=0x3f00000") == {}
    vm.ctl("a slot 1 gpa=0x40000000 size=2M mem=A flags=readonly")
    vm.ctl("a slot 0 gpa=0 size=0")
    vm.ctl("a slot 0 gpa=0 size=32M mem=A")
    assert vm.ctl(f"{run} rloop=0x2000000,2 w=0x2002000") == {
        "exits": "MMIO:0x2000000:read:4,MMIO:0x2001000:read:4,MMIO:0x2002000:write:4"
    }
    # Beyond the guest's own tables: it gets a fault that nothing handles.
    assert vm.ctl(f"{run} r=0x8000000") == {"exits": "SHUTDOWN"}


def test_a_raw_host_address_has_no_memory_behind_it() -> None:
    vm = MmuVm()
    vm.ctl("a slot 1 gpa=0x40000000 size=2M ua=0x10000000")
    assert "1 0x40000000 0x200000 - 0x10000000\n" in vm.view("memslots")
    assert vm.ctl("a vcpu 0 access w 0x40000000") == {"faults": "1", "exits": "EFAULT"}


def test_accesses_count_faults_and_go_on_after_mmio() -> None:
    vm = MmuVm()
    assert vm.ctl("a vcpu 0 access w 0") == {"faults": "1"}
    assert vm.ctl("a vcpu 0 access w 0") == {"faults": "0"}
    assert vm.ctl("a vcpu 0 access r 0x3fff000 n=3") == {
        "faults": "3",
        "exits": "MMIO:0x4000000:read:4,MMIO:0x4001000:read:4",
    }
    assert vm.ctl("a vcpu 0 access w 0x8000000 value=1") == {
        "faults": "1",
        "exits": "MMIO:0x8000000:write:8",
    }
    assert vm.ctl("a vcpu 0 access x 0x1000") == {"faults": "0"}
    assert vm.ctl("a vcpu 0 access w 0x200000 n=4 stride=0x200000") == {"faults": "4"}


def test_a_quarter_of_a_terabyte_is_touched_by_one_command() -> None:
    vm = MmuVm(size=64 * GIB, events=())
    pages = 64 * GIB // 4096
    assert vm.ctl(f"a vcpu 0 access w 0 n={pages}") == {"faults": str(pages // 8)}
    assert vm.mmu("n_used") == pages // 512 + 64 + 1 + 1
    # And the kick that made vCPU 0 load its root.
    assert vm.counter("exits") == pages // 8 + 1
    assert vm.ctl(f"a vcpu 0 access r 0 n={pages}") == {"faults": "0"}
    assert vm.ctl("a slot 0 gpa=0 size=0")["zapped"] == str(pages // 512 + 64 + 1 + 1)


def test_a_guest_that_was_not_set_up_has_no_translation_with_shadow_paging() -> None:
    vm = MmuVm(paging="shadow")
    assert "not set up" in vm.refused(EINVAL, "a vcpu 0 access r 0x1000")
    vm.ctl("a guest_tables")
    vm.ctl("a vcpu 0 setup")
    assert vm.ctl("a vcpu 0 access r 0x1000") == {"faults": "1"}


def test_a_vcpu_that_was_set_up_stands_in_user_space() -> None:
    vm = MmuVm(vcpus=2, irqchip="kernel")
    runs = [vm.view(f"vcpu{n}").split()[0] for n in range(2)]
    assert runs == ["run=guest", "run=uninit"]
    for n in range(2):
        vm.ctl(f"a vcpu {n} setup")
        assert vm.view(f"vcpu{n}").split()[0] == "run=stopped"
        vm.ctl(f"a vcpu {n} access w 0x1000")
        assert vm.view(f"vcpu{n}").split()[0] == "run=stopped"
    # A signal ends KVM_RUN before the registers are set, and after each access.
    assert vm.counter("signal_exits") == 4
    vm.ctl("a vcpu 0 start")
    assert vm.view("vcpu0").split()[0] == "run=guest"


def test_a_remote_flush_is_counted_when_a_vcpu_is_in_the_guest() -> None:
    vm = MmuVm("6.1", vcpus=2, irqchip="kernel")
    vm.ctl("a vcpu 0 setup")
    vm.ctl("a vcpu 1 setup")
    vm.ctl("a vcpu 1 access w 0")
    assert "remote_tlb_flush" not in vm.changes("a notifier invalidate A size=4096")
    vm.ctl("a vcpu 1 access w 0")
    vm.ctl("a vcpu 0 start")
    changes = vm.changes("a notifier invalidate A size=4096")
    assert (changes["remote_tlb_flush"], changes["remote_tlb_flush_requests"]) == (1, 1)


def test_an_access_by_a_vcpu_is_an_event_of_its_thread() -> None:
    vm = MmuVm(events=())
    vm.machine.write("sys/kernel/tracing/events/kvmmmu/kvm_mmu_get_page/enable", "1")
    vm.ctl("a vcpu 0 access w 0")
    lines = vm.machine.read("sys/kernel/tracing/trace").splitlines()
    told = [line for line in lines if not line.startswith("#")]
    assert len(told) == 4
    assert all("CPU 0/KVM-78" in line for line in told)


def test_the_debugfs_directory_counts_what_commands_do() -> None:
    vm = MmuVm()
    assert vm.changes("a vcpu 0 access w 0 n=16") == {
        "exits": 3,
        "irq_exits": 1,
        "mmu_cache_miss": 4,
        "pf_fixed": 2,
    }
    vm.machine.write(f"{DIRECTORY}/mmu_cache_miss", "0\n")
    assert vm.counter("mmu_cache_miss") == 0


def test_help_tells_of_every_verb() -> None:
    vm = MmuVm(size=0)
    text = vm.machine.read(f"{CONTROL}/help")
    for verb in verbs():
        assert f"{verb.usage}\n    {verb.doc}\n" in text
