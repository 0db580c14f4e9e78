"""Histograms of kernel 6.1: what is counted, how it is shown, which texts are refused."""

from __future__ import annotations

import re
from collections import Counter
from errno import EDOM, EEXIST, EINVAL, ENOENT

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.machine.machine import Machine
from fakesys.subsystems.kvm.events.guest import KvmMsr, KvmPio
from fakesys.subsystems.tracing.events.stacks import ADDRESSES
from fakesys.subsystems.tracing.hist.histogram import Histogram, Hit
from fakesys.subsystems.tracing.hist.parse import parse_histogram
from fakesys.subsystems.tracing.instances.hist_trigger import HistPlace

TRACING = "sys/kernel/tracing"
PIO = f"{TRACING}/events/kvm/kvm_pio"
ROW = re.compile(r"^\{ (.*) \} hitcount: +(\d+)(.*)$", re.MULTILINE)


@pytest.fixture
def machine() -> Machine:
    return Machine("6.1")


def pio(machine: Machine, *, port: int = 1, val: int = 0, rw: int = 0, pid: int = 100) -> None:
    bus = machine.kernel.bus
    bus.task = Task(pid, f"task{pid}", 0)
    if KvmPio in bus.wanted:
        bus.emit(KvmPio(rw=rw, port=port, size=1, count=1, val=val))


def hist(machine: Machine, text: str, *, path: str = PIO) -> None:
    """A trigger without O_TRUNC, which takes histograms away."""
    node = machine.fs.resolve(f"{path}/trigger")
    handle = machine.fs.open(node, 1)
    try:
        machine.fs.write(node, handle, text.encode())  # type: ignore[arg-type]
    finally:
        handle.release()


def refuses(machine: Machine, errno: int, text: str, *, path: str = PIO) -> None:
    with pytest.raises(KernelError) as refusal:
        hist(machine, text, path=path)
    assert refusal.value.errno == errno, text


def rows(machine: Machine, *, path: str = PIO) -> list[tuple[str, int]]:
    return [(key, int(count)) for key, count, _ in ROW.findall(machine.read(f"{path}/hist"))]


def test_a_table_as_the_kernel_prints_it(machine: Machine) -> None:
    hist(machine, "hist:keys=port:vals=val")
    for port, val in ((0x80, 5), (0x3F8, 7), (0x80, 1)):
        pio(machine, port=port, val=val)
    assert machine.read(f"{PIO}/hist") == (
        "# event histogram\n#\n"
        "# trigger info: hist:keys=port:vals=hitcount,val:sort=hitcount:size=2048 [active]\n"
        "#\n\n"
        "{ port:       1016 } hitcount:          1  val:          7\n"
        "{ port:        128 } hitcount:          2  val:          6\n"
        "\nTotals:\n    Hits: 3\n    Entries: 2\n    Dropped: 0\n"
    )
    assert machine.read(f"{PIO}/trigger") == (
        "hist:keys=port:vals=hitcount,val:sort=hitcount:size=2048 [active]\n"
    )


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 1000)), max_size=30),
    st.sampled_from(["hitcount", "port", "val", "rw", "port,rw"]),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_counts_and_order(events: list[tuple[int, int, int]], sort: str, down: bool) -> None:
    machine = Machine("6.1")
    order = sort.replace(",", ".descending,") + (".descending" if down else "")
    hist(machine, f"hist:keys=port,rw:vals=val:sort={order}")
    hits: Counter[tuple[int, int]] = Counter()
    sums: Counter[tuple[int, int]] = Counter()
    for port, rw, val in events:
        pio(machine, port=port, rw=rw, val=val)
        hits[port, rw] += 1
        sums[port, rw] += val
    shown = re.findall(
        r"port: +(\d+), rw: +(\d+) \} hitcount: +(\d+)  val: +(\d+)", machine.read(f"{PIO}/hist")
    )
    got = [tuple(map(int, row)) for row in shown]
    assert sorted(got) == sorted((*key, hits[key], sums[key]) for key in hits)
    columns = {"port": 0, "rw": 1, "hitcount": 2, "val": 3}
    first, *second = sort.split(",")
    values = [row[columns[first]] for row in got]
    assert values == sorted(values, reverse=down or bool(second))


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("port.hex", "port: 3f8"),
        ("port.log2", "port: ~ 2^10"),
        ("port.buckets=100", "port: ~ 1000-1099"),
        ("common_pid.execname", "common_pid: task100         [       100]"),
        ("common_pid", "common_pid:        100"),
        ("rw.syscall", "rw: sys_write                     [  1]"),
        ("cpu", "cpu:          0"),
        ("common_cpu", "common_cpu:          0"),
    ],
)
def test_how_keys_are_shown(machine: Machine, field: str, shown: str) -> None:
    hist(machine, f"hist:keys={field}")
    pio(machine, port=0x3F8, rw=1)
    assert rows(machine)[0] == (shown, 1)


def test_values_as_percent_and_bars(machine: Machine) -> None:
    hist(machine, "hist:keys=port:vals=val.percent,val.graph:sort=port")
    hist(machine, "hist:keys=port:vals=val.hex:sort=port")
    for port, val in ((1, 16), (2, 257), (3, 118), (4, 0)):
        pio(machine, port=port, val=val)
    assert re.findall(r"hitcount: +1(.*)", machine.read(f"{PIO}/hist")) == [
        "  val (%):   4.09  val: #                   ",
        "  val (%):  65.72  val: ####################",
        "  val (%):  30.17  val: #########           ",
        "  val (%):   0.00  val:                     ",
        "  val:         10",
        "  val:        101",
        "  val:         76",
        "  val:          0",
    ]


def test_values_that_are_variables_or_expressions(machine: Machine) -> None:
    hist(machine, "hist:keys=port:x=val:vals=$x,val+port:sort=val+port.descending")
    for port, val in ((1, 16), (2, 5), (1, 7)):
        pio(machine, port=port, val=val)
    text = machine.read(f"{PIO}/hist")
    assert re.findall(r"hitcount: +\d(.*)", text) == [
        "  val:         23",
        "  val:          5",
    ]
    assert "vals=hitcount,val,val+port:x=val:sort=val+port.descending" in text


def test_addresses_as_symbols(machine: Machine) -> None:
    address = ADDRESSES["vfs_write"]
    hist(machine, "hist:keys=val.sym")
    hist(machine, "hist:keys=val.sym-offset")
    pio(machine, val=address & 0xFFFFFFFF)
    text = machine.read(f"{PIO}/hist")
    assert f"val: [{address & 0xFFFFFFFF:x}] 0x{address & 0xFFFFFFFF:x}" in text
    assert "+0x0/0x1000" in text


def test_a_key_that_is_a_text_a_stack_or_the_time(machine: Machine) -> None:
    path = f"{TRACING}/events/ftrace/print"
    signal = machine.subsystems.tracing.tracing.shared.catalog.by_name["signal:signal_generate"]
    hist(machine, "hist:keys=comm,comm.hex", path=f"{TRACING}/events/signal/signal_generate")
    hist(machine, "hist:keys=stacktrace", path=path)
    hist(machine, "hist:keys=common_timestamp.usecs", path=path)
    machine.write(f"{TRACING}/trace_marker", "hello")
    machine.kernel.bus.emit(signal.cls(9, 0, 0, "ab", 1, 0, 0))
    text = machine.read(f"{path}/hist")
    assert (
        "{ stacktrace:\n         do_syscall_64+0x0/0x1000\n"
        "         entry_SYSCALL_64_after_hwframe+0x0/0x1000\n} hitcount:          1\n"
    ) in text
    assert re.search(r"common_timestamp: +\d+ \}", text)
    text = machine.read(f"{TRACING}/events/signal/signal_generate/hist")
    assert f"{{ comm: {'ab':<50}, comm: 6261 }} hitcount:          1\n" in text


def test_size_limits_the_rows_and_counts_the_rest(machine: Machine) -> None:
    hist(machine, "hist:keys=port:size=100")
    assert "size=128 [active]" in machine.read(f"{PIO}/trigger")
    for port in range(130):
        pio(machine, port=port)
    assert len(rows(machine)) == 128
    assert "    Hits: 128\n    Entries: 128\n    Dropped: 2\n" in machine.read(f"{PIO}/hist")


def test_pause_continue_clear_and_remove(machine: Machine) -> None:
    hist(machine, "hist:keys=port:pause")
    assert machine.read(f"{PIO}/trigger").endswith("[paused]\n")
    pio(machine)
    assert rows(machine) == []
    hist(machine, "hist:keys=port:cont")
    pio(machine)
    assert rows(machine) == [("port:          1", 1)]
    hist(machine, "hist:keys=port:pause")
    pio(machine)
    assert rows(machine) == [("port:          1", 1)]
    hist(machine, "hist:keys=port:clear")
    assert rows(machine) == []
    refuses(machine, EEXIST, "hist:keys=port")
    hist(machine, "!hist:keys=port")
    assert machine.read(f"{PIO}/trigger").startswith("# Available triggers:")
    for command in ("cont", "continue", "clear"):
        refuses(machine, ENOENT, f"hist:keys=port:{command}")


def test_a_filter_decides_what_is_counted(machine: Machine) -> None:
    hist(machine, "hist:keys=port if val > 3")
    hist(machine, "hist:keys=port if val > 5")
    for val in range(8):
        pio(machine, val=val)
    tables = machine.read(f"{PIO}/hist").split("# event histogram")
    assert [int(n) for table in tables for n in re.findall(r"hitcount: +(\d+)", table)] == [4, 2]
    refuses(machine, EINVAL, "hist:keys=port if nosuch == 1")
    assert "event filter parse error: error: Field not found" in machine.read(
        f"{TRACING}/error_log"
    )
    for text in ("hist:keys=port if", "hist: if val > 3", "hist:keys=port if  ", "hist"):
        refuses(machine, EINVAL, text)
    # A word that only begins or ends with "if" does not divide.
    refuses(machine, EINVAL, "hist:keys=port xif val > 1")
    refuses(machine, EINVAL, "hist:keys=port ifx")


def test_triggers_of_other_events_pause_and_continue(machine: Machine) -> None:
    hist(machine, "hist:keys=port:pause")
    switch = f"{TRACING}/events/ftrace/print"
    hist(machine, "enable_hist:kvm:kvm_pio:1", path=switch)
    assert machine.read(f"{switch}/trigger") == "enable_hist:kvm:kvm_pio:count=1\n"
    refuses(machine, EEXIST, "disable_hist:kvm:kvm_pio", path=switch)
    machine.write(f"{TRACING}/trace_marker", "go")
    pio(machine)
    assert rows(machine) == [("port:          1", 1)]
    assert machine.read(f"{switch}/trigger") == "enable_hist:kvm:kvm_pio:count=0\n"
    hist(machine, "!enable_hist:kvm:kvm_pio", path=switch)
    hist(machine, "disable_hist:kvm:kvm_pio", path=switch)
    machine.write(f"{TRACING}/trace_marker", "stop")
    pio(machine)
    assert rows(machine) == [("port:          1", 1)]


def test_histograms_of_one_name_share_a_table(machine: Machine) -> None:
    machine.fs.mkdir(machine.fs.resolve(f"{TRACING}/instances"), "other")
    other = f"{TRACING}/instances/other/events/kvm/kvm_pio"
    hist(machine, "hist:name=both:keys=port")
    hist(machine, "hist:name=both:keys=port", path=other)
    pio(machine)
    assert rows(machine) == rows(machine, path=other) == [("port:          1", 2)]
    hist(machine, "!hist:name=both:keys=port")
    refuses(machine, EINVAL, "hist:name=both:keys=rw")


def test_truncating_takes_only_histograms_away(machine: Machine) -> None:
    hist(machine, "hist:keys=port")
    hist(machine, "traceoff")
    machine.write(f"{PIO}/trigger", "stacktrace")
    assert machine.read(f"{PIO}/trigger") == "stacktrace:unlimited\ntraceoff:unlimited\n"


@pytest.mark.parametrize(
    ("text", "message", "at"),
    [
        ("keys=nosuch", "Couldn't find field", "nosuch"),
        ("keys=comm", "Couldn't find field", "comm"),
        ("keys=port.nosuch", "Invalid field modifier", "nosuch"),
        ("keys=port.buckets=0", "Invalid field modifier", "0"),
        ("keys=rw.execname", "Invalid field modifier", "execname"),
        ("keys=port:vals=val.log2", "Invalid field modifier", "val.log2"),
        ("keys=", "Empty assignment", "keys="),
        ("keys=port:sort=val", "Sort field must be a key or a val", "val"),
        ("keys=port:sort=port.up", "Invalid sort modifier", "up"),
        ("keys=port:sort=port,,", "Empty sort field", "sort=port,,"),
        ("keys=port:sort=port,", "Empty sort field", "sort=port,"),
        ("keys=port:a=1,a=2", "Variable already defined", "a"),
        ("keys=port:a=$b", "Couldn't find variable", "b"),
        ("keys=port:a=1x", "Expecting numeric literal", "1x"),
        ("keys=port:a=1+2+3+4+5", "Too many subexpressions (3 max)", "1"),
        ("keys=port:a=-(port)+1)2", "Unary minus not supported in sub-expressions", None),
    ],
)
def test_mistakes_are_logged_with_their_place(
    machine: Machine, text: str, message: str, at: str | None
) -> None:
    refuses(machine, EINVAL, f"hist:{text}")
    log = machine.read(f"{TRACING}/error_log").splitlines()
    assert log[0].endswith(f"hist:kvm:kvm_pio: error: {message}")
    assert log[1] == f"  Command: hist:{text}"
    if at is not None:
        assert log[1][log[2].index("^") :].startswith(at)


@pytest.mark.parametrize(
    "text",
    [
        "port",
        "keys=port:nosuch",
        "vals=val",
        "keys=port,rw,val,size",
        "keys=port:size=x",
        "keys=port:size=64",
        "keys=port:size=1000000",
        "keys=port:vals=rw,val,size,count",
        "keys=port:a=1+",
        "keys=port:a=-port",
        "keys=port:a=-(port",
    ],
)
def test_other_mistakes_are_not(machine: Machine, text: str) -> None:
    refuses(machine, EINVAL, f"hist:{text}")
    assert machine.read(f"{TRACING}/error_log") == ""


def test_variables_are_numbers_computed_once(machine: Machine) -> None:
    hist(machine, "hist:keys=port:a=2*3+port,b=port*2,d=$b-1:c=-(4)")
    # To `d`, `b` is its first operand.
    assert machine.read(f"{PIO}/trigger") == (
        "hist:keys=port:vals=hitcount:a=6+port,b=port*2,d=port-1,c=-(4)"
        ":sort=hitcount:size=2048 [active]\n"
    )
    refuses(machine, EDOM, "hist:keys=port:x=1/0")
    assert "error: Division by zero" in machine.read(f"{TRACING}/error_log")
    refuses(machine, EINVAL, "hist:keys=port:e=1:" + ":".join(f"v{n}=1" for n in range(16)))
    refuses(machine, EINVAL, "hist:keys=port:x=buf")


def parsed(machine: Machine, text: str) -> Histogram:
    """The histogram of a text, not put on its event."""
    top = machine.subsystems.tracing.tracing.top
    form = top.shared.catalog.by_name["kvm:kvm_pio"]

    def count_too(*_: object) -> None:
        raise AssertionError("there are no actions")

    place = HistPlace(top, top.file(form), text, count_too, removing=False)
    return parse_histogram(text, form, place)


def test_expressions(machine: Machine) -> None:
    task = Task(100, "task100", 2)
    event = KvmPio(rw=1, port=10, size=4, count=1, val=7)
    for text, value in (
        ("port+val", 17),
        ("port-val*2", (10 - 14) % (1 << 64)),
        ("port/size", 2),
        ("port/count-val", 3),
        ("12/4", 3),
        ("-(port)", (1 << 64) - 10),
        ("common_cpu*port", 20),
        ("port/common_type.hex", 0),
        ("common_timestamp-port", 4990),
    ):
        made = parsed(machine, f"keys=rw:x={text}").variable("x")
        assert made is not None
        assert made.get(Hit(event, task, 5000, [])) == value, text


PIECES = st.sampled_from(
    [
        "keys=",
        "vals=",
        "sort=",
        "size=",
        "name=",
        "port",
        "rw",
        "val",
        "hitcount",
        "common_pid",
        ".hex",
        ".log2",
        ".buckets=",
        ".descending",
        ".execname",
        ".sym",
        ",",
        ":",
        "=",
        "+",
        "-",
        "*",
        "/",
        "(",
        ")",
        "$a",
        "a=",
        "1",
        "128",
        "pause",
        "cont",
        "clear",
        "x",
        ".",
        " ",
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30))
@example("keys=port")
@example("keys=port:a=-")
@settings(max_examples=500)
def test_any_text_is_a_histogram_or_refused(text: str) -> None:
    try:
        histogram = parsed(MACHINE, text)
    except KernelError as refusal:
        assert refusal.name in ("EINVAL", "ERANGE", "ENOMEM", "EDOM")
        return
    # What the trigger file shows is a histogram of the same shape, but that variables of
    # expressions are shown by their first operands, and texts of numbers by their values.
    if histogram.values[1:] == histogram.sums[1:]:
        again = parsed(MACHINE, histogram.spelling)
        assert again.spelling == histogram.spelling


MACHINE = Machine("6.1")


def test_a_sum_has_64_bits(machine: Machine) -> None:
    path = f"{TRACING}/events/kvm/kvm_msr"
    hist(machine, "hist:keys=ecx:vals=data", path=path)
    for _ in range(3):
        machine.kernel.bus.emit(KvmMsr(write=0, ecx=1, data=(1 << 64) - 2, exception=0))
    assert f"hitcount:          3  data: {(1 << 64) - 6}\n" in machine.read(f"{path}/hist")


def test_time_stamps_are_those_of_the_clock_of_now(machine: Machine) -> None:
    hist(machine, "hist:keys=common_timestamp")
    machine.clock.advance(10)
    machine.write(f"{TRACING}/trace_clock", "counter\n")
    pio(machine)
    ((key, _),) = rows(machine)
    assert int(key.partition(":")[2]) < 100


def test_a_digit_that_is_no_decimal_is_no_size(machine: Machine) -> None:
    with pytest.raises(KernelError) as refusal:
        machine.write(f"{PIO}/trigger", "hist:keys=port.buckets=\u00b2")
    assert refusal.value.errno == EINVAL


def test_the_call_chain_is_a_field_since_6_3() -> None:
    machine = Machine("6.18")
    hist(machine, "hist:keys=stacktrace")
    hist(machine, "hist:keys=rw,common_stacktrace")
    pio(machine)
    assert "{ common_stacktrace:\n" in machine.read(f"{PIO}/hist")
    assert "hist:keys=rw,common_stacktrace:vals" in machine.read(f"{PIO}/trigger")
    refuses(Machine("6.1"), EINVAL, "hist:keys=common_stacktrace")
