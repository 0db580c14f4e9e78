"""Tracing as plain values: what was restored goes on as before, and wrong values are refused."""

from __future__ import annotations

import base64
import json
import os
import random
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.core.saved import BadSnapshotError
from fakesys.machine.machine import Machine
from fakesys.machine.profiles import PROFILES
from fakesys.machine.tracing import TraceSubsystem, tracing_of
from fakesys.subsystems.tracing.instances.tracing import Tracing
from fakesys.subsystems.tracing.saved.tracing import SavedTracing, restore, save
from fakesys.tree.node import File
from tests.long import LONG
from tests.mutants import mutant
from tests.whole_machine import CONTROL, CTL, TRACING, WRITES, attempt, differences, everything

KERNELS = tuple(PROFILES)
EVENTS = f"{TRACING}/events"
FOO = f"{TRACING}/instances/foo"
READ, READ_RAW = "READ", "READ RAW"
# Writes to tracefs besides those of `WRITES`. A name of READ is a file that is read in part.
MORE: tuple[tuple[str, str], ...] = (
    (f"{EVENTS}/kvm/kvm_exit/trigger", "hist:keys=common_pid.execname:vals=isa.hex:size=128\n"),
    (f"{EVENTS}/kvm/kvm_exit/trigger", "hist:keys=common_timestamp.usecs:x=isa*2,y=$x-1:pause\n"),
    (f"{EVENTS}/kvm/kvm_exit/trigger", "hist:keys=exit_reason if isa == 1\n"),
    (f"{EVENTS}/kvm/kvm_pio/trigger", "hist:name=p:keys=port:vals=size\n"),
    (f"{FOO}/events/kvm/kvm_pio/trigger", "hist:name=p:keys=port:vals=size:size=256\n"),
    (f"{EVENTS}/kvm/kvm_pio/trigger", "!hist:name=p:keys=port:vals=size\n"),
    (f"{EVENTS}/kvm/kvm_apic/trigger", "hist:keys=stacktrace,reg.buckets=16:sort=hitcount\n"),
    (f"{EVENTS}/kvm/kvm_apic/trigger", "enable_hist:kvm:kvm_exit:3\n"),
    (f"{EVENTS}/kvm/kvm_entry/trigger", "traceoff:2 if  vcpu_id == 7\n"),
    (f"{EVENTS}/kvm/kvm_entry/trigger", "enable_event:kvm:kvm_pio:18446744073709551611\n"),
    (f"{EVENTS}/ftrace/print/trigger", "stacktrace:4\n"),
    (f"{EVENTS}/kvm/kvm_pio/filter", "CPU & CPUS{all} || rw == 1\n"),
    (f"{EVENTS}/kvm/filter", "vcpu_id == 0\n"),
    (f"{EVENTS}/kvm/kvm_pio/filter", "0\n"),
    (f"{EVENTS}/sched/enable", "1\n"),
    (f"{EVENTS}/sched/enable", "0\n"),
    (f"{TRACING}/options/record-tgid", "1\n"),
    (f"{TRACING}/options/event-fork", "1\n"),
    (f"{TRACING}/options/stacktrace", "1\n"),
    (f"{TRACING}/options/test_nop_accept", "1\n"),
    (f"{TRACING}/options/trace_printk_dest", "0\n"),
    (f"{FOO}/options/trace_printk_dest", "1\n"),
    (f"{FOO}/options/copy_trace_marker", "1\n"),
    (f"{TRACING}/options/copy_trace_marker", "0\n"),
    (f"{TRACING}/options/copy_trace_marker", "1\n"),
    (f"{TRACING}/saved_cmdlines_size", "3\n"),
    (f"{TRACING}/per_cpu/cpu1/buffer_size_kb", "4\n"),
    (f"{TRACING}/buffer_size_kb", "4\n"),
    (f"{TRACING}/trace_marker", "y" * 900 + "\n"),
    (f"{TRACING}/trace_marker", "a line\n"),
    (f"{TRACING}/trace_marker_raw", "\1\0\0\0raw"),
    (f"{TRACING}/set_event_notrace_pid", "5\n"),
    (f"{TRACING}/per_cpu/cpu0/snapshot", "1\n"),
    (f"{TRACING}/snapshot", "0\n"),
    (f"{FOO}/trace_clock", "x86-tsc\n"),
    (f"{FOO}/set_event", "kvm:*\n"),
    (f"{TRACING}/instances/mkdir", "b\udce9r \udc80"),
    (f"{TRACING}/instances/rmdir", "foo"),
    (f"{TRACING}/trace_pipe", READ),
    (f"{FOO}/trace_pipe", READ),
    (f"{TRACING}/per_cpu/cpu0/trace_pipe_raw", READ_RAW),
    (CTL, "a vcpu 1 access w 0x200000 n=200\n"),
    (CTL, "a vcpu 2 start cpu=5\n"),
)
TRACE_WRITES = tuple(write for write in WRITES if "tracing" in write[0]) + MORE * 3
HISTORY = WRITES[:-2]
# Writes that an ordinary client makes, on every machine.
ORDINARY = (
    *(
        (f"{TRACING}/{name}", text)
        for name, text in (
            ("trace_marker", "hello\n"),
            ("trace_marker_raw", "\1\0\0\0raw"),
            ("tracing_on", "1\n"),
            ("set_event", "*:*\n"),
            ("trace_marker", "again\n"),
            ("events/kvm/enable", "0\n"),
            ("buffer_size_kb", "64\n"),
            ("snapshot", "1\n"),
            ("trace_clock", "counter\n"),
            ("instances/mkdir", "ordinary"),
            ("instances/rmdir", "ordinary"),
        )
    ),
    (CTL, "vm create z pid=900\n"),
    (CTL, "z vcpu add\n"),
    (CTL, "z mem m size=4M\n"),
    (CTL, "z slot 0 gpa=0 size=4M mem=m\n"),
    (CTL, "z vcpu 0 access w 0x1000 n=20\n"),
    (f"{CONTROL}/clock/advance", "1\n"),
    (f"{TRACING}/trace", ""),
)


def done(machine: Machine, path: str, text: str) -> object:
    """What an operation answers: a write, or a read of one piece for READ and READ_RAW."""
    if text not in (READ, READ_RAW):
        return attempt(machine, path, text)
    try:
        node = machine.fs.resolve(path)
    except KernelError as refusal:
        return refusal.name
    assert isinstance(node, File)
    handle = machine.fs.open(node, os.O_RDONLY)
    try:
        return machine.fs.read(node, handle, 0, 4096 if text == READ_RAW else 300, nonblock=True)
    except KernelError as refusal:
        return refusal.name
    finally:
        handle.release()


def tracing(machine: Machine) -> Tracing:
    return machine.subsystems.tracing.tracing


def encoded(machine: Machine) -> bytes:
    return msgspec.json.encode(save(tracing(machine)))


def replace(machine: Machine, data: bytes) -> None:
    """Give a machine the tracing of this text in place of its own."""
    models = machine.subsystems
    old = tracing(machine)
    fresh = tracing_of(
        machine.kernel, models.profile.trace, models.kvm.features, old.shared.processes
    )
    try:
        restore(msgspec.json.decode(data, type=SavedTracing), fresh)
    except BaseException:
        fresh.close()
        raise
    old.close()
    fresh.update_watch()
    models.tracing = TraceSubsystem(machine.kernel, fresh)
    machine.rebind()


def pair(profile: str, writes: list[tuple[str, str]]) -> tuple[Machine, Machine]:
    """Two machines with the same history; the tracing of the second was saved and restored."""
    both = tuple(Machine(profile, "default", selftest=True) for _ in range(2))
    for machine in both:
        for write in writes:
            done(machine, *write)
    replace(both[1], encoded(both[1]))
    return both[0], both[1]


@pytest.mark.parametrize("profile", KERNELS)
def test_all_that_can_be_done_is_kept(profile: str) -> None:
    removal = (f"{TRACING}/instances/rmdir", "foo")
    more = [write for write in MORE if write != removal]
    machine, copy = pair(profile, [*HISTORY, *more, *HISTORY])
    assert encoded(machine) == encoded(copy)
    # What is compared is not nothing.
    text = copy.read(f"{TRACING}/trace") + copy.read(f"{FOO}/trace")
    assert text.count("kvm_") > 3
    assert differences(machine, copy) == []


@pytest.mark.parametrize("profile", KERNELS)
@pytest.mark.parametrize("seed", range(40 if LONG else 4))
def test_random_histories_go_on_as_before(profile: str, seed: int) -> None:
    chance = random.Random(f"{profile} {seed}")
    begin = [*WRITES[:: chance.randrange(1, 4)][:-2], *chance.choices(TRACE_WRITES, k=40)]
    machine, copy = pair(profile, begin)
    assert encoded(machine) == encoded(copy)
    for write in chance.choices((*HISTORY, *TRACE_WRITES), k=60):
        assert done(machine, *write) == done(copy, *write), write
    assert differences(machine, copy) == []
    assert encoded(machine) == encoded(copy)
    assert machine.control.bugs == copy.control.bugs == []


# --- what is refused ---


@pytest.fixture(scope="module")
def documents() -> list[tuple[str, Any]]:
    """Profile and document of a machine with much in it, one of each kernel."""
    found = []
    for profile in KERNELS:
        machine = Machine(profile, "default")
        for write in (*HISTORY, *MORE, *HISTORY[::3]):
            done(machine, *write)
        found.append((profile, json.loads(encoded(machine))))
    return found


def text_of(document: Any) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize("part", range(200 if LONG else 15))
def test_mutants_are_refused_or_of_use(documents: list[tuple[str, Any]], part: int) -> None:
    chance = random.Random(part)
    for number in range(10):
        profile, document = chance.choice(documents)
        machine = Machine(profile, "default")
        machine.clock.advance(40)
        try:
            replace(machine, text_of(mutant(document, chance)))
        except (msgspec.ValidationError, BadSnapshotError):
            continue
        for _ in range(2):
            everything(machine, TRACING)
            for write in ORDINARY:
                attempt(machine, *write)
            replace(machine, encoded(machine))
        assert machine.control.bugs == [], (part, number)


def changed(document: Any, *path: Any, to: Any) -> bytes:
    """The text of the document in which the value at a path is another one."""
    found = json.loads(text_of(document))
    owner = found
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = to(owner[path[-1]]) if callable(to) else to
    return text_of(found)


def record(payload: bytes, delta: int = 0) -> bytes:
    return struct.pack("<I", delta << 5 | len(payload) // 4) + payload


def page(data: bytes, stamp: int = 0) -> dict[str, Any]:
    return {"stamp": stamp, "records": base64.b64encode(data).decode()}


def numbered(name: str) -> bytes:
    """A record of an event, with as many bytes as a raw marker."""
    return struct.pack("<HBBii", NUMBERS[name], 0, 0, 1, 1)


# Numbers of the events in the kernel of these documents.
NUMBERS = {form.name: form.id for form in tracing(Machine("6.1", "empty")).shared.catalog.ftrace}
RAW = numbered("ftrace:raw_data")
ONE = page(record(RAW))
TOP = ("instances", 0)
EVENT = (*TOP, "events")
BUFFER = (*TOP, "buffers", "live", 0)
PAGES = (*BUFFER, "pages")
EMPTY: dict[str, Any] = {
    "soft_disabled": False,
    "filter": None,
    "wrong_filter": None,
    "triggers": [],
}
TWO = [[1, "a"], [2, "b"]]


def update(**changes: Any) -> Callable[[Any], Any]:
    """Let an object have other values."""
    return lambda old: old | changes


def event(**changes: Any) -> dict[str, Any]:
    return {"kvm:kvm_exit": EMPTY | changes}


def right(text: str, cpus: int = 0) -> dict[str, Any]:
    return {"text": text, "cpus": cpus}


def switch(*lines: str) -> dict[str, Any]:
    """The event with triggers of these lines."""
    return event(
        triggers=[{"type": "switch", "line": line, "cpus": 0, "count": -1} for line in lines]
    )


def table(*rows: Any, size: int = 128) -> Any:
    found = [{"key": k, "counts": c, "comm": "a", "variables": list(v)} for k, c, *v in rows]
    return {"size": size, "dropped": 0, "rows": found}


def taken(value: int, key: Any, **changes: Any) -> dict[str, Any]:
    """The event with a histogram that takes snapshots."""
    found = hist(line="hist:keys=isa:x=isa:onmax($x).snapshot()", size=2048)
    watch = {"value": value, "key": key, "comm": "a"} | changes
    found["kvm:kvm_exit"]["triggers"][0]["watch"] = watch
    return found


def definition(**changes: Any) -> Callable[[Any], Any]:
    """Let there be one synthetic event."""

    def change(saved: Any) -> Any:
        number = saved["next_id"]
        one = {"name": "a", "fields": "int b", "number": number} | changes
        return {"events": [one], "next_id": number + 1}

    return change


def hists(tables: dict[str, Any]) -> dict[str, Any]:
    """The event with histograms of these lines, each with its table."""
    return event(
        triggers=[
            {
                "type": "hist",
                "line": line,
                "cpus": 0,
                "paused": False,
                "table": table,
                "place": place,
            }
            for place, (line, table) in enumerate(tables.items())
        ]
    )


def hist(*rows: Any, line: str = "hist:keys=isa:size=128", size: int = 128) -> dict[str, Any]:
    return hists({line: table(*rows, size=size)})


def changing(name: str, value: Any) -> dict[str, Any]:
    """The event with a histogram of which one value is another."""
    found = hist()
    found["kvm:kvm_exit"]["triggers"][0][name] = value
    return found


def read(position: int, **changes: Any) -> Callable[[Any], Any]:
    """Let a buffer have one page that was read so far."""
    return update(pages=[ONE], read_position=position, **changes)


WRONG: tuple[tuple[str, tuple[Any, ...], Any], ...] = (
    ("other numbers", ("ids", "kvm:kvm_exit"), 7),
    ("2 buffers for 3 CPUs", ("cpus",), 3),
    ("other names", ("names",), ["more"]),
    ("twice", ("attached", "kvm:kvm_exit"), [0, 0]),
    ("no such instance", ("attached", "kvm:kvm_exit"), [1]),
    ("no event", ("attached", "kvm:nothing"), [0]),
    ("cannot be enabled", ("attached", "ftrace:print"), [0]),
    ("markers go to another", ("markers",), []),
    ("no trace option", (*TOP, "options"), ["nothing"]),
    ("option is on twice", (*TOP, "options"), ["markers", "markers"]),
    ("is on", (*TOP, "options"), ["test_nop_refuse"]),
    ("no clock", (*TOP, "clock"), "sundial"),
    ("no tracer", (*TOP, "tracer"), "function"),
    ("tracing_cpumask", (*TOP, "cpumask"), "10"),
    ("started_at", (*TOP, "started_at"), -1),
    ("<= 100", (*TOP, "percent"), 101),
    ("unknown field", (*TOP, "more"), 1),
    ("missing required field", ("shared",), {}),
    ("matching regex", ("names",), ["a/b"]),
    # Clocks and names.
    ("still to come", ("shared", "last_ns"), 1 << 62),
    ("two names", ("shared", "tasks", "comms"), [[1, "a"], [1, "b"]]),
    ("two thread groups", ("shared", "tasks", "tgids"), [[1, 1], [1, 2]]),
    ("pid 0", ("shared", "tasks", "comms"), [[0, "a"]]),
    ("too long", ("shared", "tasks", "comms"), [[1, "a" * 16]]),
    ("more names", ("shared", "tasks"), update(size=1, comms=TWO)),
    ("matching regex", ("shared", "tasks", "comms"), [[1, "\u20ac"]]),
    # Filters.
    ("no event", EVENT, {"kvm:nothing": EMPTY}),
    ("not attached", EVENT, {"kvm:kvm_pio": EMPTY | {"soft_disabled": True}}),
    ("holds its soft mode", EVENT, event(soft_disabled=True)),
    ("Field not found", EVENT, event(filter=right("x == 1"))),
    ("right and wrong", EVENT, event(filter=right("isa == 1"), wrong_filter="x")),
    ("of 2 CPUs", EVENT, event(filter=right("isa == 1", cpus=3))),
    ("no filter", EVENT, {"ftrace:print": EMPTY | {"wrong_filter": "x"}}),
    # Triggers.
    ("no trigger 'x'", EVENT, switch("x")),
    ("makes no trigger", EVENT, switch("!traceon")),
    ("another trigger", EVENT, switch("traceon:5")),
    ("another trigger", EVENT, switch("hist:keys=isa")),
    ("no histogram", EVENT, hist(line="!hist:keys=isa")),
    ("makes no trigger", EVENT, hists({"hist:keys=isa": table(), "hist:keys=isa:pause": None})),
    ("another histogram", EVENT, hist(line="hist:keys=isa:size=128 if isa == 1 ")),
    ("places of", EVENT, changing("place", 1)),
    ("more or fewer histograms", EVENT, changing("made", True)),
    ("takes no snapshots", EVENT, changing("watch", {"value": 1, "key": None, "comm": ""})),
    ("is missing", EVENT, hist(line="hist:keys=isa:size=128:x=isa:onmax($x).snapshot()")),
    ("the last value", EVENT, taken(-1, None)),
    ("fewer keys", EVENT, taken(1, [])),
    ("two values", EVENT, hist(([1], [1], (1, 2), (1, 3)))),
    ("no key of its histogram", EVENT, taken(1, ["x"])),
    # Synthetic events.
    ("cannot have its number", ("synthetic",), definition(number=1)),
    ("number of another", ("synthetic",), update(next_id=61441)),
    ("Invalid type", ("synthetic",), definition(fields="nosuch b")),
    ("has a trigger", EVENT, switch("traceon", "traceoff")),
    ("no histogram", EVENT, hist(line="traceon")),
    ("table is missing", EVENT, hists({"hist:keys=isa": None})),
    (
        "table is there",
        EVENT,
        hists({f"hist:name=n:keys=isa:size=128 if isa == {n}": table() for n in (1, 2)}),
    ),
    ("no 100 rows", EVENT, hist(size=100)),
    ("more rows", EVENT, hist(*(([n], [1]) for n in range(129)))),
    ("same key", EVENT, hist(([1], [1]), ([1], [1]))),
    ("fewer keys", EVENT, hist(([], [1]))),
    ("fewer values", EVENT, hist(([1], []))),
    ("a sum is", EVENT, hist(([1], [-1]))),
    ("a key is", EVENT, hist(([1 << 64], [1]))),
    ("no key of its histogram", EVENT, hist((["x"], [1]))),
    # Pages.
    ("goes beyond", PAGES, [page(record(RAW)[:-4])]),
    ("ends within", PAGES, [page(record(RAW) + b"x")]),
    ("ends within", PAGES, [page(record(RAW) + struct.pack("<II", 30, 1))]),
    ("two times", PAGES, [page(struct.pack("<4I", 30, 1, 30, 1) + record(RAW))]),
    ("padding", PAGES, [page(struct.pack("<II", 29 | 1 << 5, 0) + record(RAW))]),
    ("wrong length", PAGES, [page(struct.pack("<I", 1) + RAW)]),
    ("which does not exist", PAGES, [page(record(b"\xff\xff" + RAW[2:]))]),
    ("wrong length for", PAGES, [page(record(numbered("ftrace:print")))]),
    ("time of a record", PAGES, [page(record(RAW, 9), (1 << 64) - 3)]),
    ("time of a page", PAGES, [page(record(RAW), -1)]),
    ("length >= 1", PAGES, [page(b"")]),
    # Buffers.
    ("more pages", BUFFER, update(limit=2, pages=[ONE] * 3)),
    ("middle of a record", BUFFER, read(4)),
    ("than were counted", BUFFER, read(16)),
    ("without a page", BUFFER, update(read_events=4)),
    ("reader page and no page", BUFFER, update(read_position=0)),
    ("without a rest", BUFFER, update(full=True)),
    ("more events are lost", BUFFER, read(0, lost=1)),
    ("come after", BUFFER, read(16, read_events=1, lost=1, lost_before=1, overrun=1)),
    ("size of a buffer", (*TOP, "buffers", "asked_kb"), [-1, None]),
    ("a snapshot has no", (*TOP, "buffers", "snapshot"), []),
)


def small(profile: str) -> Any:
    """The document of an empty machine of two CPUs, in which kvm_exit is enabled."""
    machine = Machine(profile, "empty")
    tracing(machine).grow(2)
    machine.write(f"{EVENTS}/kvm/kvm_exit/enable", "1\n")
    document = json.loads(encoded(machine))
    document["cpus"] = 2
    top = document["instances"][0]
    top["cpumask"] = "3"
    for part in ("live", "asked_kb"):
        del top["buffers"][part][2:]
    return document


@pytest.mark.parametrize(("why", "path", "to"), WRONG)
def test_one_wrong_value_is_refused(why: str, path: tuple[Any, ...], to: Any) -> None:
    document = small("6.1")
    machine = Machine("6.1", "empty")
    before = encoded(machine)
    with pytest.raises((BadSnapshotError, msgspec.ValidationError)) as refusal:
        replace(machine, changed(document, *path, to=to))
    assert why in str(refusal.value)
    assert encoded(machine) == before
    replace(machine, text_of(document))
    assert machine.read(f"{TRACING}/set_event") == "kvm:kvm_exit\n"


def test_names_of_instances_are_names_of_directories() -> None:
    document = small("6.1")
    document["instances"] += document["instances"] * 2
    machine = Machine("6.1", "empty")
    for names, why in (([".", "a"], "no name"), (["a", "a"], "instance a exists")):
        with pytest.raises(BadSnapshotError, match=why):
            replace(machine, changed(document, "names", to=names))
    replace(machine, changed(document, "names", to=["a", "b c"]))
    assert sorted(machine.listdir(f"{TRACING}/instances")) == ["a", "b c"]


def test_options_that_only_one_instance_can_have() -> None:
    document = small("6.18")
    machine = Machine("6.18", "empty")
    options = document["instances"][0]["options"]
    for missing, why in (("trace_printk_dest", "0 instances"), ("copy_trace_marker", "do not go")):
        left = [name for name in options if name != missing]
        with pytest.raises(BadSnapshotError, match=why):
            replace(machine, changed(document, *TOP, "options", to=left))


# --- what any bytes of a record look like ---


def payload_of(form: EventFormat, chance: random.Random) -> bytes:
    """A record of the right length in which everything but the number is chance."""
    size = next(size for size in range(8, 1000, 4) if form.has_length(size))
    size += chance.choice((0, 4, 64)) if form.has_length(size + 4) else 0
    few = bytes(chance.choice((0, 0, 1, 2, 255)) for _ in range(size))
    data = chance.choice((few, chance.randbytes(size)))
    return form.id.to_bytes(2, "little") + data[2:]


@pytest.mark.parametrize("profile", KERNELS)
def test_every_record_of_a_known_event_can_be_shown(profile: str) -> None:
    machine = Machine(profile, "empty")
    top, chance = tracing(machine).top, random.Random(profile)
    names = ("raw", "hex", "bin", "fields", "latency-format", "verbose", "context-info")
    for name in ("", *(name for name in names if name in top.options.names())):
        if name:
            top.set_option(name, not top.options[name])
        render = top.renderer()
        make: Callable[..., str] = render.ahead or render.line
        for form in top.shared.catalog.by_id.values():
            for _ in range(30 if LONG else 6):
                line = make((1 << 64) - 1, 3, payload_of(form, chance))
                assert line.encode("latin-1")
        if name:
            top.set_option(name, not top.options[name])
