"""What is written is recorded as a script; running it anew gives the same results and machine."""

from __future__ import annotations

import os
import random
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.machine.playback.replay import Difference, InMemory, machine_of, run_steps
from fakesys.machine.profiles import PROFILES
from fakesys.machine.scenario import parse
from fakesys.machine.timeline import Timeline, log
from fakesys.subsystems.control import script as scripts
from fakesys.subsystems.control.recording import Recording
from fakesys.subsystems.control.script import (
    ScriptError,
    Step,
    line_of,
    meant,
    steps,
    words_of,
    written,
)
from fakesys.tree.node import File
from tests.whole_machine import AP, CONTROL, CTL, TRACING, WRITES, attempt, differences

KERNELS = tuple(PROFILES)
SEEDS = int(os.environ.get("FAKESYS_HISTORIES", "3"))


class Reader:
    """An open file on `writes`."""

    def __init__(self, machine: Machine) -> None:
        node = machine.fs.resolve(f"{CONTROL}/writes")
        assert isinstance(node, File)
        self._fs, self._node = machine.fs, node
        self.handle = machine.fs.open(node, os.O_RDONLY)
        self.script = ""

    def read(self, size: int = 1 << 16) -> str:
        """All of the script so far."""
        try:
            while piece := self._fs.read(self._node, self.handle, 0, size, nonblock=True):
                self.script += piece.decode("utf-8", "surrogateescape")
        except KernelError as refusal:
            assert refusal.name == "EAGAIN"
        return self.script

    def body(self) -> list[str]:
        """The lines after the helpers."""
        return self.read().partition("\n\n")[2].splitlines()


@contextmanager
def recorded(machine: Machine) -> Iterator[Reader]:
    reader = Reader(machine)
    try:
        yield reader
        reader.read()
    finally:
        reader.handle.release()
    assert machine.fs.recorder is None


def replayed(script: str) -> tuple[Machine, list[Difference]]:
    """A machine on which all was done again, and what was not as before."""
    machine = machine_of(script)
    return machine, list(run_steps(list(steps(script)), InMemory(machine)))


class ShortWrites(InMemory):
    """A machine of which one byte of each write is not taken."""

    def write(self, path: str, text: bytes, *, truncate: bool) -> int:
        return super().write(path, text, truncate=truncate) - 1


def test_a_short_write_is_a_difference() -> None:
    step = Step(1, "put", "ok", "sys/bus/ap/apmask", b"-4\n")
    assert list(run_steps([step], InMemory(Machine()))) == []
    assert list(run_steps([step], ShortWrites(Machine()))) == [Difference(step, "2 bytes")]


def unlike(machine: Machine, copy: Machine) -> list[str]:
    """The files that read differently; a replay ends with a write of its own that is taken."""
    found = [path for path, _, _ in differences(machine, copy)]
    return [path for path in found if not path.endswith("/last_error")]


# Not what begins anew: then the journals have more than a fresh machine's.
HISTORY = [write for write in WRITES if not write[0].endswith(("selftest0/rw", "reset"))]


@pytest.mark.parametrize("profile", KERNELS)
def test_a_history_and_its_replay(profile: str) -> None:
    machine = Machine(profile, "default", seed=3)
    machine.clock.advance(2.123456789)
    with recorded(machine) as reader:
        taken = [attempt(machine, *write) for write in HISTORY]
    assert taken.count("ok") > 80
    assert {"EINVAL", "EEXIST"} & set(taken)
    copy, wrong = replayed(reader.script)
    assert wrong == []
    assert unlike(machine, copy) == []
    assert machine.kernel.random.random() == copy.kernel.random.random()


@settings(max_examples=SEEDS, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(seed=st.integers(0, 1 << 30), profile=st.sampled_from(KERNELS))
def test_random_histories(seed: int, profile: str) -> None:
    chance = random.Random(seed)
    machine = Machine(profile, "default")
    with recorded(machine) as reader:
        for _ in range(80):
            machine.clock.advance(chance.random())
            attempt(machine, *chance.choice(HISTORY))
        # The time is recorded with the next write.
        machine.write(f"{CONTROL}/seed", "5\n")
    copy, wrong = replayed(reader.script)
    assert wrong == []
    assert unlike(machine, copy) == []


def test_the_script_of_a_small_session() -> None:
    machine = Machine("6.1", "default", seed=4)
    machine.clock.advance(1.5)
    with recorded(machine) as reader:
        machine.write(CTL, "vm create a pid=700 fd=11\n")
        machine.clock.advance(0.25)
        attempt(machine, CTL, "nonsense\n")
        machine.write(f"{CONTROL}/clock/advance", "2\n")
        attempt(machine, f"{TRACING}/instances/mkdir", "a b")
        attempt(machine, f"{TRACING}/instances/mkdir", "a b")
        attempt(machine, f"{TRACING}/instances/rmdir", "a b")
        attempt(machine, f"{TRACING}/instances/rmdir", "none")
        machine.write(f"{TRACING}/set_event", "kvm:kvm_pio\n")
        machine.write(f"{TRACING}/set_event", "kvm:kvm_exit", truncate=False)
        machine.write(f"{TRACING}/set_event_pid", "700\n701\n")
        machine.write(f"{TRACING}/trace_marker", "-50% it's\n")
        machine.write(f"{CONTROL}/clock/rate", "2\n")
        machine.write(f"{CONTROL}/reset", "1\n")
    assert "fakesys mount --scenario default --profile 6.1 --seed 4 ./mountpoint" in reader.script
    assert reader.body() == [
        "start 1.500000000",
        f"put ok {CTL} 'vm create a pid=700 fd=11\\n'",
        "advance 0.250000000",
        f"put EINVAL {CTL} 'nonsense\\n'",
        f"put ok {CONTROL}/clock/advance '2\\n'",
        f"mkdir ok '{TRACING}/instances/a b'",
        f"mkdir EEXIST '{TRACING}/instances/a b'",
        f"rmdir ok '{TRACING}/instances/a b'",
        f"rmdir ENOENT {TRACING}/instances/none",
        f"put ok {TRACING}/set_event 'kvm:kvm_pio\\n'",
        f"add ok {TRACING}/set_event 'kvm:kvm_exit'",
        f"clear {TRACING}/set_event_pid",
        f"block ok {TRACING}/set_event_pid '700\\n701\\n'",
        f"put ok {TRACING}/trace_marker '\\05550%% it\\047s\\n'",
        f"put ok {CONTROL}/clock/rate '2\\n'",
        "hold",
        f"put ok {CONTROL}/reset '1\\n'",
        "hold",
    ]


def test_a_file_that_is_only_cleared() -> None:
    machine = Machine("6.1", "default")
    trace = machine.fs.resolve(f"{TRACING}/trace")
    with recorded(machine) as reader:
        machine.fs.open(trace, os.O_WRONLY | os.O_TRUNC).release()
        machine.write(f"{AP}/apmask", "+5\n")
        machine.fs.open(trace, os.O_WRONLY | os.O_TRUNC).release()
        machine.mkdir(f"{TRACING}/instances/foo")
        machine.fs.open(trace, os.O_WRONLY | os.O_TRUNC).release()
        assert reader.handle.poll()
    assert [line.split()[0] for line in reader.body()] == [
        "start", "clear", "put", "clear", "mkdir", "clear",
    ]  # fmt: skip
    assert replayed(reader.script)[1] == []


def test_what_was_taken_in_part_is_recorded_as_such() -> None:
    machine = Machine("6.1", "default")
    with recorded(machine) as reader:
        taken = machine.write(f"{TRACING}/trace_marker", "x" * 5000)
    (step,) = (step for step in steps(reader.script) if step.word == "block")
    assert step.text == b"x" * taken
    assert 1000 < taken < 5000
    assert replayed(reader.script)[1] == []


def test_a_vm_is_recorded_with_its_owner() -> None:
    machine = Machine("6.1", "default")
    ends: dict[int, Callable[[], None]] = {}

    def watch(pid: int, ended: Callable[[], None]) -> Callable[[], None]:
        ends[pid] = ended
        return lambda: None

    machine.watch_owners(watch)
    machine.kernel.caller = machine.kernel.caller._replace(pid=4242)
    with recorded(machine) as reader:
        for command in ("vm create a\n", "vm create b fd=44\n", "vm create a\n"):
            attempt(machine, CTL, command)
        machine.clock.advance(1)
        ends[4242]()
    assert reader.body() == [
        "start 0.000000000",
        f"put ok {CTL} 'vm create a pid=4242 fd=10\\n'",
        f"put ok {CTL} 'vm create b fd=44 pid=4242\\n'",
        f"put EEXIST {CTL} 'vm create a\\n'",
        "advance 1.000000000",
        f"put ok {CTL} 'vm destroy b\\n'",
    ]
    copy, wrong = replayed(reader.script)
    assert wrong == []
    assert "4242-10" in copy.listdir("sys/kernel/debug/kvm")


def test_a_vm_of_a_preset_is_recorded_with_its_owner() -> None:
    machine = Machine("6.1", "default")
    machine.kernel.caller = machine.kernel.caller._replace(pid=4242)
    preset = f"{CONTROL}/kvm/preset"
    with recorded(machine) as reader:
        machine.write(preset, "linux-boot vcpus=2\n")
        machine.write(preset, "linux-boot vcpus=2 name=x pid=77\n")
        attempt(machine, preset, "linux-boot vcpus=2 name=y pid=77 fd=10\n")
    steps = [line for line in reader.body() if line.startswith("put")]
    assert steps == [
        f"put ok {preset} 'linux-boot vcpus=2 pid=4242 fd=10\\n'",
        f"put ok {preset} 'linux-boot vcpus=2 name=x pid=77\\n'",
        f"put EEXIST {preset} 'linux-boot vcpus=2 name=y pid=77 fd=10\\n'",
    ]
    copy, wrong = replayed(reader.script)
    assert wrong == []
    assert {"4242-10", "77-10"} <= set(copy.listdir("sys/kernel/debug/kvm"))


def test_what_is_due_comes_after_a_write_that_came_before_it_ran() -> None:
    machine = Machine("6.1", "default")
    now = 0
    machine.clock.follow(lambda: now)
    happened: list[str] = []
    machine.clock.after(1, lambda: happened.append("timer"))
    with recorded(machine) as reader:
        # The real time has passed the timer, which nobody has run yet.
        now = 2_000_000_000
        machine.write(f"{AP}/apmask", "+5\n")
    assert happened == []
    assert reader.body()[1] == "advance 0.999999999"


def test_what_the_machine_writes_itself_is_not_recorded() -> None:
    machine = Machine(None, "vfio-ap-three-guests")
    Timeline(machine, log).schedule()
    with recorded(machine) as reader:
        machine.clock.advance(5)
        machine.write(f"{AP}/apmask", "+5\n")
    assert len(reader.body()) == 3
    # The replay has the scenario's steps as well.
    copy, wrong = replayed(reader.script)
    assert wrong == []
    assert copy.read(f"{CONTROL}/state") == machine.read(f"{CONTROL}/state")


def test_a_loaded_snapshot_is_a_remark() -> None:
    machine = Machine("6.1", "default")
    data = machine.save().decode()
    with recorded(machine) as reader:
        machine.write(f"{CONTROL}/snapshot", data)
        attempt(machine, f"{CONTROL}/snapshot", "garbage")
        machine.write(f"{AP}/apmask", "+5\n")
    assert reader.body()[1:] == [
        "# a snapshot was loaded here, which is not recorded",
        f"put ok {AP}/apmask '+5\\n'",
    ]


def test_a_machine_of_no_shipped_scenario_is_made_again() -> None:
    scenario = parse(b'[ap]\npreset = "empty"\n[[kvm.vm]]\nname = "own"\nvcpus = 2\n', "own")
    machine = Machine("6.1", scenario, seed=9)
    with recorded(machine) as reader:
        machine.write(CTL, "own vcpu add\n")
    copy, wrong = replayed(reader.script)
    assert wrong == []
    assert unlike(machine, copy) == []


def test_two_readers_each_have_their_own_beginning() -> None:
    machine = Machine("6.1", "default")
    with recorded(machine) as first:
        machine.write(f"{AP}/apmask", "+5\n")
        second = Reader(machine)
        machine.write(f"{AP}/apmask", "-5\n")
        assert first.body()[1:] == [
            f"put ok {AP}/apmask '+5\\n'",
            f"put ok {AP}/apmask '\\0555\\n'",
        ]
        assert second.body()[1:] == [f"put ok {AP}/apmask '\\0555\\n'"]
        second.handle.release()
        assert machine.fs.recorder is not None


def test_a_slow_reader_is_told_what_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine("6.1", "default")
    with recorded(machine) as reader:
        monkeypatch.setattr("fakesys.subsystems.control.recording.MOST_KEPT", 10)
        for _ in range(3):
            machine.write(f"{AP}/apmask", "+5\n")
        reader.read(7)
        machine.write(f"{AP}/apmask", "+5\n")
    assert reader.body()[-2] == "# LOST: 3 lines, the reader was too slow"


def test_it_is_only_read_and_nobody_pays_for_it_unread() -> None:
    machine = Machine("6.1", "default")
    assert attempt(machine, f"{CONTROL}/writes", "x") == "EACCES"
    assert machine.fs.recorder is None
    reader = Reader(machine)
    assert isinstance(reader.handle, Recording)
    with pytest.raises(KernelError, match="only read"):
        reader.handle.write(b"x", 0, nonblock=True)
    assert reader.handle.poll()
    reader.read()
    assert not reader.handle.poll()
    woken: list[int] = []
    reader.handle.waiters().add("x", lambda: woken.append(1))
    machine.write(f"{AP}/apmask", "+5\n")
    assert woken == [1]
    reader.handle.release()


def test_a_name_with_a_newline() -> None:
    machine = Machine("6.1", "default")
    with recorded(machine) as reader:
        attempt(machine, f"{TRACING}/instances/mkdir", "a\nb")
        attempt(machine, f"{TRACING}/instances/mkdir", "a'\udcff")
    assert reader.body()[1] == "# a path with a newline, which is not recorded"
    assert replayed(reader.script)[0].listdir(f"{TRACING}/instances") == ["a'\udcff"]


@given(st.binary(max_size=200))
def test_texts_come_back(text: bytes) -> None:
    assert meant(written(text)) == text
    step = Step(1, "put", "ok", "a b'c", text)
    found = list(steps(f"#!/bin/sh\n\n{line_of(step)}"))
    assert [found[0]._replace(number=1)] == [step]


@given(st.text(st.sampled_from(" \t\r'\"\\\\#ab\x0b\xa0\u20ac"), max_size=20))
def test_lines_are_divided_as_by_a_shell(line: str) -> None:
    try:
        wanted = shlex.split(line, comments=True)
    except ValueError:
        with pytest.raises(ValueError, match="No "):
            words_of(line)
    else:
        assert words_of(line) == wanted


def test_a_text_is_written_as_a_shell_writes_it() -> None:
    assert meant("5 \u20ac\\n\\377\udcfe") == b"5 \xe2\x82\xac\n\xff\xfe"


def test_a_scenario_of_any_name_is_no_command() -> None:
    scenario = parse(b"name = \"x y\\ntouch /tmp/z; '\"\n[ap]\npreset = 'empty'\n", "own")
    machine = Machine("6.1", scenario)
    with recorded(machine) as reader:
        machine.write(CTL, "vm create a\n")
    head = reader.script.partition("M=${1")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert replayed(reader.script)[1] == []


def test_a_machine_that_is_too_deep_or_no_text() -> None:
    for text in ("[" * 100_000, '{"scenario":{"at":' + "[" * 100_000, "\udcff", '"\udcff"'):
        with pytest.raises(ScriptError, match="describes no machine") as error:
            machine_of(f"#: {text}\n")
        assert len(str(error.value)) < 400


@pytest.mark.parametrize("word", scripts.STEPS)
def test_every_step_is_read_as_it_is_written(word: str) -> None:
    full = Step(3, word, "ok", "x/y", b"text", "1.25")
    kept = {"start": 1, "advance": 1, "hold": 0, "clear": 2, "mkdir": 3, "rmdir": 3}.get(word, 4)
    wanted = full._replace(
        result="ok" if kept > 2 else "",
        path="x/y" if kept > 1 else "",
        text=b"text" if kept > 3 else b"",
        seconds="1.25" if kept == 1 else "",
    )
    assert list(steps(f"#!/bin/sh\n\n{line_of(full)}")) == [wanted]


@pytest.mark.parametrize(
    "line",
    ["echo x", "put ok", "put ok a 'b' c", "put ok '' x", "clear /tmp/x", "put ok ../x y",
     "add ok a/../../x y", "block ok .. x", "mkdir ok /", "rmdir ok a/..", "put ok 'a\0b' x",
     "advance", "advance -1", "advance 1e5", "start x",
     "hold 1", "clear", "mkdir ok", "put ok a 'b", "rm -rf /"],
)  # fmt: skip
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(ScriptError, match="line 4"):
        list(steps(f"#!/bin/sh\n\nhold\n{line}\n"))


def test_scripts_that_are_no_recordings() -> None:
    for text in ("", "hello\n", "#!/bin/sh\n", "hold\n\nhold\n"):
        with pytest.raises(ScriptError, match="no recording"):
            list(steps(text))
    for text, why in (
        ("#!/bin/sh\n\nhold\n", "does not say"),
        ("#: x\n", "describes no machine"),
        ('#: {"scenario":{},"profile":"9","seed":1}\n', "'9' is no profile"),
        ('#: {"scenario":{"ap":{"preset":"x"}},"profile":"6.1","seed":1}\n', "'x' is none of"),
        ('#: {"scenario":{"at":5},"profile":"6.1","seed":1}\n', "describes no machine"),
    ):
        with pytest.raises(ValueError, match=why):
            machine_of(text)


def test_what_differs_is_found() -> None:
    machine = Machine("6.1", "default")
    with recorded(machine) as reader:
        machine.write(CTL, "vm create a pid=700\n")
        attempt(machine, CTL, "vm create a pid=700\n")
        machine.mkdir(f"{TRACING}/instances/foo")
        machine.write(f"{TRACING}/trace_marker", "x\n")
        machine.write(f"{CONTROL}/lockdown", "1\n")
    changed = (
        reader.script.replace("put EEXIST", "put ok")
        .replace("mkdir ok", "rmdir ok")
        .replace("trace_marker", "no_such_file")
        .replace("/lockdown '1\\n'", "/snapshot '{'")
    )
    _, wrong = replayed(changed)
    assert [(step.word, result) for step, result in wrong] == [
        ("put", "EEXIST"),
        ("rmdir", "ENOENT"),
        ("put", "ENOENT"),
    ]
    lines = changed.splitlines()
    for step, _ in wrong:
        assert lines[step.number - 1].startswith(step.word)
