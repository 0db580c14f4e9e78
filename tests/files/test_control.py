"""The control files of the machine as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial

import pytest

from fakesys import __version__
from fakesys.core.errors import Blocked, KernelError
from fakesys.core.kernel import Caller
from fakesys.machine.machine import Machine
from fakesys.subsystems.control.faults import parse_seconds
from fakesys.tree.node import File

F = "sys/kernel/debug/fakesys"
RW = "sys/devices/virtual/selftest/selftest0/rw"


@pytest.fixture
def machine() -> Machine:
    return Machine(scenario="selftest")


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(KernelError) as error:
        call()
    return error.value.name


def test_version(machine: Machine) -> None:
    assert machine.read(f"{F}/version") == f"{__version__}\n"


def test_last_error_explains_a_refused_write_and_a_good_one_clears_it(machine: Machine) -> None:
    assert machine.read(f"{F}/last_error") == ""
    machine.clock.advance(2.5)
    assert refusal(lambda: machine.write(RW, "abc\n")) == "EINVAL"
    line = machine.read(f"{F}/last_error")
    assert line == f"2.500000 {RW} EINVAL 'abc\\n' is not a number\n"
    machine.write(RW, "1400\n")
    assert machine.read(f"{F}/last_error") == ""


def test_profile_shows_and_sets(machine: Machine) -> None:
    assert machine.read(f"{F}/profile") == "[seed] 6.1 6.12 6.18\n"
    machine.write(f"{F}/profile", "6.1\n")
    assert machine.read(f"{F}/profile") == "seed [6.1] 6.12 6.18\n"
    assert machine.profile_name == "6.1"


@pytest.mark.parametrize("text", ["5.3\n", "\n", "6.1 seed\n", ""])
def test_profile_refuses(machine: Machine, text: str) -> None:
    if text:
        assert refusal(lambda: machine.write(f"{F}/profile", text)) == "EINVAL"
    assert machine.profile_name == "seed"


def test_clock_is_moved_by_hand(machine: Machine) -> None:
    assert machine.read(f"{F}/clock/now") == "0.000000\n"
    machine.write(f"{F}/clock/advance", "1.25\n")
    assert machine.read(f"{F}/clock/now") == "1.250000\n"
    machine.write(f"{F}/clock/rate", "0\n")
    assert machine.read(f"{F}/clock/rate") == "0\n"


@pytest.mark.parametrize("name", ["rate", "advance"])
@pytest.mark.parametrize("text", ["x", "-1", "1.2.3", "1e3", "", " 1", "9" * 20, "inf"])
def test_clock_refuses(machine: Machine, name: str, text: str) -> None:
    assert refusal(lambda: machine.write(f"{F}/clock/{name}", f"{text}\n")) == "EINVAL"
    assert machine.clock.now == 0


def test_seconds_have_a_fraction_at_most() -> None:
    assert [parse_seconds(text) for text in ("2", "2.5\n", ".5", "2.")] == [2.0, 2.5, 0.5, 2.0]


def test_seed_starts_the_generator_anew(machine: Machine) -> None:
    machine.write(f"{F}/seed", "7\n")
    assert machine.read(f"{F}/seed") == "7\n"
    first = machine.kernel.random.random()
    machine.write(f"{F}/seed", "7\n")
    assert machine.kernel.random.random() == first
    assert refusal(lambda: machine.write(f"{F}/seed", "x")) == "EINVAL"
    assert refusal(lambda: machine.write(f"{F}/seed", str(2**64))) == "ERANGE"


def test_lockdown_shuts_debugfs_but_not_this_directory(machine: Machine) -> None:
    machine.write(f"{F}/lockdown", "1\n")
    assert machine.read(f"{F}/lockdown") == "1\n"
    assert refusal(lambda: machine.read("sys/kernel/debug/selftest/rw")) == "EPERM"
    assert machine.read("sys/kernel/debug/selftest/seq") == "first line\nsecond line\n"
    assert machine.read(RW) == "1500\n"
    machine.write(f"{F}/lockdown", "0\n")
    assert machine.read("sys/kernel/debug/selftest/rw") == "65536\n"
    assert refusal(lambda: machine.write(f"{F}/lockdown", "2\n")) == "EINVAL"


def test_a_reset_brings_back_what_the_machine_was_made_with() -> None:
    machine = Machine(scenario="selftest", seed=9, clock_rate=0.5, lockdown=True)
    for name, text in (("lockdown", "0"), ("clock/rate", "7"), ("seed", "3")):
        machine.write(f"{F}/{name}", text)
    machine.write(f"{F}/reset", "1")
    assert machine.read(f"{F}/lockdown") == "1\n"
    assert machine.read(f"{F}/clock/rate") == "0.5\n"
    assert machine.read(f"{F}/seed") == "9\n"
    assert refusal(lambda: machine.read("sys/kernel/debug/selftest/rw")) == "EPERM"


def test_state_is_sorted_json(machine: Machine) -> None:
    text = machine.read(f"{F}/state")
    state = json.loads(text)
    assert state["profile"] == "seed"
    assert text == json.dumps(state, indent=1, sort_keys=True) + "\n"


def test_reset_makes_everything_as_it_was(machine: Machine) -> None:
    before = machine.read(f"{F}/state")
    machine.write(RW, "1400\n")
    machine.write(f"{F}/seed", "9\n")
    machine.clock.advance(50)
    machine.write(f"{F}/reset", "1\n")
    assert machine.read(RW) == "1500\n"
    assert machine.read(f"{F}/seed") == "1\n"
    assert machine.read(f"{F}/state") == before
    assert machine.clock.now == 0
    assert refusal(lambda: machine.write(f"{F}/reset", "2\n")) == "EINVAL"


def test_reset_keeps_the_profile_of_mount_time() -> None:
    machine = Machine("6.1", "selftest")
    machine.write(f"{F}/profile", "seed\n")
    machine.write(f"{F}/reset", "1\n")
    assert machine.profile_name == "6.1"


def test_an_internal_error_is_eio_and_counted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.read(f"{F}/bugs") == "0\n"

    def broken(_number: int) -> None:
        raise ZeroDivisionError("a bug")

    assert machine.subsystems.selftest is not None
    assert machine.subsystems.selftest.device is not None
    monkeypatch.setattr(machine.subsystems.selftest.device, "set_number", broken)
    assert refusal(lambda: machine.write(RW, "1\n")) == "EIO"
    count, *trace = machine.read(f"{F}/bugs").splitlines()
    assert count == "1"
    assert trace[-1] == "ZeroDivisionError: a bug"


def test_a_store_fault_strikes_some_writes(machine: Machine) -> None:
    machine.write(f"{F}/faults/store", "sys/devices/*/rw EBUSY after=1 times=2\n")
    assert machine.read(f"{F}/faults/store") == "sys/devices/*/rw EBUSY after=1 times=2\n"
    results = []
    for _ in range(5):
        try:
            machine.write(RW, "1400\n")
            results.append("ok")
        except KernelError as error:
            results.append(error.name)
    assert results == ["ok", "EBUSY", "EBUSY", "ok", "ok"]


def test_a_show_fault_strikes_reads_only(machine: Machine) -> None:
    machine.write(f"{F}/faults/show", "/*/rw EIO\n*/ro ENODEV times=1\n")
    assert refusal(lambda: machine.read(RW)) == "EIO"
    assert machine.write(RW, "1400\n") == 5
    assert refusal(lambda: machine.read(RW.replace("rw", "ro"))) == "ENODEV"
    assert machine.read(RW.replace("rw", "ro")) == "6\n"
    machine.write(f"{F}/faults/show", "\n")
    assert machine.read(RW) == "1400\n"
    assert machine.fs.gate is None


def test_faults_never_strike_what_clears_them(machine: Machine) -> None:
    machine.write(f"{F}/faults/show", "* EIO\n")
    machine.write(f"{F}/faults/store", "* EIO\n")
    assert machine.read(f"{F}/faults/store") == "* EIO\n"
    assert refusal(lambda: machine.write(RW, "1\n")) == "EIO"
    machine.write(f"{F}/faults/store", "\n")
    machine.write(f"{F}/faults/show", "\n")
    assert machine.write(RW, "1\n") == 2


def test_a_delay_lasts_its_simulated_time_for_matching_files_alone(machine: Machine) -> None:
    machine.write(f"{F}/faults/delay", "*/rw 2.5\n")
    assert machine.read(f"{F}/faults/delay") == "*/rw 2.5\n"
    machine.kernel.caller = Caller(pid=7, uid=0, gid=0)
    assert refusal(lambda: machine.write(RW, "1\n")) == "EAGAIN"
    assert machine.read(RW.replace("rw", "ro")) == "6\n"
    machine.clock.advance(2)
    assert refusal(lambda: machine.write(RW, "1\n")) == "EAGAIN"
    machine.clock.advance(2.5)
    assert machine.write(RW, "1\n") == 2


@pytest.mark.parametrize("name", ["store", "show"])
@pytest.mark.parametrize(
    ("line", "errno"),
    [
        ("*", "EINVAL"),
        ("* EFOO", "EINVAL"),
        ("* 5", "EINVAL"),
        ("* EIO now", "EINVAL"),
        ("* EIO after=x", "EINVAL"),
        (f"* EIO times={2**64}", "ERANGE"),
    ],
)
def test_fault_lines_are_checked_and_the_old_ones_stay(
    machine: Machine, name: str, line: str, errno: str
) -> None:
    machine.write(f"{F}/faults/{name}", "nothing EIO\n")
    assert refusal(lambda: machine.write(f"{F}/faults/{name}", f"a EIO\n{line}\n")) == errno
    assert machine.read(f"{F}/faults/{name}") == "nothing EIO\n"


@pytest.mark.parametrize("line", ["*", "* x", "* 1 2", "* -1"])
def test_delay_lines_are_checked(machine: Machine, line: str) -> None:
    assert refusal(lambda: machine.write(f"{F}/faults/delay", f"{line}\n")) == "EINVAL"


def test_power_files_of_a_device(machine: Machine) -> None:
    power = RW.replace("rw", "power")
    assert machine.read(f"{power}/control") == "auto\n"
    machine.write(f"{power}/control", "on\n")
    assert refusal(lambda: machine.write(f"{power}/control", "off\n")) == "EINVAL"
    assert machine.read(f"{power}/runtime_status") == "unsupported\n"
    for name in ("runtime_active_time", "runtime_suspended_time"):
        assert machine.read(f"{power}/{name}") == "0\n"
    delay = f"{power}/autosuspend_delay_ms"
    assert refusal(lambda: machine.read(delay)) == "EIO"
    for text in ("5\n", "x\n"):
        assert refusal(partial(machine.write, delay, text)) == "EIO"


def test_uevent_files_send_again(machine: Machine) -> None:
    before = machine.control.uevents.last
    machine.write(RW.replace("rw", "uevent"), "change\n")
    [(_, event)] = machine.control.uevents.since(before)
    assert (event.action, event.devpath, dict(event.env)) == (
        "change",
        "/devices/virtual/selftest/selftest0",
        {"SYNTH_UUID": "0"},
    )
    assert machine.read(RW.replace("rw", "uevent")) == ""
    assert refusal(lambda: machine.write(RW.replace("rw", "uevent"), "x\n")) == "EINVAL"
    machine.write("sys/bus/selftest/uevent", "add\n")
    assert refusal(lambda: machine.write("sys/bus/selftest/uevent", "x\n")) == "EINVAL"


def test_the_selftest_device_comes_and_goes(machine: Machine) -> None:
    command = f"{F}/selftest"
    assert refusal(lambda: machine.write(f"{command}/create", "1\n")) == "EEXIST"
    machine.write(f"{command}/remove", "1\n")
    assert machine.listdir("sys/bus/selftest/devices") == []
    for name in ("remove", "notify"):
        assert refusal(partial(machine.write, f"{command}/{name}", "1\n")) == "ENODEV"
    machine.write(f"{command}/create", "1\n")
    assert machine.listdir("sys/bus/selftest/devices") == ["selftest0"]
    for name in ("create", "remove", "notify"):
        assert refusal(partial(machine.write, f"{command}/{name}", "2\n")) == "EINVAL"
    actions = [event.action for _, event in machine.control.uevents.since(0)]
    assert actions[-2:] == ["remove", "add"]


@pytest.mark.parametrize("name", ["work", "spin"])
def test_the_selftest_steps_are_a_number(machine: Machine, name: str) -> None:
    machine.write(f"{F}/selftest/{name}", "3\n")
    assert refusal(lambda: machine.write(f"{F}/selftest/{name}", "x\n")) == "EINVAL"
    assert refusal(lambda: machine.write(f"{F}/selftest/{name}", str(2**64))) == "ERANGE"


def test_the_selftest_files(machine: Machine) -> None:
    device, debug = RW.removesuffix("/rw"), "sys/kernel/debug/selftest"
    assert refusal(lambda: machine.write(RW, "-1\n")) == "EINVAL"
    assert refusal(lambda: machine.write(RW, f"{2**31}\n")) == "ERANGE"
    machine.write(f"{device}/wo", "5\n")
    assert refusal(lambda: machine.write(f"{device}/wo", "x\n")) == "EINVAL"
    assert refusal(lambda: machine.write(f"{device}/wo", f"{2**64}\n")) == "ERANGE"
    assert machine.read(f"{device}/notify") == "tty1\n"
    machine.write(f"{F}/selftest/notify", "1\n")
    assert machine.read(f"{device}/notify") == "tty2\n"
    machine.write(f"{debug}/rw", "32768\n")
    assert machine.read(f"{debug}/rw") == "32768\n"
    assert refusal(lambda: machine.write(f"{debug}/wo", "x\n")) == "EINVAL"
    assert refusal(lambda: machine.write(f"{debug}/wo", f"{2**64}\n")) == "ERANGE"


def test_a_machine_refuses_what_is_not_a_file(machine: Machine) -> None:
    assert refusal(lambda: machine.read("sys/bus")) == "EISDIR"
    assert refusal(lambda: machine.listdir(RW)) == "ENOTDIR"
    assert refusal(lambda: machine.read("sys/nothing")) == "ENOENT"


def test_uevents_tells_what_happened(machine: Machine) -> None:
    before = machine.read(f"{F}/uevents")
    machine.write(f"{F}/selftest/remove", "1")
    text = machine.read(f"{F}/uevents")
    assert text.startswith(before)
    event = dict(line.split("=") for line in text.removeprefix(before).strip().split("\n"))
    assert event["ACTION"] == "remove"
    assert event["DEVPATH"] == "/devices/virtual/selftest/selftest0"
    assert int(event["SEQNUM"]) == before.count("SEQNUM=") + 1


def test_log_shows_the_lines_of_the_kernel(machine: Machine) -> None:
    machine.kernel.log("first")
    machine.kernel.log("second")
    assert machine.read(f"{F}/log").endswith("first\nsecond\n")


def opened_journal(machine: Machine, name: str) -> Callable[[int, int], bytes]:
    """A read of an open journal, by offset and size, as of a descriptor that would wait."""
    node = machine.fs.resolve(f"{F}/{name}")
    assert isinstance(node, File)
    handle = machine.fs.open(node, os.O_RDONLY)
    return lambda offset, size: machine.fs.read(node, handle, offset, size)


@pytest.mark.parametrize("folder", ["", "ap/"])
def test_a_journal_ends_with_what_is_there(machine: Machine, folder: str) -> None:
    machine.kernel.log("ap: first")
    read = opened_journal(machine, f"{folder}log")
    text = b""
    while piece := read(len(text), 16):
        assert len(piece) <= 16
        text += piece
    assert text.endswith(b"ap: first\n")
    # A reader that comes back to the end gets what was logged meanwhile, and nothing twice.
    machine.kernel.log("ap: second")
    assert read(len(text), 100) == b"ap: second\n"
    assert read(len(text) + 11, 100) == b""
    # Other offsets count in the records of now.
    assert read(3, 10) == (text + b"ap: second\n")[3:13]
    assert read(0, 1 << 16) == text + b"ap: second\n"
    assert read(1 << 30, 10) == b""


def test_a_journal_that_grows_between_two_reads_has_no_gap(machine: Machine) -> None:
    read = opened_journal(machine, "uevents")
    start = read(0, 16)
    machine.write(f"{F}/selftest/remove", "1")
    rest = read(16, 1 << 16)
    assert (start + rest).decode() == machine.read(f"{F}/uevents")


@pytest.mark.parametrize("name", ["uevents_pipe", "log_pipe", "ap/uevents_pipe", "ap/log_pipe"])
def test_a_journal_pipe_waits_for_more(machine: Machine, name: str) -> None:
    machine.kernel.log("ap: line")
    machine.write("sys/devices/ap/uevent", "change")
    read = opened_journal(machine, name)
    assert read(0, 1 << 16).decode() == machine.read(f"{F}/{name.removesuffix('_pipe')}")
    with pytest.raises(Blocked):
        read(0, 1 << 16)
    machine.kernel.log("ap: more")
    machine.write("sys/devices/ap/uevent", "change")
    assert read(0, 1 << 16).startswith((b"ap: more", b"ACTION=change"))


@pytest.mark.parametrize("name", ["uevents", "log", "uevents_pipe", "log_pipe"])
def test_journals_refuse_writes(machine: Machine, name: str) -> None:
    assert refusal(lambda: machine.write(f"{F}/{name}", "x")) == "EACCES"


def test_a_debugfs_number_is_one_of_64_bits(machine: Machine) -> None:
    path = "sys/kernel/debug/selftest/rw"
    assert refusal(lambda: machine.write(path, "abc\n")) == "EINVAL"
    assert refusal(lambda: machine.write(path, "0x10000000000000000\n")) == "ERANGE"
    assert machine.read(path) == "65536\n"
    machine.write(path, "0xffffffffffffffff\n")
    assert machine.read(path) == f"{2**64 - 1}\n"
