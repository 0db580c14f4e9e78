"""tracefs beyond the recorded cases: snapshots, names of tasks, clocks, forks, options, CPUs."""

from __future__ import annotations

import os
import re
import select
import struct
from errno import EAGAIN, EBADF, EBUSY, EEXIST, EINVAL, ENODEV, ENOENT
from typing import Any

import pytest

from fakesys.core.errors import Blocked, KernelError
from fakesys.core.events import Task
from fakesys.core.kernel import Caller
from fakesys.machine.machine import Machine
from fakesys.subsystems.kvm.events.guest import KvmPio
from fakesys.tree.attr import Handle
from fakesys.tree.node import File

TRACING = "sys/kernel/tracing"
LINE = re.compile(r"^ *(.+)-(\d+) +(\(.{7}\) )?\[(\d{3})\] (.{5}) +([\d.]+): (.*)$")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    return Machine("6.1")


class Opened:
    """One open file."""

    def __init__(self, machine: Machine, path: str, flags: int = os.O_RDONLY) -> None:
        node = machine.fs.resolve(f"{TRACING}/{path}")
        assert isinstance(node, File)
        self.node, self.machine = node, machine
        self.handle: Handle = machine.fs.open(node, flags)

    def read(self, size: int = 4096, offset: int = 0) -> bytes:
        return self.machine.fs.read(self.node, self.handle, offset, size, nonblock=True)

    def wait(self, size: int = 4096) -> bytes:
        return self.machine.fs.read(self.node, self.handle, 0, size, nonblock=False)

    def write(self, text: str) -> int:
        return self.machine.fs.write(self.node, self.handle, text.encode(), nonblock=True)

    def close(self) -> None:
        self.handle.release()


def append(machine: Machine, path: str, text: str) -> None:
    opened = Opened(machine, path, os.O_WRONLY)
    try:
        opened.write(text)
    finally:
        opened.close()


def mark(machine: Machine, text: str, where: str = "") -> None:
    machine.write(f"{TRACING}/{where}trace_marker", text)


def pio(
    machine: Machine,
    *,
    cpu: int = 0,
    pid: int = 100,
    comm: str = "qemu",
    val: int = 0,
    tgid: int = 0,
) -> None:
    machine.kernel.bus.task = Task(pid, comm, cpu, tgid)
    if KvmPio in machine.kernel.bus.wanted:
        machine.kernel.bus.emit(KvmPio(rw=1, port=0x80, size=1, count=1, val=val))


def read(machine: Machine, path: str = "trace") -> str:
    return machine.read(f"{TRACING}/{path}")


def bodies(machine: Machine, path: str = "trace") -> list[str]:
    return [line.split(": ", 1)[1] for line in lines(machine, path)]


def lines(machine: Machine, path: str = "trace") -> list[str]:
    return [line for line in read(machine, path).splitlines() if not line.startswith("#")]


def refuses(machine: Machine, errno: int, path: str, text: str) -> None:
    with pytest.raises(KernelError) as refusal:
        append(machine, path, text)
    assert refusal.value.errno == errno, f"{text!r} to {path}"


def make_instance(machine: Machine, name: str) -> str:
    machine.fs.mkdir(machine.fs.resolve(f"{TRACING}/instances"), name)
    return f"instances/{name}/"


# Snapshots.


def test_a_snapshot_is_taken_cleared_and_freed(machine: Machine) -> None:
    assert "# * Snapshot is freed *\n" in read(machine, "snapshot")
    mark(machine, "one")
    append(machine, "snapshot", "1")
    assert (bodies(machine), bodies(machine, "snapshot")) == ([], ["tracing_mark_write: one"])
    mark(machine, "two")
    append(machine, "snapshot", "1")
    # The buffers change places, with what is in them.
    assert bodies(machine, "snapshot") == ["tracing_mark_write: two"]
    assert bodies(machine) == ["tracing_mark_write: one"]
    append(machine, "snapshot", "2")
    text = read(machine, "snapshot")
    assert "# * Snapshot is allocated *\n#\n# Snapshot commands:\n" in text
    append(machine, "snapshot", "0\n")
    assert "# * Snapshot is freed *\n" in read(machine, "snapshot")
    for text in ("x", "", "-1"):
        if text:
            refuses(machine, EINVAL, "snapshot", text)


def test_a_snapshot_of_one_cpu(machine: Machine) -> None:
    machine.write(f"{TRACING}/events/kvm/kvm_pio/enable", "1")
    for cpu in (0, 1):
        pio(machine, cpu=cpu, val=cpu)
    append(machine, "per_cpu/cpu1/snapshot", "1")
    assert ["val 0x0" in body for body in bodies(machine)] == [True]
    assert "val 0x1" in bodies(machine, "per_cpu/cpu1/snapshot")[0]
    assert bodies(machine, "per_cpu/cpu0/snapshot") == []
    assert "refused for one CPU" in read(machine, "per_cpu/cpu0/snapshot")
    refuses(machine, EINVAL, "per_cpu/cpu1/snapshot", "0")
    append(machine, "per_cpu/cpu1/snapshot", "2")
    assert bodies(machine, "snapshot") == []


def test_an_open_snapshot_shows_what_it_took(machine: Machine) -> None:
    mark(machine, "one")
    opened = Opened(machine, "snapshot", os.O_RDWR)
    opened.write("1")
    assert b"tracing_mark_write: one" in opened.read(offset=0)
    opened.close()


def test_the_snapshot_trigger(machine: Machine) -> None:
    append(machine, "events/ftrace/print/trigger", "snapshot:1")
    assert read(machine, "events/ftrace/print/trigger") == "snapshot:count=1\n"
    mark(machine, "one")
    mark(machine, "two")
    assert bodies(machine, "snapshot") == ["tracing_mark_write: one"]
    assert bodies(machine) == ["tracing_mark_write: two"]
    refuses(machine, EEXIST, "events/ftrace/print/trigger", "snapshot")


# Pipes.


def test_two_readers_of_pipes(machine: Machine) -> None:
    whole = Opened(machine, "trace_pipe")
    for path in ("trace_pipe", "per_cpu/cpu0/trace_pipe"):
        with pytest.raises(KernelError) as refusal:
            Opened(machine, path)
        assert refusal.value.errno == EBUSY
    whole.close()
    one, other = (Opened(machine, f"per_cpu/cpu{cpu}/trace_pipe") for cpu in (0, 1))
    with pytest.raises(KernelError):
        Opened(machine, "trace_pipe")
    one.close()
    other.close()
    Opened(machine, "trace_pipe").close()


def test_a_pipe_waits_ends_and_cuts(machine: Machine) -> None:
    pipe = Opened(machine, "trace_pipe")
    with pytest.raises(KernelError) as refusal:
        pipe.read()
    assert refusal.value.errno == EAGAIN
    with pytest.raises(Blocked):
        pipe.wait()
    mark(machine, "a text of some length")
    first = pipe.read(10)
    assert len(first) == 10
    assert pipe.handle.poll() == select.POLLIN | select.POLLRDNORM
    assert pipe.read().endswith(b": a text of some length\n")
    assert read(machine, "per_cpu/cpu0/stats").splitlines()[-1] == "read events: 1"
    append(machine, "tracing_on", "0")
    assert pipe.wait() == b""
    pipe.close()
    fresh = Opened(machine, "trace_pipe")
    with pytest.raises(Blocked):
        fresh.wait()
    with pytest.raises(KernelError) as refusal:
        fresh.write("x")
    assert refusal.value.errno == EINVAL
    fresh.close()


def test_lost_events_are_told_once(machine: Machine) -> None:
    append(machine, "buffer_size_kb", "4")
    pipe = Opened(machine, "trace_pipe")
    for number in range(500):
        mark(machine, f"number {number:03} {'x' * 40}")
    text = pipe.read(1 << 20).decode()
    lost = re.match(r"CPU:0 \[LOST (\d+) EVENTS\]\n", text)
    assert lost is not None
    assert f"number {int(lost[1]):03} " in text.splitlines()[1]
    rest = text
    while rest:
        try:
            rest = pipe.read(1 << 20).decode()
        except KernelError:
            break
        assert "LOST" not in rest
    pipe.close()


def fill_a_page(machine: Machine) -> None:
    for _ in range(3):
        mark(machine, "x" * 1000)


def test_poll_asks_for_buffer_percent(machine: Machine) -> None:
    append(machine, "buffer_size_kb", "39")
    pipe = Opened(machine, "trace_pipe")
    raw = Opened(machine, "per_cpu/cpu0/trace_pipe_raw")
    for opened in (pipe, raw):
        assert opened.handle.poll() == 0
        assert opened.handle.waiters() is not None
    mark(machine, "x")
    # The pipe of all CPUs is ready for any event.
    assert pipe.handle.poll()
    assert raw.handle.poll() == 0
    append(machine, "buffer_percent", "0")
    assert raw.handle.poll()
    # 10 pages: exactly half of them is enough, including the one that is being written.
    append(machine, "buffer_percent", "50")
    for _ in range(4):
        fill_a_page(machine)
    assert raw.handle.poll() == 0
    fill_a_page(machine)
    assert raw.handle.poll()
    raw.read()
    assert raw.handle.poll() == 0
    append(machine, "options/block", "1")
    assert raw.handle.poll()
    refuses(machine, EINVAL, "buffer_percent", "101")
    pipe.close()
    raw.close()


def test_a_raw_page_in_pieces(machine: Machine) -> None:
    mark(machine, "one")
    raw = Opened(machine, "per_cpu/cpu0/trace_pipe_raw")
    page = raw.read(100) + raw.read(5000)
    assert len(page) == 4096
    stamp, commit = struct.unpack_from("<QQ", page)
    assert (commit, page[16 + 4 + 16 : 16 + 4 + 20]) == (28, b"one\n")
    with pytest.raises(KernelError) as refusal:
        raw.read()
    assert refusal.value.errno == EAGAIN
    with pytest.raises(Blocked):
        raw.wait()
    raw.close()
    assert stamp > 0


@pytest.mark.parametrize(("size", "events"), [(16, 0), (43, 0), (44, 1), (71, 1), (72, 2), (99, 2)])
def test_a_short_read_of_a_raw_page_takes_what_has_room(
    machine: Machine, size: int, events: int
) -> None:
    for _ in range(3):
        mark(machine, "one")
    raw = Opened(machine, "per_cpu/cpu0/trace_pipe_raw")
    assert len(raw.read(size)) == (size if events else 0)
    assert f"read events: {events}\n" in read(machine, "per_cpu/cpu0/stats")
    if events:
        assert len(raw.read()) == 4096 - size
    (commit,) = struct.unpack_from("<Q", raw.read(), 8)
    assert commit == (3 - events) * 28
    raw.close()


def test_the_rest_of_a_page_counts_as_used(machine: Machine) -> None:
    append(machine, "options/overwrite", "0")
    # A record of 4 bytes of head, 16 of the event, the text, a newline and a NUL, in words.
    for _ in range(3):
        mark(machine, "x" * 1000)
    assert "bytes: 3084\n" in read(machine, "per_cpu/cpu0/stats")
    mark(machine, "x" * 1000)
    assert "bytes: 5108\n" in read(machine, "per_cpu/cpu0/stats")
    mark(machine, "small")
    pipe = Opened(machine, "trace_pipe")
    while b"small" not in pipe.read():
        pass
    assert "bytes: 0\n" in read(machine, "per_cpu/cpu0/stats")
    pipe.close()


def test_nothing_fits_behind_an_event_that_was_too_long(machine: Machine) -> None:
    append(machine, "options/overwrite", "0")
    append(machine, "buffer_size_kb", "1")
    for _ in range(6):
        mark(machine, "x" * 1000)
    refuses(machine, EBADF, "trace_marker", "x" * 1000)
    refuses(machine, EBADF, "trace_marker", "small")


def test_a_buffer_that_is_shown_keeps_its_size(machine: Machine) -> None:
    append(machine, "buffer_size_kb", "8")
    trace = Opened(machine, "per_cpu/cpu1/trace")
    refuses(machine, EBUSY, "buffer_size_kb", "8")
    refuses(machine, EBUSY, "per_cpu/cpu1/buffer_size_kb", "64")
    append(machine, "per_cpu/cpu1/buffer_size_kb", "8")
    append(machine, "per_cpu/cpu0/buffer_size_kb", "8")
    append(machine, "free_buffer", "x")
    assert read(machine, "buffer_size_kb") == "8\n"
    trace.close()
    writer = Opened(machine, "trace", os.O_WRONLY)
    append(machine, "buffer_size_kb", "64")
    writer.close()
    append(machine, "free_buffer", "x")
    assert read(machine, "buffer_size_kb") == "7\n"


def test_the_head_of_one_cpu_counts_all(machine: Machine) -> None:
    mark(machine, "x")
    text = read(machine, "per_cpu/cpu1/trace")
    assert "entries-in-buffer/entries-written: 1/1 " in text
    assert "tracing_mark_write" not in text


def test_a_short_read_of_the_cpumask(machine: Machine) -> None:
    mask = Opened(machine, "tracing_cpumask")
    with pytest.raises(KernelError) as refusal:
        mask.read(2)
    assert refusal.value.errno == EINVAL
    assert mask.read(3) == b"3\n"
    mask.close()


# Instances and options.


def test_the_options_of_nop(machine: Machine) -> None:
    for text in ("test_nop_refuse", "notest_nop_refuse"):
        refuses(machine, EINVAL, "trace_options", text)
    append(machine, "options/test_nop_refuse", "0")
    refuses(machine, EINVAL, "options/test_nop_refuse", "1")
    machine.fs.mkdir(machine.fs.resolve(f"{TRACING}/instances"), "a")
    append(machine, "trace_options", "test_nop_accept")
    assert read(machine, "instances/a/options/test_nop_accept") == "1\n"


def test_an_instance_in_use_stays(machine: Machine) -> None:
    make_instance(machine, "busy")
    with pytest.raises(KernelError) as refusal:
        make_instance(machine, "busy")
    assert refusal.value.errno == EEXIST
    top = machine.fs.resolve(f"{TRACING}/instances")
    for path in ("trace", "trace_pipe", "per_cpu/cpu0/trace_pipe_raw", "set_event", "tracing_on"):
        opened = Opened(machine, f"instances/busy/{path}")
        with pytest.raises(KernelError) as refusal:
            machine.fs.rmdir(top, "busy")
        assert refusal.value.errno == EBUSY, path
        opened.close()
        opened.close()
    machine.fs.rmdir(top, "busy")
    with pytest.raises(KernelError) as refusal:
        machine.fs.rmdir(top, "busy")
    assert refusal.value.errno == ENOENT


def test_removing_an_instance_ends_its_events_and_triggers(machine: Machine) -> None:
    base = make_instance(machine, "a")
    append(machine, f"{base}set_event", "kvm:*\n")
    append(machine, f"{base}events/kvm/kvm_pio/trigger", "enable_event:kvmmmu:fast_page_fault")
    append(machine, f"{base}events/kvm/kvm_pio/trigger", "hist:keys=port")
    assert KvmPio in machine.kernel.bus.wanted
    machine.fs.rmdir(machine.fs.resolve(f"{TRACING}/instances"), "a")
    assert KvmPio not in machine.kernel.bus.wanted
    assert not machine.subsystems.tracing.tracing.hears_anything


def test_markers_are_copied_to_instances_that_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine("6.18")
    base = make_instance(machine, "copy")
    mark(machine, "one")
    append(machine, f"{base}trace_options", "copy_trace_marker")
    mark(machine, "two")
    append(machine, "trace_options", "nocopy_trace_marker")
    mark(machine, "three")
    assert [body[-3:] for body in bodies(machine)] == ["one", "two"]
    assert [body[-3:] for body in bodies(machine, f"{base}trace")] == ["two", "ree"]
    append(machine, f"{base}trace_options", "nocopy_trace_marker")
    refuses(machine, ENODEV, "trace_marker", "four")
    refuses(machine, ENODEV, "trace_marker_raw", "fourfour")
    append(machine, f"{base}trace_options", "copy_trace_marker")
    machine.fs.rmdir(machine.fs.resolve(f"{TRACING}/instances"), "copy")
    refuses(machine, ENODEV, "trace_marker", "five")


def test_one_instance_takes_what_trace_printk_writes() -> None:
    machine = Machine("6.18")
    base = make_instance(machine, "dest")

    def destinations() -> list[str]:
        places = ("", base)
        return [read(machine, f"{place}options/trace_printk_dest").strip() for place in places]

    assert destinations() == ["1", "0"]
    refuses(machine, EINVAL, "options/trace_printk_dest", "0")
    append(machine, f"{base}options/trace_printk_dest", "1")
    assert destinations() == ["0", "1"]
    append(machine, f"{base}options/trace_printk_dest", "0")
    assert destinations() == ["1", "0"]
    append(machine, f"{base}options/trace_printk_dest", "1")
    machine.fs.rmdir(machine.fs.resolve(f"{TRACING}/instances"), "dest")
    assert read(machine, "options/trace_printk_dest") == "1\n"


def test_pause_on_trace_holds_the_recording_while_somebody_reads(machine: Machine) -> None:
    append(machine, "trace_options", "pause-on-trace")
    readers = [Opened(machine, "trace"), Opened(machine, "per_cpu/cpu0/trace")]
    for reader in readers:
        refuses(machine, EBADF, "trace_marker", "x")
        reader.close()
    mark(machine, "y")
    assert bodies(machine) == ["tracing_mark_write: y"]


def test_markers_can_be_forbidden(machine: Machine) -> None:
    append(machine, "trace_options", "nomarkers")
    refuses(machine, EINVAL, "trace_marker", "x")
    refuses(machine, EINVAL, "trace_marker_raw", "xxxx")
    append(machine, "trace_options", "markers")
    append(machine, "tracing_on", "0")
    refuses(machine, EINVAL, "trace_marker_raw", "xxx")
    refuses(machine, EBADF, "trace_marker_raw", "xxxx")


def test_free_buffer_shrinks_and_may_stop(machine: Machine) -> None:
    append(machine, "buffer_size_kb", "100")
    append(machine, "trace_options", "disable_on_free")
    append(machine, "free_buffer", "x")
    assert (read(machine, "buffer_size_kb"), read(machine, "tracing_on")) == ("7\n", "0\n")


def test_sizes_of_single_cpus(machine: Machine) -> None:
    assert read(machine, "buffer_size_kb") == "7 (expanded: 1408)\n"
    assert read(machine, "buffer_total_size_kb") == "14 (expanded: 2816)\n"
    append(machine, "per_cpu/cpu1/buffer_size_kb", "40")
    assert read(machine, "buffer_size_kb") == "X\n"
    assert read(machine, "buffer_total_size_kb") == "1448\n"
    refuses(machine, EINVAL, "buffer_size_kb", "0")
    refuses(machine, EINVAL, "buffer_size_kb", "x")


# Names of tasks, clocks, CPUs.


def test_names_are_known_from_events_only(machine: Machine) -> None:
    append(machine, "events/kvm/kvm_pio/enable", "1")
    pio(machine, pid=100, comm="qemu-system-x86_64")
    assert read(machine, "saved_cmdlines") == "100 qemu-system-x86\n"
    append(machine, "saved_cmdlines_size", "2")
    for pid in (1, 2, 3):
        pio(machine, pid=pid, comm=f"t{pid}")
    assert read(machine, "saved_cmdlines") == "2 t2\n3 t3\n"
    assert [line.split("-")[0].strip() for line in lines(machine)] == ["<...>"] * 2 + ["t2", "t3"]
    append(machine, "trace_options", "norecord-cmd")
    pio(machine, pid=9, comm="nine")
    assert lines(machine)[-1].startswith("           <...>-9 ")
    for text in ("0", "x", "999999999"):
        refuses(machine, EINVAL, "saved_cmdlines_size", text)


def test_thread_groups_while_record_tgid_is_on(machine: Machine) -> None:
    append(machine, "events/kvm/kvm_pio/enable", "1")
    pio(machine, pid=99)
    append(machine, "trace_options", "record-tgid")
    pio(machine, pid=101, tgid=100)
    pio(machine, pid=100)
    mark(machine, "x")
    assert read(machine, "saved_tgids") == "100 100\n101 100\n"
    groups = [found[3] for line in lines(machine) if (found := LINE.match(line))]
    assert groups == ["(-------) ", "(    100) ", "(    100) ", "(-------) "]


@pytest.mark.parametrize(
    ("clock", "time"),
    [
        ("local", r"\d+\.\d{6}"),
        ("counter", r"\d+"),
        ("uptime", r"\d+"),
        ("x86-tsc", r"\d+"),
        ("tai", r"17040672\d\d\.\d{6}"),
        ("mono", r"\d+\.\d{6}"),
    ],
)
def test_clocks(machine: Machine, clock: str, time: str) -> None:
    machine.clock.advance(1.5)
    mark(machine, "gone")
    append(machine, "trace_clock", f" {clock}\n")
    assert f"[{clock}]" in read(machine, "trace_clock")
    for _ in range(2):
        machine.clock.advance(0.02)
        mark(machine, "x")
    stamps = [found[6] for line in lines(machine) if (found := LINE.match(line))]
    assert len(stamps) == 2
    assert all(re.fullmatch(time, stamp) for stamp in stamps)
    passed = float(stamps[1]) - float(stamps[0])
    assert passed == pytest.approx(
        {"counter": 1, "uptime": 2, "x86-tsc": 50_000_000}.get(clock, 0.02)
    )
    assert re.search(r"now ts: +\d", read(machine, "per_cpu/cpu0/stats"))
    refuses(machine, EINVAL, "trace_clock", f"[{clock}]")


def test_an_event_of_a_cpu_without_buffers_brings_them(machine: Machine) -> None:
    append(machine, "events/kvm/kvm_pio/enable", "1")
    append(machine, "snapshot", "1")
    pio(machine, cpu=5)
    assert "#P:6" in read(machine)
    assert read(machine, "tracing_cpumask") == "3f\n"
    assert bodies(machine, "per_cpu/cpu5/trace")
    append(machine, "snapshot", "1")
    assert bodies(machine, "per_cpu/cpu5/snapshot")
    append(machine, "tracing_cpumask", "1")
    pio(machine, cpu=5)
    assert bodies(machine) == []
    with pytest.raises(ValueError, match="no machine has"):
        pio(machine, cpu=5000)
    for name in ("cpu6", "cpu05", "cpux", "cpu"):
        with pytest.raises(KernelError):
            read(machine, f"per_cpu/{name}/trace")


def test_buffers_of_several_cpus_are_announced_after_overruns(machine: Machine) -> None:
    append(machine, "buffer_size_kb", "4")
    append(machine, "events/kvm/kvm_pio/enable", "1")
    for number in range(600):
        pio(machine, cpu=number % 2)
    text = read(machine)
    assert len(re.findall("^##### CPU [01] buffer started ####$", text, re.MULTILINE)) == 1
    append(machine, "trace_options", "noannotate")
    assert "#####" not in read(machine)
    cpus = [found[4] for line in lines(machine) if (found := LINE.match(line))]
    assert set(cpus) == {"000", "001"}
    append(machine, "per_cpu/cpu0/trace", "x")
    Opened(machine, "per_cpu/cpu0/trace", os.O_WRONLY | os.O_TRUNC).close()
    cpus = [found[4] for line in lines(machine) if (found := LINE.match(line))]
    assert set(cpus) == {"001"}


# Filters, triggers and lists of pids when events happen.


def test_events_pass_lists_of_pids(machine: Machine) -> None:
    append(machine, "events/kvm/kvm_pio/enable", "1")
    append(machine, "set_event_pid", "100 101")
    append(machine, "set_event_notrace_pid", "101")
    for pid in (99, 100, 101):
        pio(machine, pid=pid)
    assert [line.split("-")[1].split()[0] for line in lines(machine)] == ["100"]
    Opened(machine, "set_event_pid", os.O_WRONLY | os.O_TRUNC).close()
    Opened(machine, "set_event_notrace_pid", os.O_WRONLY | os.O_TRUNC).close()
    pio(machine, pid=99)
    assert len(lines(machine)) == 2


def test_a_filter_of_the_system_and_of_an_event(machine: Machine) -> None:
    append(machine, "events/kvm/enable", "1")
    append(machine, "events/kvm/filter", "val > 4")
    for val in (3, 5):
        pio(machine, val=val)
    assert len(lines(machine)) == 1
    assert "parse_error: Couldn't find or set field" in read(machine, "events/kvm/kvm_fpu/filter")
    # Each event without the field is a mistake of its own.
    log = read(machine, "error_log")
    assert log.count("error: Couldn't find or set field in one of a subsystem's events\n") == 8
    assert log.count("\n  Command: val > 4\n           ^\n") == 8
    append(machine, "events/kvm/filter", "0")
    assert read(machine, "events/kvm/kvm_pio/filter") == "none\n"
    for path in ("events/kvm/filter", "events/kvm/kvm_pio/filter", "events/kvm/kvm_pio/trigger"):
        refuses(machine, EINVAL, path, "x" * 4096)
        # What stands behind a NUL counts, though nobody reads it.
        refuses(machine, EINVAL, path, "0" + "\0" * 4095)
    append(machine, "events/kvm/filter", "0\0&&")
    append(machine, "events/kvm/kvm_pio/trigger", "traceoff\0x")
    assert read(machine, "events/kvm/kvm_pio/trigger") == "traceoff:unlimited\n"


def test_triggers_on_an_event_that_is_off(machine: Machine) -> None:
    pio_trigger = "events/kvm/kvm_pio/trigger"
    append(machine, pio_trigger, "stacktrace:1 if val == 1")
    append(machine, pio_trigger, "traceoff if val == 2")
    pio(machine, val=1)
    assert lines(machine)[0].endswith("<stack trace>")
    assert " => kvm_vm_ioctl" in lines(machine)
    pio(machine, val=1)
    assert sum("<stack trace>" in line for line in lines(machine)) == 1
    pio(machine, val=2)
    assert read(machine, "tracing_on") == "0\n"
    append(machine, pio_trigger, "!traceoff")
    append(machine, pio_trigger, "traceon:0x1")
    pio(machine)
    assert read(machine, "tracing_on") == "1\n"
    assert read(machine, pio_trigger).splitlines()[0] == "traceon:count=0"
    assert read(machine, "events/kvm/kvm_pio/enable") == "0*\n"


def test_a_trigger_that_changes_nothing_is_not_counted(machine: Machine) -> None:
    append(machine, "events/kvm/kvm_pio/trigger", "traceoff:3")
    pio(machine)
    pio(machine)
    assert read(machine, "events/kvm/kvm_pio/trigger") == "traceoff:count=2\n"


def test_triggers_switch_other_events(machine: Machine) -> None:
    append(machine, "events/ftrace/print/trigger", "enable_event:kvm:kvm_pio:1")
    pio(machine)
    mark(machine, "go")
    pio(machine)
    assert [body.split(":")[0] for body in bodies(machine)] == ["tracing_mark_write", "kvm_pio"]
    refuses(machine, EEXIST, "events/ftrace/print/trigger", "disable_event:kvm:kvm_pio")
    append(machine, "events/ftrace/print/trigger", "!enable_event:kvm:kvm_pio")
    assert read(machine, "events/kvm/kvm_pio/enable") == "1\n"


def marks_until_refused(machine: Machine, errno: int) -> int:
    for number in range(1000):
        try:
            mark(machine, f"number {number}")
        except KernelError as refusal:
            assert refusal.errno == errno
            return number
    raise AssertionError("the buffer takes everything")


def test_overwrite_off_keeps_the_oldest(machine: Machine) -> None:
    append(machine, "buffer_size_kb", "4")
    append(machine, "trace_options", "nooverwrite")
    kept = marks_until_refused(machine, EBADF)
    assert len(bodies(machine)) == kept
    assert bodies(machine)[0] == "tracing_mark_write: number 0"
    assert "dropped events: 1\n" in read(machine, "per_cpu/cpu0/stats")


# Clients as tasks.


class People:
    """Processes of a story: each its parent, name, and whether it lives."""

    def __init__(self) -> None:
        self.parents: dict[int, int] = {}
        self.names: dict[int, str] = {}
        self.children: dict[int, int] = {}
        self.last = 0

    def born(self, pid: int, parent: int, name: str) -> None:
        self.parents[pid], self.names[pid], self.last = parent, name, pid

    def dies(self, pid: int) -> None:
        self.children[self.parents.pop(pid)] = self.children.get(pid, 0) + 1

    def comm(self, pid: int) -> str:
        return self.names.get(pid, "<...>")

    def cpu(self, pid: int) -> int:
        return 0

    def parent(self, pid: int) -> int:
        return self.parents.get(pid, 0)

    def alive(self, pid: int) -> bool:
        return pid in self.parents

    def reaped(self, pid: int) -> int:
        return self.children.get(pid, 0)

    def newest(self) -> int:
        return self.last


@pytest.fixture
def people(machine: Machine) -> People:
    people = People()
    machine.subsystems.tracing.tracing.shared.processes = people
    watch: Any = machine.subsystems.tracing.tracing.watch
    watch._processes = people
    people.born(10, 1, "bash")
    return people


def asks(machine: Machine, pid: int, path: str = "tracing_on") -> None:
    """A request of a process, as the transport announces it."""
    machine.kernel.caller = Caller(pid, 0, 0)
    if machine.kernel.on_request is not None:
        machine.kernel.on_request(machine.kernel.caller)
    read(machine, path)


def test_clients_are_born_run_execute_and_end(machine: Machine, people: People) -> None:
    machine.kernel.caller = Caller(10, 0, 0)
    append(machine, "events/sched/enable", "1")
    people.born(11, 10, "bash")
    people.born(12, 11, "cat")
    asks(machine, 12)
    people.names[12] = "head"
    asks(machine, 12)
    people.dies(12)
    asks(machine, 10)
    people.last = 13
    people.children[10] = people.children.get(10, 0) + 1
    asks(machine, 10)
    machine.kernel.caller = Caller(0, 0, 0)
    seen = [body for body in bodies(machine) if not body.startswith("sched_wakeup")]
    assert "sched_process_fork: comm=bash pid=10 child_comm=bash child_pid=11" in seen
    assert "sched_process_fork: comm=bash pid=11 child_comm=bash child_pid=12" in seen
    assert "sched_process_exec: filename=cat pid=12 old_pid=12" in seen
    assert "sched_process_exec: filename=head pid=12 old_pid=12" in seen
    assert any(b.startswith("sched_process_exit: comm=head pid=12 prio=120") for b in seen)
    assert "sched_process_fork: comm=bash pid=10 child_comm=bash child_pid=13" in seen
    assert any("next_comm=cat next_pid=12" in body for body in seen)
    assert machine.kernel.on_request is not None
    append(machine, "events/sched/enable", "0")
    assert machine.kernel.on_request is None


def test_a_client_exits_once(machine: Machine, people: People) -> None:
    machine.kernel.caller = Caller(10, 0, 0)
    append(machine, "events/sched/sched_process_exit/enable", "1")
    people.born(11, 10, "bash")
    asks(machine, 11)
    # Its parent waits for it, so it counts as one of the parent's children that have ended.
    people.dies(11)
    asks(machine, 10)
    machine.kernel.caller = Caller(0, 0, 0)
    exits = [body for body in bodies(machine) if body.startswith("sched_process_exit")]
    assert exits == ["sched_process_exit: comm=bash pid=11 prio=120"]


def test_other_events_of_clients(machine: Machine, people: People) -> None:
    machine.kernel.caller = Caller(10, 0, 0)
    for system in ("kmem", "raw_syscalls", "irq"):
        append(machine, f"events/{system}/enable", "1")
    asks(machine, 10)
    machine.kernel.caller = Caller(0, 0, 0)
    text = read(machine)
    assert "kmalloc: call_site=ksys_write+0x0/0x1000" in text
    assert "sys_exit: NR 0 = 0" in text
    assert re.search(r"\[000\] \.\.s\.\. .*softirq_entry: vec=1 \[action=TIMER\]", text)


def test_children_inherit_their_places_on_the_lists(machine: Machine, people: People) -> None:
    machine.kernel.caller = Caller(10, 0, 0)
    append(machine, "trace_options", "event-fork")
    append(machine, "set_event_pid", "10")
    people.born(11, 10, "bash")
    asks(machine, 11)
    assert read(machine, "set_event_pid") == "10\n11\n"
    people.dies(11)
    asks(machine, 10)
    assert read(machine, "set_event_pid") == "10\n"
    append(machine, "trace_options", "noevent-fork")
    people.born(12, 10, "bash")
    asks(machine, 12)
    assert read(machine, "set_event_pid") == "10\n"


@pytest.mark.parametrize(("profile", "limit"), [("6.1", 3072), ("6.18", 4064)])
def test_a_raw_marker_fills_at_most_a_page(profile: str, limit: int) -> None:
    machine = Machine(profile)
    append(machine, "trace_marker_raw", "x" * limit)
    refuses(machine, EINVAL, "trace_marker_raw", "x" * (limit + 1))
    append(machine, "tracing_on", "0")
    refuses(machine, EBADF, "trace_marker_raw", "x" * limit)
    refuses(machine, EINVAL, "trace_marker_raw", "x" * (limit + 1))
