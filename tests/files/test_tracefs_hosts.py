"""What tracefs has of the host around it: CPUs of writers, numbers of events, call chains."""

from __future__ import annotations

import os
from errno import EBADF
from typing import Any

import pytest

from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.core.kernel import Caller
from fakesys.machine.machine import Machine
from fakesys.machine.tracing import HostTasks
from fakesys.subsystems.kvm.events.guest import KvmPio
from fakesys.subsystems.kvm.events.run import KvmUserspaceExit
from fakesys.subsystems.tracing.events.stacks import ADDRESSES, MARKER_IP, symbols_text

TRACING = "sys/kernel/tracing"
OWNER = Task(4000, "qemu-system-x86", 0)
VCPU = Task(4001, "CPU 0/KVM", 0, 4000)


@pytest.fixture
def machine() -> Machine:
    machine = Machine("6.1")
    tracing: Any = machine.subsystems.tracing.tracing
    tracing.grow(4)
    return machine


def emit(machine: Machine, task: Task, event: object) -> None:
    machine.kernel.bus.task = task
    machine.kernel.bus.emit(event)


def test_a_marker_is_on_the_cpu_of_its_writer(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.subsystems.tracing.tracing.shared.processes, "cpu", lambda pid: 2)
    machine.kernel.caller = Caller(4321, 0, 0)
    machine.write(f"{TRACING}/trace_marker", "here")
    assert "[002] ..... " in machine.read(f"{TRACING}/trace")
    assert "entries: 1\n" in machine.read(f"{TRACING}/per_cpu/cpu2/stats")
    machine.write(f"{TRACING}/tracing_cpumask", "b")
    with pytest.raises(KernelError) as refusal:
        machine.write(f"{TRACING}/trace_marker", "not here")
    assert refusal.value.errno == EBADF
    assert machine.read(f"{TRACING}/trace").count("tracing_mark_write") == 1


def test_the_cpu_of_a_process_is_that_of_proc() -> None:
    before = os.sched_getaffinity(0)
    try:
        for cpu in sorted(before)[:2]:
            os.sched_setaffinity(0, {cpu})
            assert HostTasks().cpu(os.getpid()) == cpu
    finally:
        os.sched_setaffinity(0, before)
    assert HostTasks().cpu(0) == 0


@pytest.mark.parametrize("profile", ["seed", "6.1", "6.12", "6.18"])
def test_no_host_has_events_of_these_numbers(profile: str) -> None:
    """Its own are numbered from the lowest free number on; common_type has 16 bits."""
    catalog = Machine(profile).subsystems.tracing.tracing.shared.catalog
    numbers = [form.id for form in catalog.events]
    assert min(numbers) >= 60_000
    assert max(numbers) < 1 << 16
    assert len(set(numbers)) == len(numbers)


def test_a_stack_follows_each_event_while_the_option_is_on(machine: Machine) -> None:
    machine.write(f"{TRACING}/set_event", "kvm:*")
    machine.write(f"{TRACING}/options/stacktrace", "1")
    emit(machine, VCPU, KvmPio(rw=1, port=1, size=1, count=1, val=1))
    machine.write(f"{TRACING}/trace_marker", "without a stack")
    emit(machine, OWNER, KvmUserspaceExit(reason=2, errno=0))
    lines = machine.read(f"{TRACING}/trace").splitlines()
    bodies = [line.split(": ", 1)[1] for line in lines if ": " in line and line[0] == " "]
    assert [body.split(":")[0] for body in bodies] == [
        "kvm_pio",
        "<stack trace>",
        "tracing_mark_write",
        "kvm_userspace_exit",
        "<stack trace>",
    ]
    assert " => kvm_fast_pio" in lines
    assert " => kvm_vm_ioctl" in lines
    machine.write(f"{TRACING}/options/stacktrace", "0")
    emit(machine, VCPU, KvmPio(rw=1, port=1, size=1, count=1, val=1))
    assert machine.read(f"{TRACING}/trace").count("<stack trace>") == 2


def test_stacks_differ_by_event_and_task(machine: Machine) -> None:
    path = f"{TRACING}/events/kvm/kvm_userspace_exit"
    machine.write(f"{path}/trigger", "hist:keys=stacktrace")
    for task in (OWNER, VCPU, VCPU):
        emit(machine, task, KvmUserspaceExit(reason=2, errno=0))
    text = machine.read(f"{path}/hist")
    assert text.count("{ stacktrace:\n") == 2
    # What records the event is left out.
    assert "trace_event_raw_event" not in text
    assert "Entries: 2\n" in text


def test_symbols_are_listed_by_address() -> None:
    rows = [line.split(" ") for line in symbols_text().splitlines()]
    addresses = [int(address, 16) for address, _, _ in rows]
    assert addresses == sorted(addresses)
    assert {name: int(address, 16) for address, _, name in rows}.items() >= ADDRESSES.items()
    below = max(row for row in rows if int(row[0], 16) <= MARKER_IP)
    assert below[2].startswith("tracing_mark_write")


def test_further_cpus_have_buffers_of_the_size_of_the_others(machine: Machine) -> None:
    machine.write(f"{TRACING}/buffer_size_kb", "64")
    machine.write(f"{TRACING}/set_event", "kvm:*")
    emit(machine, VCPU._replace(cpu=9), KvmPio(rw=1, port=1, size=1, count=1, val=1))
    assert machine.read(f"{TRACING}/buffer_size_kb") == "64\n"
    assert machine.read(f"{TRACING}/per_cpu/cpu9/buffer_size_kb") == "64\n"
    machine.write(f"{TRACING}/per_cpu/cpu1/buffer_size_kb", "100")
    emit(machine, VCPU._replace(cpu=10), KvmPio(rw=1, port=1, size=1, count=1, val=1))
    assert machine.read(f"{TRACING}/per_cpu/cpu10/buffer_size_kb") == "7\n"
