"""`buffer_subbuf_size_kb`, as Linux 6.18 answers."""

from __future__ import annotations

from errno import EINVAL

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import PAGE_HEADER, room_of
from fakesys.subsystems.tracing.ring_buffer.raw_page import RawPage
from tests.files.test_saved_tracing import encoded, replace

TRACING = "sys/kernel/tracing"
SIZE = f"{TRACING}/buffer_subbuf_size_kb"
RAW = f"{TRACING}/per_cpu/cpu0/trace_pipe_raw"


@pytest.fixture
def machine() -> Machine:
    return Machine("6.18")


def marked(machine: Machine, count: int) -> None:
    for number in range(count):
        machine.write(f"{TRACING}/trace_marker", f"text {number}\n")


def test_sizes_are_rounded_up_to_a_power_of_two(machine: Machine) -> None:
    assert machine.read(SIZE) == "4\n"
    marked(machine, 1)
    size = machine.read(f"{TRACING}/buffer_size_kb")
    for written, shown in (("3", 4), ("8", 8), ("63", 64), ("65", 128), ("512", 512), ("4", 4)):
        machine.write(SIZE, written)
        assert machine.read(SIZE) == f"{shown}\n"
        # What was allotted is shown as before.
        assert machine.read(f"{TRACING}/buffer_size_kb") == size
    for wrong in ("0", "-1", "x", "513", "5000"):
        with pytest.raises(KernelError) as refusal:
            machine.write(SIZE, wrong)
        assert refusal.value.errno == EINVAL
    with pytest.raises(KernelError):
        Machine("6.1").read(SIZE)


def test_a_change_drops_events_and_pages_are_larger(machine: Machine) -> None:
    marked(machine, 3)
    machine.write(SIZE, "3")
    assert "text 2" in machine.read(f"{TRACING}/trace")
    machine.write(SIZE, "8")
    assert "text" not in machine.read(f"{TRACING}/trace")
    assert "offset:16;\tsize:8176;" in machine.read(f"{TRACING}/events/header_page")
    machine.write(f"{TRACING}/buffer_size_kb", "100")
    assert machine.read(f"{TRACING}/per_cpu/cpu0/buffer_size_kb") == "103\n"
    marked(machine, 170)
    again = Machine("6.18")
    replace(again, encoded(machine))
    assert encoded(again) == encoded(machine)
    for each in (machine, again):
        # More than 4096 bytes of records are in the first page.
        marked(each, 60)
        node = each.fs.resolve(RAW)
        handle = each.fs.open(node, 0)
        page = each.fs.read(node, handle, 0, 1 << 16, nonblock=True)  # type: ignore[arg-type]
        assert len(page) == PAGE_HEADER + room_of(1)
        assert len(RawPage.decode(page).records) > room_of(0)
        with pytest.raises(KernelError) as refusal:
            each.fs.splice(node, handle, len(page), nonblock=True)  # type: ignore[arg-type]
        assert refusal.value.errno == EINVAL
        handle.release()


def test_new_cpus_and_snapshots_have_such_pages(machine: Machine) -> None:
    tracing = machine.subsystems.tracing.tracing
    marked(machine, 1)
    tracing.top.buffers.allot_snapshot()
    machine.write(SIZE, "16")
    tracing.grow(40)
    buffers = tracing.top.buffers
    every = [*buffers.live, *(buffers.snapshot or ())]
    assert {buffer.room for buffer in every} == {room_of(2)}
    assert len({buffer.size_kb for buffer in buffers.live}) == 1
