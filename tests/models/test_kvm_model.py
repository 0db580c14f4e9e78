"""VMs in memory: references, owners, counters, extensions, uevents, by methods alone."""

from __future__ import annotations

from collections.abc import Callable
from errno import EBUSY, EEXIST, EINVAL, ENOENT, ENOTTY
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fakesys.core.commands import Interpreter, Option, bind, flag
from fakesys.core.errors import KernelError
from fakesys.core.events import LogLine, Uevent
from fakesys.core.kernel import Caller, Kernel
from fakesys.subsystems.kvm.files.commands import modprobe
from fakesys.subsystems.kvm.model import Kvm, KvmDevice, VcpuLimits
from fakesys.subsystems.kvm.params import Param, Params
from fakesys.subsystems.kvm.stats import STATS, Kind, Scope, Stat, bucket_of
from fakesys.subsystems.kvm.vm import Irqchip, Vcpu, Vm, VmOptions

DAEMON = 500
AVIC: Param[bool] = Param("avic", flag, False, "", modprobe=True)


def stat(name: str) -> Stat:
    """The counter behind a file of the newest kernels."""
    return next(row for row in STATS if row.file.name == name)


class Watched:
    """A watch that a test fires."""

    def __init__(self) -> None:
        self.watched: dict[int, list[Callable[[], None]]] = {}

    def __call__(self, pid: int, ended: Callable[[], None]) -> Callable[[], None]:
        self.watched.setdefault(pid, []).append(ended)
        return lambda: self.watched[pid].remove(ended)

    def end(self, pid: int) -> None:
        for ended in list(self.watched.get(pid, ())):
            ended()


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def watch() -> Watched:
    return Watched()


@pytest.fixture
def kvm(kernel: Kernel, watch: Watched) -> Kvm:
    return Kvm(kernel, Params((AVIC,)), daemon=lambda: DAEMON, watch=watch)


def refused(errno: int, call: Callable[[], object]) -> None:
    with pytest.raises(KernelError) as refusal:
        call()
    assert refusal.value.errno == errno


def test_the_caller_owns_a_vm(kvm: Kvm, kernel: Kernel) -> None:
    assert kvm.create_vm("a").directory == f"{DAEMON}-10"
    kernel.caller = Caller(pid=77, uid=0, gid=0)
    assert kvm.create_vm("b").directory == "77-10"
    assert kvm.create_vm("c").directory == "77-11"
    assert kvm.create_vm("d", pid=88, fd=5).directory == "88-5"
    kvm.vm("b").kill()
    assert kvm.create_vm("e").directory == "77-10"


def test_names_and_descriptors_are_used_once(kvm: Kvm) -> None:
    kvm.create_vm("a", fd=12)
    kvm.extend(tuple, lambda: frozenset({"vm"}))
    refused(EEXIST, lambda: kvm.create_vm("a"))
    refused(EEXIST, lambda: kvm.create_vm("b", fd=12))
    for name in ("vm", "", "a/b", ".", "ü"):
        refused(EINVAL, partial(kvm.create_vm, name))
    assert [vm.name for vm in kvm.vms] == ["a"]
    refused(ENOENT, lambda: kvm.vm("b"))


def test_the_last_reference_ends_a_vm(kvm: Kvm) -> None:
    vm = kvm.create_vm("a")
    first, second = kvm.create_vcpus(vm, count=2)
    let_go = vm.hold()
    vm.close_fd()
    first.close()
    second.close()
    assert not vm.dead
    let_go()
    assert vm.dead
    assert (kvm.vms, kvm.directories, list(kvm.names)) == ([], {}, [])
    refused(ENOENT, vm.get)


def test_descriptors_close_once(kvm: Kvm) -> None:
    vm = kvm.create_vm("a")
    (vcpu,) = kvm.create_vcpus(vm)
    vcpu.close()
    refused(ENOENT, vcpu.close)
    let_go = vm.hold()
    vm.close_fd()
    refused(ENOENT, vm.close_fd)
    let_go()


def test_a_held_vm_has_lost_its_name_but_not_its_directory(kvm: Kvm, kernel: Kernel) -> None:
    lines: list[str] = []
    kernel.bus.subscribe(LogLine, lambda line: lines.append(line.text))
    old = kvm.create_vm("a")
    let_go = old.hold()
    old.kill()
    new = kvm.create_vm("a")
    assert (old.directory, new.directory) == (f"{DAEMON}-10", None)
    assert lines == [f"KVM: debugfs: duplicate directory {DAEMON}-10"]
    let_go()
    assert kvm.vms == [new]
    new.kill()
    assert kvm.vms == []


def test_a_vm_ends_with_its_owner(kvm: Kvm, watch: Watched) -> None:
    vm = kvm.create_vm("a", pid=77)
    kvm.create_vcpus(vm, count=3)
    kept = kvm.create_vm("b", pid=78)
    watch.end(77)
    assert vm.dead
    assert kvm.vms == [kept]
    assert watch.watched == {77: [], 78: [kept.kill]}
    kept.kill()
    assert watch.watched[78] == []


def test_the_daemon_is_not_watched(kvm: Kvm, watch: Watched) -> None:
    kvm.create_vm("a")
    assert watch.watched == {}


def test_vcpus_are_threads_near_their_owner(kvm: Kvm) -> None:
    vm = kvm.create_vm("a", pid=77)
    other = kvm.create_vm("b", pid=77)
    vcpus = [*kvm.create_vcpus(vm, count=2), *kvm.create_vcpus(other)]
    assert [vcpu.task.comm for vcpu in vcpus] == ["CPU 0/KVM", "CPU 1/KVM", "CPU 0/KVM"]
    assert [vcpu.task.pid for vcpu in vcpus] == [78, 79, 80]
    assert vcpus[1].cpu == 1
    vcpus[1].move_to(9)
    assert vcpus[1].cpu == 9
    vcpus[1].runs()
    assert vcpus[1].last_pid == 79


def test_vcpu_ids_and_limits(kvm: Kvm) -> None:
    vm = kvm.create_vm("a")
    kvm.limits = VcpuLimits(count=4, ids=10)
    kvm.create_vcpus(vm, first_id=1)
    assert [vcpu.id for vcpu in kvm.create_vcpus(vm, count=2)] == [0, 2]
    refused(EEXIST, lambda: kvm.create_vcpus(vm, first_id=1))
    refused(EINVAL, lambda: kvm.create_vcpus(vm, first_id=10))
    refused(EINVAL, lambda: kvm.create_vcpus(vm, count=2))
    vm.vcpu(2).close()
    refused(EEXIST, lambda: kvm.create_vcpus(vm, first_id=2))
    kvm.create_vcpus(vm, first_id=9)
    refused(EINVAL, lambda: kvm.create_vcpus(vm))
    refused(ENOENT, lambda: vm.vcpu(5))
    assert sorted(vm.vcpus) == [0, 1, 2, 9]


def test_an_irqchip_comes_before_vcpus_and_once(kvm: Kvm) -> None:
    bare = kvm.create_vm("a", irqchip=Irqchip.NONE)
    kvm.create_irqchip(bare)
    refused(EEXIST, lambda: kvm.create_irqchip(bare))
    late = kvm.create_vm("b", irqchip=Irqchip.NONE)
    kvm.create_vcpus(late)
    refused(EINVAL, lambda: kvm.create_irqchip(late))


def test_counters_sum_and_clear(kvm: Kvm) -> None:
    a, b = kvm.create_vm("a"), kvm.create_vm("b")
    first, second = kvm.create_vcpus(a, count=2)
    first.stats.exits += 2
    second.stats.exits += 3
    a.group.exits += 100
    b.stats.mmu_cache_miss += 7
    exits, misses = stat("exits"), stat("mmu_cache_miss")
    assert (a.read(exits), b.read(exits), kvm.read(exits)) == (105, 0, 105)
    assert (a.read(misses), kvm.read(misses)) == (0, 7)
    a.clear(exits)
    assert (first.stats.exits, kvm.read(exits)) == (0, 0)
    kvm.clear(misses)
    assert b.read(misses) == 0
    first.stats.exits += 1
    a.kill()
    assert kvm.read(exits) == 0


def test_lazy_counts_are_booked_before_reads_and_clears(kvm: Kvm) -> None:
    vm = kvm.create_vm("a")
    due = [5]

    def book() -> None:
        vm.group.irq_exits += due[0]
        due[0] = 0

    vm.before_read.append(book)
    assert vm.read(stat("irq_exits")) == 5
    due[0] = 3
    vm.clear(stat("irq_exits"))
    assert vm.read(stat("irq_exits")) == 0


def test_a_histogram_shows_and_clears_its_first_bucket(kvm: Kvm) -> None:
    vm = kvm.create_vm("a")
    (vcpu,) = kvm.create_vcpus(vm)
    for nanoseconds in (0, 0, 1, 5000):
        vcpu.stats.halt_wait_hist[bucket_of(nanoseconds)] += 1
    hist = stat("halt_wait_hist")
    assert vm.read(hist) == 2
    vm.clear(hist)
    assert vm.read(hist) == 0
    assert sum(vcpu.stats.halt_wait_hist) == 2


@pytest.mark.parametrize(
    ("nanoseconds", "bucket"),
    [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1 << 30, 31), (1 << 40, 31)],
)
def test_buckets_are_powers_of_two(nanoseconds: int, bucket: int) -> None:
    assert bucket_of(nanoseconds) == bucket


def test_every_counter_can_be_read_and_cleared(kvm: Kvm) -> None:
    vm = kvm.create_vm("a")
    kvm.create_vcpus(vm)
    for row in STATS:
        if row.file.kind is not Kind.GAUGE:
            vm.clear(row)
        assert vm.read(row) == 0
    assert {row.scope for row in STATS} == set(Scope)


def test_uevents_tell_of_creation_and_end(kvm: Kvm, kernel: Kernel) -> None:
    heard: list[Uevent] = []
    kernel.bus.subscribe(Uevent, heard.append)
    vm = kvm.create_vm("a", pid=77)
    kvm.create_vm("b", pid=77)
    vm.kill()
    device = {"MAJOR": "10", "MINOR": "232", "DEVNAME": "kvm"}
    assert [event.env for event in heard] == [
        {"CREATED": "1", "COUNT": "1", "EVENT": "create", "PID": "77"}
        | {"STATS_PATH": "/kvm/77-10"}
        | device,
        {"CREATED": "2", "COUNT": "2", "EVENT": "create", "PID": "77"}
        | {"STATS_PATH": "/kvm/77-11"}
        | device,
        {"CREATED": "2", "COUNT": "1", "EVENT": "destroy", "PID": "77"}
        | {"STATS_PATH": "/kvm/77-10"}
        | device,
    ]
    assert {(event.action, event.devpath, event.subsystem) for event in heard} == {
        ("change", "/devices/virtual/misc/kvm", "misc")
    }


PIT = Option("pit", flag, False, "")


class Recorder:
    """An extension that writes down what it hears, and refuses on demand."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.refuses = ""

    def _check(self, what: str) -> None:
        if self.refuses == what:
            raise KernelError(ENOTTY, "as asked for")

    def check_vm(self, irqchip: Irqchip, options: VmOptions) -> None:
        self._check("vm")

    def add_vm(self, vm: Vm, options: VmOptions) -> None:
        self.heard.append(f"vm {vm.name} {vm.directory} pit={options.get(PIT):d}")

    def check_irqchip(self, vm: Vm) -> None:
        self._check("irqchip")

    def add_irqchip(self, vm: Vm) -> None:
        self.heard.append("irqchip")

    def check_vcpu(self, vm: Vm, vcpu_id: int) -> None:
        self._check(f"vcpu {vcpu_id}")

    def add_vcpu(self, vcpu: Vcpu, *, start: bool) -> None:
        self.heard.append(f"vcpu {vcpu.id}")

    def close_vcpu(self, vcpu: Vcpu) -> None:
        self.heard.append(f"close {vcpu.id}")

    def hold_vcpu(self, vcpu: Vcpu) -> None:
        self.heard.append(f"hold {vcpu.id}")

    def is_in_guest(self, vcpu: Vcpu) -> bool:
        return vcpu.id == 1

    def remove_vm(self, vm: Vm) -> None:
        self.heard.append("gone")


def test_extensions_hear_of_everything(kvm: Kvm) -> None:
    recorder = Recorder()
    kvm.extend(lambda: (recorder,))
    vm = kvm.create_vm("a", irqchip=Irqchip.NONE, options=VmOptions({PIT: True}))
    kvm.create_irqchip(vm)
    kvm.create_vcpus(vm, count=2)
    vm.vcpu(1).hold()
    assert [vcpu.is_in_guest() for vcpu in vm.vcpus.values()] == [False, True]
    vm.kill()
    assert recorder.heard == [
        f"vm a {DAEMON}-10 pit=1",
        "irqchip",
        "vcpu 0",
        "vcpu 1",
        "hold 1",
        "close 0",
        "close 1",
        "gone",
    ]


def test_what_an_extension_refuses_changes_nothing(kvm: Kvm) -> None:
    first, recorder = Recorder(), Recorder()
    kvm.extend(lambda: (first, recorder))
    vm = kvm.create_vm("a", irqchip=Irqchip.NONE)
    recorder.heard.clear()
    for refuses, call in (
        ("vm", lambda: kvm.create_vm("b")),
        ("irqchip", lambda: kvm.create_irqchip(vm)),
        ("vcpu 1", lambda: kvm.create_vcpus(vm, count=2)),
    ):
        recorder.refuses = refuses
        refused(ENOTTY, call)
    assert (kvm.vms, vm.irqchip, vm.vcpus, recorder.heard) == ([vm], Irqchip.NONE, {}, [])


def test_warnings_are_counted_and_logged_once(kvm: Kvm, kernel: Kernel) -> None:
    lines: list[str] = []
    kernel.bus.subscribe(LogLine, lambda line: lines.append(line.text))
    kvm.warn("odd")
    kvm.warn("odd")
    assert (kvm.warnings, lines) == ({"odd": 2}, ["odd"])


def test_params_are_chosen_or_the_kernels_or_default(kvm: Kvm) -> None:
    params = kvm.params
    assert params[AVIC] is False
    params.use_kernel({"avic": "1"})
    assert (params[AVIC], params.state()) == (True, {"avic": "1"})
    params.choose(AVIC, False)
    assert params[AVIC] is False
    params.reset()
    assert params[AVIC] is True
    assert params.row("avic") is AVIC
    refused(ENOENT, lambda: params.row("nested"))
    refused(EINVAL, lambda: params.use_kernel({"nested": "1"}))


def test_idle_is_required(kvm: Kvm) -> None:
    kvm.require_idle()
    vm = kvm.create_vm("a")
    refused(EBUSY, kvm.require_idle)
    vm.kill()
    kvm.require_idle()


class Lives(RuleBasedStateMachine):
    """References taken and given back at random, against a plain count."""

    def __init__(self) -> None:
        super().__init__()
        self.kvm = Kvm(Kernel(), Params(()), daemon=lambda: DAEMON)
        self.vm = self.kvm.create_vm("a")
        self.vcpus: list[Vcpu] = []
        self.holds: list[Callable[[], None]] = []
        self.fd = True

    def alive(self) -> bool:
        return self.fd or bool(self.holds) or any(not vcpu.closed for vcpu in self.vcpus)

    @precondition(lambda self: self.fd)
    @rule()
    def add_vcpu(self) -> None:
        self.vcpus.extend(self.kvm.create_vcpus(self.vm))

    @precondition(lambda self: self.alive())
    @rule()
    def open_file(self) -> None:
        self.holds.append(self.vm.hold())

    @precondition(lambda self: not self.alive())
    @rule()
    def open_too_late(self) -> None:
        refused(ENOENT, self.vm.hold)

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def close_file(self, data: st.DataObject) -> None:
        self.holds.pop(data.draw(st.integers(0, len(self.holds) - 1)))()

    @precondition(lambda self: self.fd)
    @rule()
    def close_fd(self) -> None:
        self.fd = False
        self.vm.close_fd()

    @precondition(lambda self: self.alive())
    @rule()
    def kill(self) -> None:
        self.fd = False
        self.vm.kill()

    @precondition(lambda self: any(not vcpu.closed for vcpu in self.vcpus))
    @rule(data=st.data())
    def close_vcpu(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([v for v in self.vcpus if not v.closed])).close()

    @invariant()
    def it_lives_while_anything_refers_to_it(self) -> None:
        assert self.vm.dead is not self.alive()
        assert (self.vm in self.kvm.vms) is self.alive()
        assert bool(self.kvm.directories) is self.alive()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_modprobe_sets_module_parameters(kvm: Kvm) -> None:
    other: Param[bool] = Param("thing", flag, False, "")
    kvm.params.rows[other.name] = other
    control = Interpreter(bind((modprobe(kvm.params),), kvm))
    control.find("modprobe avic=1").run()
    assert kvm.params[AVIC] is True
    control.find("modprobe").run()
    assert kvm.params[AVIC] is True
    refused(EINVAL, lambda: control.find("modprobe thing=1").run())
    refused(EINVAL, lambda: control.find("modprobe avic=2").run())
    kvm.create_vm("a")
    refused(EBUSY, lambda: control.find("modprobe avic=0").run())
    assert kvm.params[AVIC] is True


def test_vms_are_found_by_name(kvm: Kvm) -> None:
    vm = kvm.create_vm("a")
    assert kvm.find("a") is vm
    assert kvm.find("b") is None
    assert list(KvmDevice().listed_in()) == []
