"""The scheduler's events of the threads of vCPUs and workers: who runs on which CPU, and why."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import fakesys
from fakesys.core.events import Task
from fakesys.machine.machine import Machine
from fakesys.subsystems.tracing.events.host import EVENTS

TRACING = "sys/kernel/tracing"
KVM = "sys/kernel/debug/fakesys/kvm"
SNAPSHOT = "sys/kernel/debug/fakesys/snapshot"
PRESET = f"{KVM}/preset"
LINE = re.compile(r"^ *(.+)-(\d+) +\[(\d+)\] (\S+) +[\d.]+: (\w+): (.*)$")
SWITCH = re.compile(r"prev_comm=(.+) prev_pid=(\d+) .*prev_state=(\S+) ==> next_comm=(.+) next_pid")


def kvm(machine: Machine, *commands: str) -> None:
    """Write commands."""
    for command in commands:
        machine.write(f"{KVM}/ctl", command)


def recorded(machine: Machine) -> list[tuple[str, str, int, str, str]]:
    """Take what was recorded: event, name of the task, CPU, flags, text."""
    found = []
    for line in machine.read(f"{TRACING}/trace").splitlines():
        if not line.startswith("#"):
            match = LINE.match(line)
            assert match is not None, line
            comm, _, cpu, flags, event, text = match.groups()
            found.append((event, comm, int(cpu), flags, text))
    machine.write(f"{TRACING}/trace", "")
    return found


def short(machine: Machine) -> list[str]:
    """Take what was recorded of the scheduler, each event in a few words."""
    words = []
    for event, comm, cpu, _, text in recorded(machine):
        switch = SWITCH.match(text)
        if switch is not None:
            left, _, state, coming = switch.groups()
            words.append(f"{cpu}: {left} {state} -> {coming}")
        elif event.startswith("sched_"):
            name = re.search(r"comm=(.+?) pid=", text)
            assert name is not None
            words.append(f"{cpu}: {comm} {event.removeprefix('sched_')} {name[1]}")
    return words


@pytest.fixture
def machine() -> Machine:
    """A machine whose scheduler is traced, with a VM of two vCPUs, the second of which waits."""
    made = Machine("6.1")
    kvm(made, "vm create a", "a vcpu add count=2", "a vcpu 1 start", "a vcpu 0 stop")
    made.write(f"{TRACING}/events/sched/enable", "1")
    kvm(made, "a vcpu 0 start")
    assert short(made) == [
        "0: <idle> waking CPU 0/KVM",
        "0: <idle> wakeup CPU 0/KVM",
        "0: swapper/0 R -> CPU 0/KVM",
    ]
    return made


def test_a_vcpu_that_halts_sleeps_until_an_interrupt_wakes_it(machine: Machine) -> None:
    kvm(machine, "a vcpu 0 hlt")
    assert short(machine) == ["0: CPU 0/KVM S -> swapper/0"]
    kvm(machine, "a vcpu 1 ipi dst=0 vec=0x40")
    found = short(machine)
    assert found == [
        "1: CPU 1/KVM waking CPU 0/KVM",
        "1: CPU 1/KVM wakeup CPU 0/KVM",
        "0: swapper/0 R -> CPU 0/KVM",
    ]


def test_a_vcpu_that_polls_does_not_sleep(machine: Machine) -> None:
    kvm(machine, "a vcpu 0 hlt")
    machine.clock.advance(0.00005)
    kvm(machine, "a vcpu 1 ipi dst=0 vec=0x40", "a vcpu 0 eoi", "a vcpu 0 iret")
    short(machine)
    kvm(machine, "a vcpu 0 hlt")
    assert short(machine) == []
    kvm(machine, "a vcpu 1 ipi dst=0 vec=0x40", "a vcpu 0 eoi", "a vcpu 0 iret")
    assert short(machine) == []
    kvm(machine, "a vcpu 0 hlt")
    machine.clock.advance(0.1)
    kvm(machine, "a vcpu 1 ipi dst=0 vec=0x40")
    assert short(machine) == [
        "0: CPU 0/KVM S -> swapper/0",
        "1: CPU 1/KVM waking CPU 0/KVM",
        "1: CPU 1/KVM wakeup CPU 0/KVM",
        "0: swapper/0 R -> CPU 0/KVM",
    ]


def test_a_preempted_vcpu_is_runnable_and_may_move(machine: Machine) -> None:
    kvm(machine, "a vcpu 0 preempt")
    assert short(machine) == ["0: CPU 0/KVM R+ -> migration/0"]
    machine.write(f"{TRACING}/events/kvm/kvm_entry/enable", "1")
    kvm(machine, "a vcpu 0 resume cpu=5")
    events = recorded(machine)
    assert [event[:3] for event in events] == [
        ("sched_migrate_task", "CPU 0/KVM", 0),
        ("sched_switch", "<idle>", 5),
        ("kvm_entry", "CPU 0/KVM", 5),
    ]


def test_a_signal_wakes_a_halted_vcpu_which_then_waits_in_user_space(machine: Machine) -> None:
    kvm(machine, "a vcpu 0 hlt", "a vcpu 0 stop")
    assert short(machine) == [
        "0: CPU 0/KVM S -> swapper/0",
        "0: <idle> waking CPU 0/KVM",
        "0: <idle> wakeup CPU 0/KVM",
        "0: swapper/0 R -> CPU 0/KVM",
        "0: CPU 0/KVM S -> swapper/0",
    ]


def test_a_thread_is_forked_and_ends(machine: Machine) -> None:
    kvm(machine, "a vcpu add start=0")
    owner = "qemu-system-x86"
    assert short(machine) == [
        f"0: {owner} process_fork {owner}",
        f"0: {owner} wakeup_new {owner}",
        "2: swapper/2 R -> CPU 2/KVM",
        "2: CPU 2/KVM S -> swapper/2",
    ]
    kvm(machine, "vm destroy a")
    ends = short(machine)[-6:]
    assert ends == [
        f"0: {owner} waking CPU 2/KVM",
        f"0: {owner} wakeup CPU 2/KVM",
        "2: swapper/2 R -> CPU 2/KVM",
        "2: CPU 2/KVM process_exit CPU 2/KVM",
        "2: CPU 2/KVM X -> swapper/2",
        "2: <idle> process_free CPU 2/KVM",
    ]


def test_two_vcpus_share_a_cpu(machine: Machine) -> None:
    kvm(machine, "vm create b", "b vcpu add")
    assert "0: CPU 0/KVM R+ -> CPU 0/KVM" in short(machine)
    kvm(machine, "a vcpu 0 exit cpuid")
    assert short(machine) == ["0: CPU 0/KVM R+ -> CPU 0/KVM"]


def test_memory_commands_run_the_thread_and_put_it_back(machine: Machine) -> None:
    kvm(machine, "a vcpu 0 stop", "a mem m size=8M", "a slot 0 gpa=0 size=4M mem=m off=0")
    kvm(machine, "a guest_tables n=2", "a vcpu 0 setup")
    short(machine)
    kvm(machine, "a vcpu 0 run w=0x300000")
    assert short(machine) == [
        "0: <idle> waking CPU 0/KVM",
        "0: <idle> wakeup CPU 0/KVM",
        "0: swapper/0 R -> CPU 0/KVM",
        "0: CPU 0/KVM S -> swapper/0",
    ]


def test_the_flags_are_those_of_the_scheduler(machine: Machine) -> None:
    kvm(machine, "a vcpu 0 hlt", "a vcpu 1 ipi dst=0 vec=0x40")
    flags = {event: flags for event, _, _, flags, _ in recorded(machine)}
    assert flags == {"sched_switch": "d..2.", "sched_waking": "d..2.", "sched_wakeup": "d..3."}


def check_chain(machine: Machine) -> int:
    """Check that each CPU switches from what it switched to last; return the number of switches."""
    runs: dict[int, str] = {}
    switches = 0
    for event, comm, cpu, _, text in recorded(machine):
        if event == "sched_switch":
            match = SWITCH.match(text)
            assert match is not None
            assert runs.get(cpu, match[1]) == match[1], text
            runs[cpu] = match[4]
            switches += 1
        elif event.startswith("kvm_") and comm.startswith("CPU "):
            assert runs.get(cpu, comm) == comm, (event, text)
    return switches


def test_a_cpu_switches_from_what_it_switched_to(machine: Machine) -> None:
    machine.write(f"{TRACING}/buffer_size_kb", "20000")
    machine.write(f"{TRACING}/events/kvm/enable", "1")
    kvm(machine, "vm destroy a")
    machine.write(PRESET, "linux-boot vcpus=4")
    assert check_chain(machine) > 20


def test_nothing_is_kept_while_no_event_is_wanted(machine: Machine) -> None:
    bus = machine.kernel.bus
    assert bus.scheduler is not None
    machine.write(f"{TRACING}/events/sched/enable", "0")
    assert bus.scheduler is None
    machine.write(f"{TRACING}/events/sched/sched_switch/enable", "1")
    kvm(machine, "a vcpu 0 exit cpuid")
    # It was on its CPU before.
    assert short(machine) == []
    kvm(machine, "a vcpu 0 hlt")
    assert short(machine) == ["0: CPU 0/KVM S -> swapper/0"]


def test_a_worker_of_a_vm_is_forked_by_kthreadd_and_sleeps_between_its_turns() -> None:
    machine = Machine("6.1")
    machine.write("sys/module/kvm/parameters/nx_huge_pages", "force")
    kvm(machine, "vm create a")
    machine.write(f"{TRACING}/events/sched/enable", "1")
    period = "sys/module/kvm/parameters/nx_huge_pages_recovery_period_ms"
    machine.write(period, "1000")
    machine.clock.advance(1.5)
    worker = "kvm-nx-lpage-re"
    turn = [
        f"0: <idle> waking {worker}",
        f"0: <idle> wakeup {worker}",
        f"0: swapper/0 R -> {worker}",
        f"0: {worker} S -> swapper/0",
    ]
    assert short(machine) == [
        "0: kthreadd process_fork kthreadd",
        "0: kthreadd wakeup_new kthreadd",
        *turn[2:],
        *turn,
    ]
    machine.clock.advance(1)
    assert short(machine) == turn


def test_clients_and_vcpus_take_turns_on_a_cpu(
    machine: Machine, on_cpu: Callable[[Task], None]
) -> None:
    on_cpu(Task(100, "bash", 0))
    assert short(machine)[-1] == "0: CPU 0/KVM R+ -> bash"
    kvm(machine, "a vcpu 0 exit cpuid")
    assert short(machine) == ["0: bash S -> CPU 0/KVM"]


@pytest.fixture
def on_cpu(machine: Machine) -> Callable[[Task], None]:
    """Return what puts a client on its CPU, as a request of it does."""
    return machine.subsystems.tracing.tracing.watch.queues.serve


def test_a_snapshot_holds_what_runs_where(machine: Machine) -> None:
    kvm(machine, "a vcpu 1 preempt", "a vcpu 0 hlt")
    assert len(short(machine)) == 2
    loaded = Machine("6.18")
    loaded.write(SNAPSHOT, machine.read(SNAPSHOT))
    for one in (machine, loaded):
        kvm(one, "a vcpu 1 resume", "a vcpu 1 ipi dst=0 vec=0x40")
        assert short(one) == [
            "1: migration/1 S -> CPU 1/KVM",
            "1: CPU 1/KVM waking CPU 0/KVM",
            "1: CPU 1/KVM wakeup CPU 0/KVM",
            "0: swapper/0 R -> CPU 0/KVM",
        ]


def test_the_page_on_limits_lists_the_events_that_nothing_causes() -> None:
    page = (Path(fakesys.__file__).parent / "docs" / "limits.md").read_text()
    section = page.split("## Events around KVM that nothing causes\n")[1].split("\n## ")[0]
    rows = [row for row in section.splitlines() if row.startswith("| `")]
    listed = [name for row in rows for name in re.findall(r"`(\w+:\w+|\w+:\*)`", row.split("|")[1])]
    assert len(listed) == len(set(listed))
    whole = {name.removesuffix("*") for name in listed if name.endswith("*")}
    for profile in ("6.1", "6.18"):
        machine = Machine(profile)
        events = machine.read(f"{TRACING}/available_events").split()
        host = {name for name in events if not name.startswith(("kvm:", "kvmmmu:"))}
        silent = {name for name in host if name not in EVENTS}
        told = {name for name in host if name in listed or f"{name.partition(':')[0]}:" in whole}
        assert silent == told
