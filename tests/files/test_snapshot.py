"""A machine saved and loaded reads the same in every file, and goes on as the first one does."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fakesys import __version__
from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.machine.profiles import PROFILES
from fakesys.machine.timeline import Timeline, log
from fakesys.subsystems.control.snapshots import FIRST
from fakesys.tree.node import File
from tests.whole_machine import AP, CONTROL, CTL, TRACING, WRITES, attempt, differences

KERNELS = tuple(PROFILES)
# How many random histories: a few by default.
HISTORIES = int(os.environ.get("FAKESYS_HISTORIES", "3"))
# All but those that begin anew.
HISTORY = WRITES[:-2]


def copied(machine: Machine, profile: str = "6.1") -> Machine:
    """Another machine, at first of another kind, that has loaded the first one's file."""
    copy = Machine(profile, "vfio-ap-three-guests")
    attempt(copy, CTL, "vm create old pid=800\n")
    copy.load(machine.save())
    return copy


@pytest.mark.parametrize("profile", KERNELS)
def test_every_file_reads_the_same(profile: str) -> None:
    machine = Machine(profile, "default", selftest=True)
    taken = [attempt(machine, *write) for write in HISTORY].count("ok")
    assert taken > len(HISTORY) * 0.8
    copy = copied(machine)
    # What is compared is not nothing.
    for name in ("trace", "instances/foo/trace"):
        assert copy.read(f"{TRACING}/{name}").count("kvm_") > 3
    assert differences(machine, copy) == []
    assert machine.control.bugs == copy.control.bugs == []


@pytest.mark.parametrize("profile", KERNELS)
def test_the_copy_goes_on_as_the_original_does(profile: str) -> None:
    machine = Machine(profile, "default", selftest=True)
    for write in HISTORY[::2]:
        attempt(machine, *write)
    copy = copied(machine)
    for write in HISTORY:
        assert attempt(machine, *write) == attempt(copy, *write), write
    assert differences(machine, copy) == []
    assert machine.kernel.random.random() == copy.kernel.random.random()
    assert machine.clock.next_due_ns == copy.clock.next_due_ns


@settings(max_examples=HISTORIES, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    profile=st.sampled_from(KERNELS),
    seed=st.integers(0, 1 << 30),
    length=st.integers(1, 60),
)
def test_random_histories(profile: str, seed: int, length: int) -> None:
    chance = random.Random(seed)
    machine = Machine(profile, "default", selftest=True)
    for write in HISTORY[:: chance.randrange(1, 5)]:
        attempt(machine, *write)
    for _ in range(length):
        attempt(machine, *chance.choice(HISTORY))
    copy = copied(machine)
    assert differences(machine, copy) == []
    for _ in range(length):
        write = chance.choice(WRITES)
        assert attempt(machine, *write) == attempt(copy, *write), write
    assert differences(machine, copy) == []
    assert machine.control.bugs == copy.control.bugs == []


FILE = f"{CONTROL}/snapshot"


def written(machine: Machine, data: bytes, piece: int = 1 << 20) -> str:
    """The name of the errno with which the last of the writes to one open file ended."""
    node = machine.fs.resolve(FILE)
    assert isinstance(node, File)
    handle = machine.fs.open(node, os.O_WRONLY)
    try:
        for at in range(0, len(data), piece):
            machine.fs.write(node, handle, data[at : at + piece])
    except KernelError as refusal:
        return refusal.name
    finally:
        handle.release()
    return "ok"


def resealed(data: bytes, old: bytes, new: bytes) -> bytes:
    """The same file with something else in it and the checksum that fits."""
    assert old in data
    text = data[: data.rindex(b'"sha256"')].replace(old, new, 1)
    return text + b'"sha256":"' + hashlib.sha256(text).hexdigest().encode() + b'"}\n'


def why(machine: Machine) -> str:
    return machine.read(f"{CONTROL}/last_error").split(maxsplit=3)[-1].strip()


@pytest.mark.parametrize("piece", [1 << 20, 4096, 777])
def test_the_file_is_read_and_written_in_pieces(piece: int) -> None:
    machine = Machine("6.1", "default")
    attempt(machine, CTL, "vm create a pid=700\n")
    data = machine.read(FILE).encode()
    copy = Machine("seed", "empty")
    assert written(copy, data, piece) == "ok"
    assert differences(machine, copy) == []
    assert copy.read(f"{CONTROL}/last_error") == ""


def test_the_file_is_one_json_object_that_says_what_it_is() -> None:
    machine = Machine("6.1", "vfio-ap-three-guests")
    machine.clock.advance(2)
    found = json.loads(machine.read(FILE))
    assert found["fakesys"] == __version__
    assert (found["profile"], found["scenario"]) == ("6.1", "vfio-ap-three-guests")
    assert found["time_ns"] == 2_000_000_000
    assert found["state"] == json.loads(machine.read(f"{CONTROL}/state"))


def test_what_is_no_snapshot_is_refused_and_changes_nothing() -> None:
    machine = Machine("6.1", "default", selftest=True)
    for write in HISTORY[::3]:
        attempt(machine, *write)
    data = machine.save()
    before = machine.save()
    changed = data.replace(b'"sequence":', b'"sequel":', 1)
    middle = len(data) // 2
    for wrong, reason in (
        (b"hello\n", "no snapshot of fakesys"),
        (b"\n", "no snapshot of fakesys"),
        (changed, "a snapshot that was changed: its checksum is wrong"),
        (data[:middle] + data[middle + 50 :], "a snapshot that was changed"),
        (resealed(data, b'{"fakesys": "', b'{"fakesys": "9'), "a snapshot of fakesys 9"),
        (resealed(data, b'"format": 3', b'"format": 2'), "(format 2); this is"),
        (resealed(data, b'"profile": ', b'"p": '), "unknown field `p`"),
        (resealed(data, b'"state": {', b'"state": {{'), "JSON is malformed"),
        (resealed(data, b'"state": ', b'"state": ' + b"[" * 100_000), "recursion"),
        (resealed(data, b'"models":{', b'"models":{{'), "JSON is malformed"),
        (resealed(data, b'"kernel":', b'"k":'), "unknown field `k` - at `$.models`"),
        (resealed(data, b'"models":{', b'"models":{"more":1,'), "unknown field `more`"),
        (resealed(data, b'"completions":', b'"completions":-'), "Expected `int` >= 0"),
        (resealed(data, b'"apmask":"', b'"apmask":"x'), "Expected `str` matching regex"),
        (resealed(data, b'"ap":"', b'"ap":"eval'), "is none of"),
        (resealed(data, b'"origin":{', b'"origin":{"__class__":"os:system",'), "unknown field"),
    ):
        assert written(machine, wrong) == "EINVAL", reason
        assert reason in why(machine)
    machine.control.last_error = None
    assert sorted(machine.save()) == sorted(before)
    assert machine.control.bugs == []


@pytest.mark.parametrize(
    ("part", "value", "count"),
    [
        ("drivers", b'["",[]],', 400_000),
        ("cards", b"[],", 2_000_000),
        ("rcs", b"[0,9999],", 500_000),
    ],
)
def test_more_values_than_a_file_of_that_size_has_are_refused_before_they_are_made(
    part: str, value: bytes, count: int
) -> None:
    machine = Machine("6.1", "default")
    name = f'"{part}":['.encode()
    data = resealed(machine.save(), name, name + value * count)
    tracemalloc.start()
    try:
        assert written(machine, data, len(data)) == "EINVAL"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert why(machine) == "no usable snapshot: its values need more than 4 times its size"
    # What the client wrote is collected, copied and hashed.
    assert peak < 4 * len(data) + (1 << 20)


def test_a_cut_file_is_said_when_it_is_closed() -> None:
    machine = Machine("6.1", "default")
    data = machine.save()
    for length in (5, 100, len(data) - 1):
        machine.control.last_error = None
        assert written(machine, data[:length]) == "ok"
        assert why(machine) == "a snapshot that is cut off: its last line is missing"
        with pytest.raises(KernelError, match="cut off"):
            machine.load(data[: max(length, len(FIRST))])


def test_what_is_longer_than_any_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine("6.1", "default")
    monkeypatch.setattr("fakesys.subsystems.control.snapshots.LONGEST", 1000)
    assert written(machine, machine.save()) == "EFBIG"


def test_a_loaded_machine_resets_to_its_own_beginning() -> None:
    machine = Machine("6.1", "vfio-ap-three-guests", seed=5)
    first = machine.read(f"{CONTROL}/state")
    attempt(machine, f"{AP}/apmask", "0\n")
    copy = Machine("seed", "empty")
    copy.load(machine.save())
    assert copy.read(f"{CONTROL}/state") == machine.read(f"{CONTROL}/state") != first
    copy.write(f"{CONTROL}/reset", "1\n")
    assert copy.read(f"{CONTROL}/state") == first


def test_a_machine_can_load_its_own_past() -> None:
    machine = Machine("6.1", "default")
    attempt(machine, CTL, "vm create a pid=700\n")
    past = machine.save()
    node = machine.fs.resolve("sys/kernel/debug/kvm/700-10")
    attempt(machine, CTL, "vm destroy a\n")
    attempt(machine, f"{CONTROL}/profile", "6.18\n")
    machine.load(past)
    assert machine.read(f"{CONTROL}/profile") == "seed [6.1] 6.12 6.18\n"
    assert "700-10" in machine.listdir("sys/kernel/debug/kvm")
    assert node.gone


def test_steps_of_a_scenario_that_are_still_to_come_happen_in_the_copy() -> None:
    machine = Machine(None, "vfio-ap-three-guests")
    steps = [step for step in machine.scenario.at if step.seconds > 1]
    assert steps
    told: list[str] = []
    Timeline(machine, log).schedule()
    machine.clock.advance(1)
    copy = Machine("6.18", "empty")
    copy.load(machine.save())
    for each in (machine, copy):
        each.clock.advance(100)
        told.append(each.read(f"{CONTROL}/state"))
    assert told[0] == told[1]
    assert differences(machine, copy) == []


# --- who owns a VM ---


class Watches:
    """Who asked to hear of the end of which process."""

    def __init__(self) -> None:
        self.ended: dict[int, Callable[[], None]] = {}

    def watch(self, pid: int, ended: Callable[[], None]) -> Callable[[], None]:
        """As the daemon does it."""
        self.ended[pid] = ended
        return lambda: self.ended.pop(pid, None) and None


def test_a_loaded_vm_keeps_its_name_and_belongs_to_no_process() -> None:
    machine, there = Machine("6.1", "default"), Watches()
    machine.watch_owners(there.watch)
    attempt(machine, CTL, "vm create a pid=700\n")
    assert 700 in there.ended
    copy, here = Machine("6.1", "default"), Watches()
    copy.watch_owners(here.watch)
    copy.load(machine.save())
    assert here.ended == {}
    assert copy.subsystems.kvm.kvm.vm("a").pid == 700
    assert "700-10" in copy.listdir("sys/kernel/debug/kvm")
    # A new one is watched again; the descriptor of the old one is in use.
    assert attempt(copy, CTL, "vm create b pid=700 fd=10\n") == "EEXIST"
    assert attempt(copy, CTL, "vm create c pid=700\n") == "ok"
    assert set(here.ended) == {700}


def test_what_is_replaced_hears_of_no_owner_any_more() -> None:
    machine, watches = Machine("6.1", "default"), Watches()
    machine.watch_owners(watches.watch)
    other = Machine("6.1", "empty").save()
    replacements: tuple[Callable[[], None], ...] = (lambda: machine.load(other), machine.reset)
    for replace in replacements:
        attempt(machine, CTL, "vm create a pid=700\n")
        assert set(watches.ended) == {700}
        replace()
        assert watches.ended == {}


def test_a_vm_that_only_an_open_file_held_ends_with_the_files() -> None:
    machine = Machine("6.1", "default")
    attempt(machine, CTL, "vm create a pid=700\n")
    attempt(machine, CTL, "vm create b pid=701\n")
    nodes = [machine.fs.resolve(f"sys/kernel/debug/kvm/{vm}-10/exits") for vm in (700, 701)]
    handles = [machine.fs.open(node, os.O_RDONLY) for node in nodes]
    attempt(machine, CTL, "vm destroy a\n")
    copy = copied(machine)
    assert "700-10" in machine.listdir("sys/kernel/debug/kvm")
    assert "700-10" not in copy.listdir("sys/kernel/debug/kvm")
    attempt(copy, CTL, "vm destroy b\n")
    assert "701-10" not in copy.listdir("sys/kernel/debug/kvm")
    for handle in handles:
        handle.release()


# --- open files ---


def test_readers_of_journals_go_on_with_what_comes_after_the_load() -> None:
    machine = Machine("6.1", "default")
    node = machine.fs.resolve(f"{CONTROL}/uevents_pipe")
    assert isinstance(node, File)
    handle = machine.fs.open(node, os.O_RDONLY)
    other = Machine("6.1", "default", selftest=True)
    for _ in range(50):
        attempt(other, f"{AP}/devices/card05/online", "0\n")
        attempt(other, f"{AP}/devices/card05/online", "1\n")
    assert machine.fs.read(node, handle, 0, 1 << 20, nonblock=True)
    machine.load(other.save())
    with pytest.raises(KernelError, match="nothing new"):
        machine.fs.read(node, handle, 0, 1 << 20, nonblock=True)
    attempt(machine, f"{CONTROL}/selftest/remove", "1\n")
    text = machine.fs.read(node, handle, 0, 1 << 20, nonblock=True).decode()
    assert text.count("ACTION=") == 1
    assert f"SEQNUM={other.control.uevents.last + 1}\n" in text
    # A new reader sees what the loaded machine remembers.
    assert machine.read(f"{CONTROL}/uevents").count("ACTION=") == other.control.uevents.last + 1


def test_pipes_and_markers_of_the_machine_before_are_gone() -> None:
    machine = Machine("6.1", "default")
    other = machine.save()
    files = [machine.fs.resolve(f"{TRACING}/{name}") for name in ("trace_pipe", "trace_marker")]
    pipe, marker = (node for node in files if isinstance(node, File))
    handles = [machine.fs.open(pipe, os.O_RDONLY), machine.fs.open(marker, os.O_WRONLY)]
    machine.load(other)
    machine.fs.settle()
    with pytest.raises(KernelError, match="gone"):
        machine.fs.read(pipe, handles[0], 0, 100, nonblock=True)
    with pytest.raises(KernelError, match="gone"):
        machine.fs.write(marker, handles[1], b"x")
    for handle in handles:
        handle.release()
    # In the new machine nobody reads the pipe.
    machine.write(f"{TRACING}/trace_marker", "new\n")
    assert "new" in machine.read(f"{TRACING}/trace_pipe")


def test_a_pause_of_recording_by_a_reader_ends_with_the_reader() -> None:
    machine = Machine("6.1", "default")
    machine.write(f"{TRACING}/options/pause-on-trace", "1\n")
    trace = machine.fs.resolve(f"{TRACING}/trace")
    handle = machine.fs.open(trace, os.O_RDONLY)
    copy = copied(machine)
    assert attempt(machine, f"{TRACING}/trace_marker", "x\n") == "EBADF"
    assert attempt(copy, f"{TRACING}/trace_marker", "x\n") == "ok"
    handle.release()


def test_a_pipe_that_was_read_in_part_goes_on_where_it_was() -> None:
    machine = Machine("6.1", "default")
    for number in range(2000):
        machine.write(f"{TRACING}/trace_marker", f"line {number}\n")
    for name, size in (("trace_pipe", 5000), ("per_cpu/cpu0/trace_pipe_raw", 4096)):
        node = machine.fs.resolve(f"{TRACING}/{name}")
        assert isinstance(node, File)
        handle = machine.fs.open(node, os.O_RDONLY)
        assert machine.fs.read(node, handle, 0, size)
        handle.release()
    copy = copied(machine)
    for name in ("trace", "per_cpu/cpu0/stats", "trace_pipe"):
        text = copy.read(f"{TRACING}/{name}")
        assert text == machine.read(f"{TRACING}/{name}")
    assert "line 1999" in text
    assert "line 5\n" not in text


def test_time_that_a_real_clock_paces_stops_at_the_moment_of_the_file() -> None:
    machine = Machine("6.1", "default")
    now = 1_000
    machine.clock.follow(lambda: now)
    machine.write(f"{CONTROL}/clock/rate", "2\n")
    happened: list[float] = []
    now += 3_000_000_000
    machine.clock.catch_up()
    machine.subsystems.selftest = None
    now += 1_000_000_000
    copy = Machine("seed", "empty")
    copy.load(machine.save())
    assert copy.clock.now_ns == 8_000_000_000
    assert copy.clock.rate == 2
    copy.clock.after(1, lambda: happened.append(copy.clock.now))
    copy.clock.follow(lambda: now)
    now += 600_000_000
    copy.clock.catch_up()
    assert happened == [9.0]
    assert copy.clock.now_ns == 9_200_000_000
