"""Histograms with variables and actions as Linux 6.1.192 took or refused them."""

from __future__ import annotations

import json
import re
from errno import EBUSY, EINVAL
from pathlib import Path
from typing import Any

import pytest

from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.machine.machine import Machine
from tests.files.test_saved_tracing import encoded, replace

TRACING = "sys/kernel/tracing"
SENT = f"{TRACING}/events/signal/signal_generate"
TAKEN = f"{TRACING}/events/signal/signal_deliver"
FOLDER = Path(__file__).parent.parent / "oracle/tracefs"
RECORDED = json.loads((FOLDER / "hist-actions-6.1.json").read_text())
ENTRY = re.compile(r"^\[ *[\d.]+\] [\w:]+: error: (.*)\n.*\n( *)\^$", re.M)


def asked(machine: Machine, text: str, path: str = TAKEN) -> None:
    """A trigger without O_TRUNC, which takes histograms away."""
    appended(machine, f"{path}/trigger", text)


def appended(machine: Machine, path: str, text: str) -> None:
    node = machine.fs.resolve(path)
    handle = machine.fs.open(node, 1)
    try:
        machine.fs.write(node, handle, text.encode())  # type: ignore[arg-type]
    finally:
        handle.release()


def mistakes(machine: Machine) -> list[list[Any]]:
    found = ENTRY.findall(machine.read(f"{TRACING}/error_log"))
    return [[message, len(blanks) - 11] for message, blanks in found]


def lines(machine: Machine, path: str = TAKEN) -> list[str]:
    shown = machine.read(f"{path}/trigger").splitlines()
    return [line for line in shown if not line.startswith("#")]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["command"])
def test_a_histogram_is_taken_or_refused_as_by_the_kernel(case: dict[str, Any]) -> None:
    machine = Machine("6.1")
    machine.write(f"{TRACING}/synthetic_events", "two int a; pid_t b")
    asked(machine, "hist:keys=pid:v=sig", SENT)
    try:
        asked(machine, case["command"])
    except KernelError:
        assert not case["trigger"]
    assert lines(machine) == case["trigger"]
    assert mistakes(machine) == case["errors"]


LAT = f"{TRACING}/events/synthetic/lat"
WAKING = f"{TRACING}/events/sched/sched_waking"


@pytest.fixture
def machine() -> Machine:
    return Machine("6.1")


def happens(machine: Machine, name: str, *values: object, pid: int = 7, comm: str = "sh") -> None:
    """Let an event happen to a task."""
    bus = machine.kernel.bus
    cls = machine.subsystems.tracing.tracing.shared.catalog.by_name[name].cls
    bus.task = Task(pid, comm, 0)
    if cls in bus.wanted:
        bus.emit(cls(*values))


def sent(machine: Machine, sig: int, to: int = 87, **task: Any) -> None:
    happens(machine, "signal:signal_generate", sig, 0, 0, "sh", to, 1, 0, **task)


def woken(machine: Machine, pid: int = 87) -> None:
    happens(machine, "sched:sched_waking", "sh", pid, 120, 0)


def traced(machine: Machine) -> list[str]:
    text = machine.read(f"{TRACING}/trace")
    return [line.split(": ", 1)[1] for line in text.splitlines() if not line.startswith("#")]


def table(machine: Machine, path: str) -> list[str]:
    """The rows of all histograms of an event, with what follows them."""
    text = machine.read(f"{path}/hist")
    return [line for line in text.splitlines() if line.startswith(("{", "\t"))]


def refused(machine: Machine, errno: int, text: str, path: str = TAKEN) -> None:
    with pytest.raises(KernelError) as refusal:
        asked(machine, text, path)
    assert refusal.value.errno == errno


def defined(machine: Machine, text: str) -> None:
    appended(machine, f"{TRACING}/synthetic_events", text)


def test_a_synthetic_event_of_two_events(machine: Machine) -> None:
    defined(machine, "lat int sig; pid_t pid")
    asked(machine, "hist:keys=pid:s=sig if sig > 0", SENT)
    asked(machine, "hist:keys=pid:onmatch(signal.signal_generate).trace(lat,$s,pid)", WAKING)
    machine.write(f"{LAT}/enable", "1")
    sent(machine, 17)
    woken(machine, 88)
    woken(machine)
    sent(machine, 10)
    woken(machine)
    assert traced(machine) == ["lat: sig=17 pid=87", "lat: sig=10 pid=87"]
    assert table(machine, WAKING) == ["{ pid:         87 } hitcount:          2"]
    # What refers to a variable keeps its histogram, and what makes an event keeps the event.
    refused(machine, EBUSY, "!hist:keys=pid:s=sig if sig > 0", SENT)
    machine.write(f"{SENT}/trigger", "")
    assert len(lines(machine, SENT)) == 1
    with pytest.raises(KernelError) as refusal:
        defined(machine, "!lat")
    assert refusal.value.errno == EBUSY
    machine.write(f"{LAT}/enable", "0")
    asked(machine, "!hist:keys=pid:onmatch(signal.signal_generate).trace(lat,$s,pid)", WAKING)
    asked(machine, "!hist:keys=pid:s=sig if sig > 0", SENT)
    assert lines(machine, SENT) == lines(machine, WAKING) == []
    number = machine.read(f"{LAT}/id").strip()
    defined(machine, "!lat")
    assert traced(machine) == [f"Unknown type {number}"] * 2
    defined(machine, "lat int other")
    assert int(machine.read(f"{LAT}/id")) == int(number) + 1


def test_a_difference_of_times_is_taken_once(machine: Machine) -> None:
    defined(machine, "lat u64 lat; pid_t pid")
    asked(machine, "hist:keys=pid:ts0=common_timestamp.usecs", SENT)
    assert "[global]" in machine.read(f"{TRACING}/trace_clock")
    delta = "hist:keys=pid:delta=common_timestamp.usecs-$ts0"
    asked(machine, f"{delta}:onmatch(signal.signal_generate).lat($delta,pid)", WAKING)
    asked(machine, "hist:keys=pid,lat.log2:vals=lat:sort=pid", LAT)
    machine.write(f"{LAT}/enable", "1")
    machine.write(f"{WAKING}/enable", "1")
    sent(machine, 10)
    machine.clock.advance(0.25)
    woken(machine)
    woken(machine)
    shown = traced(machine)
    # The event that causes the synthetic event comes before it.
    assert [line.partition(":")[0] for line in shown] == ["sched_waking", "lat", "sched_waking"]
    assert shown[1] == "lat: lat=250000 pid=87"
    assert table(machine, LAT) == [
        "{ pid:         87, lat: ~ 2^18 } hitcount:          1  lat:     250000"
    ]


def test_fields_of_the_other_event_get_a_histogram_of_their_own(machine: Machine) -> None:
    defined(machine, "lat int code; char comm[]; pid_t pid")
    asked(machine, "hist:keys=pid if sig > 1", SENT)
    text = "hist:keys=pid:onmatch(signal.signal_generate).lat(code,signal.signal_generate.comm,pid)"
    asked(machine, text, WAKING)
    first, *made = lines(machine, SENT)
    assert made == [
        f"hist:keys=pid:vals=hitcount:synthetic_{field}={field}:sort=hitcount:size=2048"
        " if sig > 1 [active]"
        for field in ("code", "comm")
    ]
    machine.write(f"{LAT}/enable", "1")
    happens(machine, "signal:signal_generate", 9, 0, 5, "qemu", 87, 1, 0)
    woken(machine)
    assert traced(machine) == ["lat: code=5 comm=qemu pid=87"]
    # Of the two fields, `code` was looked for on the event itself first.
    assert mistakes(machine) == [["Couldn't find field", 50], ["Couldn't parse field variable", 50]]
    asked(machine, f"!{text}", WAKING)
    assert lines(machine, SENT) == [first]


def test_the_greatest_and_the_last_value(machine: Machine) -> None:
    defined(machine, "lat int sig")
    asked(machine, "hist:keys=pid:s=sig:onmax($s).save(comm,sig)", SENT)
    asked(machine, "hist:keys=pid:t=sig:onchange($t).trace(lat,$t)", SENT)
    asked(machine, "hist:keys=sig:n=common_pid.execname:onchange($n).save(code)", SENT)
    machine.write(f"{LAT}/enable", "1")
    for sig in (10, 12, 12, 10):
        sent(machine, sig)
    assert table(machine, SENT)[:4] == [
        "{ pid:         87 } hitcount:          4",
        f"\tmax:         12  comm: {'sh':<32}  sig:         12",
        "{ pid:         87 } hitcount:          4",
        "\tchanged:         10",
    ]
    assert traced(machine) == ["lat: sig=10", "lat: sig=12", "lat: sig=10"]
    # Its own variables are in the way of a command.
    refused(machine, EINVAL, "hist:keys=pid:s=sig:onmax($s).save(comm,sig):clear", SENT)
    machine.write(f"{SENT}/trigger", "hist:keys=pid:s=sig:onmax($s).save(comm,sig)")
    sent(machine, 0)
    assert table(machine, SENT) == [
        "{ pid:         87 } hitcount:          1",
        f"\tmax:          0  comm: {'(null)':<32}  sig:          0",
    ]


def test_a_histogram_takes_snapshots(machine: Machine) -> None:
    asked(machine, "hist:keys=common_pid.execname:d=sig:onmax($d).snapshot()", SENT)
    machine.write(f"{SENT}/enable", "1")
    assert "Snapshot is allocated" in machine.read(f"{TRACING}/snapshot")
    assert "Snapshot taken" not in machine.read(f"{SENT}/hist")
    for sig, pid in ((10, 1), (12, 2), (11, 3)):
        sent(machine, sig, pid=pid, comm=f"task{pid}")
    assert (
        "\nSnapshot taken (see tracing/snapshot).  Details:\n"
        "\ttriggering value { onmax($d) }:         12"
        "\ttriggered by event with key: { common_pid: task2           [         2] }\n"
    ) in machine.read(f"{SENT}/hist")
    assert "sig=12 " in machine.read(f"{TRACING}/snapshot")
    for path in (TRACING, f"{TRACING}/per_cpu/cpu0"):
        with pytest.raises(KernelError) as refusal:
            machine.write(f"{path}/snapshot", "1")
        assert refusal.value.errno == EBUSY
    refused(machine, EBUSY, "hist:keys=errno:e=sig:onchange($e).snapshot()", SENT)
    # A snapshot trigger does nothing meanwhile.
    asked(machine, "snapshot if sig == 13", SENT)
    sent(machine, 13, to=1)
    asked(machine, "!hist:keys=common_pid.execname:d=sig:onmax($d).snapshot()", SENT)
    machine.write(f"{TRACING}/snapshot", "1")
    asked(machine, "hist:keys=errno:e=sig:onchange($e).snapshot()", SENT)


def test_texts_as_variables(machine: Machine) -> None:
    defined(machine, "lat char name[16]; char comm[]; int n")
    asked(machine, "hist:keys=pid:c=comm,e=common_pid.execname,n=sig", SENT)
    text = "hist:keys=pid:x=$c:y=$x:onmatch(signal.signal_generate).lat($c,$e,$n)"
    refused(machine, EINVAL, text, WAKING)
    text = "hist:keys=pid:x=$c:onmatch(signal.signal_generate).lat($c,$e,$n)"
    asked(machine, text, WAKING)
    machine.write(f"{LAT}/enable", "1")
    machine.write(f"{LAT}/filter", 'comm == "qemu" && name == "sh"')
    sent(machine, 5, comm="qemu")
    woken(machine)
    assert traced(machine) == ["lat: name=sh comm=qemu n=5"]
    # A number is no text: the type of an expression is that of its first operand.
    asked(machine, f"!{text}", WAKING)
    text = "hist:keys=pid:x=$c+1:onmatch(signal.signal_generate).lat($x,$e,$n)"
    asked(machine, text, WAKING)
    machine.write(f"{LAT}/filter", "0")
    woken(machine)
    assert traced(machine)[1] == "lat: name=(fault) comm=qemu n=5"


def test_names_of_variables_that_are_not_unique(machine: Machine) -> None:
    asked(machine, "hist:keys=pid:v=sig", SENT)
    asked(machine, "hist:keys=pid:v=prio", WAKING)
    refused(machine, EINVAL, "hist:keys=common_pid:x=$v")
    assert mistakes(machine)[0][0].startswith("Variable name not unique")
    asked(machine, "hist:keys=common_pid:x=sched.sched_waking.$v")
    defined(machine, "lat int a")
    machine.write(f"{TRACING}/error_log", "")
    both = "onmatch(signal.signal_generate).lat(sig):onmatch(sched.sched_waking).lat(sig)"
    refused(machine, EINVAL, f"hist:keys=common_pid:y=$v:{both}")
    assert mistakes(machine)[0][0].startswith("Variable name not unique")


def test_a_clock_that_there_is_not(machine: Machine) -> None:
    refused(machine, EINVAL, "hist:keys=common_timestamp:clock=nosuch")
    assert mistakes(machine) == [["Couldn't set trace_clock", 33]]
    asked(machine, "hist:keys=common_timestamp:clock=mono")
    assert "[mono]" in machine.read(f"{TRACING}/trace_clock")


def test_an_event_that_a_histogram_counts_is_kept(machine: Machine) -> None:
    defined(machine, "lat int a")
    asked(machine, "hist:keys=a", LAT)
    for write in (defined, machine.write):
        with pytest.raises(KernelError) as refusal:
            write(*((machine, "!lat") if write is defined else (f"{TRACING}/synthetic_events", "")))
        assert refusal.value.errno == EBUSY
    asked(machine, "!hist:keys=a", LAT)
    machine.write(f"{LAT}/enable", "1")
    with pytest.raises(KernelError) as refusal:
        machine.write(f"{TRACING}/synthetic_events", "")
    assert refusal.value.errno == EBUSY
    machine.write(f"{LAT}/enable", "0")
    machine.write(f"{TRACING}/synthetic_events", "")
    assert "synthetic" not in machine.listdir(f"{TRACING}/events")


def test_truncating_removes_what_switches_histograms(machine: Machine) -> None:
    asked(machine, "enable_hist:sched:sched_waking", SENT)
    asked(machine, "traceoff", SENT)
    machine.write(f"{SENT}/trigger", "hist:keys=sig")
    assert [line.partition(":")[0] for line in lines(machine, SENT)] == ["traceoff", "hist"]


@pytest.mark.parametrize("sig", [1, 5])
def test_all_of_it_is_saved(machine: Machine, sig: int) -> None:
    defined(machine, "gone int a")
    defined(machine, "!gone")
    defined(machine, "lat int code; char comm[]; char name[16]; unsigned long when; long stack[]")
    defined(machine, "two int sig; pid_t pid")
    asked(machine, "hist:keys=pid:ts0=common_timestamp.usecs,t=comm if sig > 0", SENT)
    text = "onmatch(signal.signal_generate).two(code,pid)"
    asked(machine, f"hist:keys=pid:d=common_timestamp.usecs-$ts0:{text}", WAKING)
    asked(machine, "hist:keys=common_pid:m=sig:onmax($m).save(comm)", SENT)
    asked(machine, "hist:keys=common_pid.execname:o=sig:onchange($o).snapshot()", SENT)
    asked(machine, "hist:keys=sig", f"{TRACING}/events/synthetic/two")
    machine.write(f"{TRACING}/events/synthetic/enable", "1")
    machine.write(f"{SENT}/enable", "1")
    sent(machine, sig)
    machine.clock.advance(1)
    again = machine_like(machine)
    for each in (machine, again):
        woken(each)
        sent(each, 3, comm="b")
        woken(each)
        defined(each, "more int a")
    for path in (
        f"{SENT}/hist",
        f"{SENT}/trigger",
        f"{WAKING}/hist",
        f"{TRACING}/events/synthetic/two/hist",
        f"{TRACING}/events/synthetic/lat/format",
        f"{TRACING}/events/synthetic/more/id",
        f"{TRACING}/synthetic_events",
        f"{TRACING}/trace",
        f"{TRACING}/snapshot",
    ):
        assert machine.read(path) == again.read(path), path
    assert machine_like(again).read(f"{SENT}/hist") == machine.read(f"{SENT}/hist")
    # A histogram that was made for the sake of another goes with it.
    for each in (machine, again):
        asked(each, f"!hist:keys=pid:d=common_timestamp.usecs-$ts0:{text}", WAKING)
        assert "synthetic_code" not in each.read(f"{SENT}/trigger")


def machine_like(machine: Machine) -> Machine:
    """A new machine with the tracing and the time of another."""
    fresh = Machine("6.1")
    fresh.clock.advance((machine.clock.now_ns - fresh.clock.now_ns) / 1e9)
    replace(fresh, encoded(machine))
    return fresh
