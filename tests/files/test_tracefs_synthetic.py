"""Synthetic events: their files and formats; mistakes as Linux 6.1 logs them."""

from __future__ import annotations

from errno import EBUSY, EEXIST, EINVAL, ENODEV, ENOENT

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.subsystems.tracing.events.catalog import LAST_ID
from tests.files.test_tracefs_hist_actions import TRACING, appended, mistakes

FILE, DYNAMIC = f"{TRACING}/synthetic_events", f"{TRACING}/dynamic_events"
COMMAND = "Command must be of the form: <name> field[;field] ..."
DYNAMIC_COMMAND = "Command must be of the form: s or -:[synthetic/]<name> field[;field] ..."


@pytest.fixture
def machine() -> Machine:
    return Machine("6.1")


def refused(machine: Machine, errno: int, text: str, path: str = FILE) -> None:
    with pytest.raises(KernelError) as refusal:
        appended(machine, path, text)
    assert refusal.value.errno == errno, text


# Recorded on 6.1.192, or of the kernel's own tests. The place of a mistake is before `^`.
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo char ^a[300]", "Invalid array specification"),
        ("foo char ^a[1000]", "Invalid array specification"),
        ("foo char ^a[x]", "Invalid array specification"),
        ("myevent char ^str[; int v", "Invalid array specification"),
        ("foo ^int a[4]", "Invalid type"),
        ("myevent ^chr arg", "Invalid type"),
        ("myevent ^unsigned arg", "Incomplete type"),
        ("^1foo int a", "Illegal name"),
        ("foo int ^9a", "Illegal name"),
        ("myevent char ^st-r[]", "Illegal name"),
        ("bar int ^a, int b", "Illegal name"),
        ("myevent char str; ^int", "Invalid field"),
        ("myevent char str;^[]", "Invalid field"),
        ("^foo ; ;", COMMAND),
        ("^foo int", COMMAND),
        ("^myevent; char str[]", COMMAND),
        ("^;myevent char str[]", COMMAND),
        ("foo u8 a; " + "; ".join(f"u8 a{n}" for n in range(64)), "Too many fields"),
    ],
)
def test_mistakes(machine: Machine, text: str, message: str) -> None:
    place = max(0, text.find("^"))
    refused(machine, EINVAL, text.replace("^", ""))
    assert mistakes(machine) == [[message, place]]
    assert machine.read(FILE) == ""


def test_a_definition_and_its_format(machine: Machine) -> None:
    fields = "u64 a; char b[16]; char c[]; pid_t d; unsigned long e; gfp_t f; s8 g; bool h"
    appended(machine, FILE, f"  bar {fields}; long stk[]  # all kinds\n\n")
    assert machine.read(FILE) == (
        "bar\tu64 a; char[16] b; char[] c; pid_t d; unsigned long e; gfp_t f; s8 g; bool h;"
        " long[] stk\n"
    )
    folder = f"{TRACING}/events/synthetic/bar"
    assert sorted(machine.listdir(folder)) == [
        "enable",
        "filter",
        "format",
        "hist",
        "id",
        "trigger",
    ]
    text = machine.read(f"{folder}/format")
    assert text.partition("signed:1;\n\n")[2] == (
        "\tfield:u64 a;\toffset:8;\tsize:8;\tsigned:0;\n"
        "\tfield:char b[];\toffset:16;\tsize:16;\tsigned:1;\n"
        "\tfield:__data_loc char[] c;\toffset:272;\tsize:8;\tsigned:1;\n"
        "\tfield:pid_t d;\toffset:280;\tsize:4;\tsigned:1;\n"
        "\tfield:unsigned long e;\toffset:288;\tsize:8;\tsigned:0;\n"
        "\tfield:gfp_t f;\toffset:296;\tsize:4;\tsigned:0;\n"
        "\tfield:s8 g;\toffset:304;\tsize:1;\tsigned:1;\n"
        "\tfield:bool h;\toffset:312;\tsize:1;\tsigned:1;\n"
        "\tfield:__data_loc long[] stk;\toffset:320;\tsize:8;\tsigned:1;\n\n"
        'print fmt: "a=%llu, b=%s, c=%s, d=%d, e=%lu, f=%x, g=%d, h=%d, stk=%s", REC->a, REC->b,'
        " __get_str(c), REC->d, REC->e, REC->f, REC->g, REC->h, __get_stacktrace(stk)\n"
    )
    refused(machine, EEXIST, "bar int a b")
    assert mistakes(machine) == [["Event already exists", 0]]
    refused(machine, ENOENT, "!nosuch")
    refused(machine, EINVAL, "x" * 4095)
    for profile in ("seed", "6.1"):
        assert Machine(profile).read(FILE) == ""


def test_a_record_of_every_kind_of_field(machine: Machine) -> None:
    kinds = "u64 a; char b[16]; char c[]; pid_t d; gfp_t f; s8 g; s16 event; char text[]; u16 i"
    appended(machine, FILE, f"bar {kinds}")
    machine.write(f"{TRACING}/events/synthetic/bar/enable", "1")
    synthetic = machine.subsystems.tracing.tracing.synthetic
    synthetic.emit("bar", [1 << 63, "b" * 20, "text", -1, 0xCC0, -1, -2, "", "ab"])
    shown = f"bar: a={1 << 63} b={'b' * 15} c=text d=-1 f=cc0 g=255 event=65534 text= i={0x6261}\n"
    assert machine.read(f"{TRACING}/trace").endswith(shown)
    machine.write(f"{TRACING}/events/synthetic/bar/filter", "event == 1 || d == -1")
    synthetic.emit("bar", [2, 5, "", 7, 0, 0, 1, "", 0])
    assert "a=2 b=(fault) c= d=7" in machine.read(f"{TRACING}/trace")


def test_new_events_come_first(machine: Machine) -> None:
    appended(machine, FILE, "zed int a\nabc int a\n")
    assert machine.read(f"{TRACING}/available_events").startswith("synthetic:abc\nsynthetic:zed\n")
    machine.write(f"{TRACING}/events/synthetic/enable", "1")
    machine.write(f"{TRACING}/events/kvm/kvm_pio/enable", "1")
    events = ["synthetic:abc", "synthetic:zed", "kvm:kvm_pio"]
    assert machine.read(f"{TRACING}/set_event").split() == events
    assert [line.split()[0] for line in machine.read(FILE).splitlines()] == ["zed", "abc"]


def test_the_language_of_dynamic_events(machine: Machine) -> None:
    appended(machine, DYNAMIC, "s:synthetic/one int a\ns:two int b; char c[]")
    assert machine.read(DYNAMIC) == "s:synthetic/one\tint a\ns:synthetic/two\tint b; char[] c\n"
    for text, errno in (
        ("p:probe schedule", EINVAL),
        ("-:", EINVAL),
        ("-one", EINVAL),
        ("-x:one", EINVAL),
        ("-:nosuch", ENOENT),
        ("-:kvm/one", ENOENT),
        ("s:one int a", EEXIST),
    ):
        refused(machine, errno, text, DYNAMIC)
    machine.write(f"{TRACING}/error_log", "")
    for text, message in (
        ("s:junk/myevent char str[", DYNAMIC_COMMAND),
        ("s:lonely", COMMAND),
        ("s:lonely int", COMMAND),
    ):
        refused(machine, EINVAL, text, DYNAMIC)
        assert mistakes(machine)[-1] == [message, 0]
    machine.write(f"{TRACING}/events/synthetic/two/enable", "1")
    refused(machine, EBUSY, "-:synthetic/two", DYNAMIC)
    machine.write(f"{TRACING}/events/synthetic/two/enable", "0")
    appended(machine, DYNAMIC, "-:synthetic/two\n!s:one\n")
    assert machine.read(DYNAMIC) == machine.read(FILE) == ""


def test_numbers_are_used_again_when_all_were_taken(machine: Machine) -> None:
    catalog = machine.subsystems.tracing.tracing.shared.catalog
    appended(machine, FILE, "one int a\ntwo int a\n")
    numbers = [machine.read(f"{TRACING}/events/synthetic/{name}/id") for name in ("one", "two")]
    assert int(numbers[1]) == int(numbers[0]) + 1
    appended(machine, FILE, "!one")
    catalog.next_id = LAST_ID + 1
    appended(machine, FILE, "three int a")
    assert machine.read(f"{TRACING}/events/synthetic/three/id") == numbers[0]
    for number in catalog.defined_ids:
        catalog.by_id.setdefault(number, catalog.print)
    refused(machine, ENODEV, "four int a")
    refused(machine, ENODEV, "s:four int a", DYNAMIC)


def test_the_tracer_of_block_devices(machine: Machine) -> None:
    machine.fs.mkdir(machine.fs.resolve(f"{TRACING}/instances"), "a")
    assert machine.read(f"{TRACING}/available_tracers") == "blk nop\n"
    assert machine.read(f"{TRACING}/instances/a/available_tracers") == "nop\n"
    machine.write(f"{TRACING}/trace_marker", "x")
    machine.write(f"{TRACING}/current_tracer", "nop")
    assert "tracing_mark_write: x" in machine.read(f"{TRACING}/trace")
    machine.write(f"{TRACING}/current_tracer", "blk\n")
    assert machine.read(f"{TRACING}/current_tracer") == "blk\n"
    assert machine.read(f"{TRACING}/trace") == "# tracer: blk\n#\n"
    assert "# tracer: blk\n#\n#\n# * Snapshot" in machine.read(f"{TRACING}/snapshot")
    options = machine.read(f"{TRACING}/trace_options").split()
    assert options[-3:] == ["noblk_classic", "noblk_cgroup", "noblk_cgname"]
    machine.write(f"{TRACING}/trace_options", "blk_classic")
    assert machine.read(f"{TRACING}/trace").startswith("# tracer: blk\n#\n# DEV   CPU TIMESTAMP")
    assert machine.read(f"{TRACING}/options/context-info") == "0\n"
    machine.write(f"{TRACING}/options/blk_classic", "0")
    assert machine.read(f"{TRACING}/options/context-info") == "1\n"
    machine.write(f"{TRACING}/current_tracer", "nop")
    with pytest.raises(KernelError) as refusal:
        machine.write(f"{TRACING}/trace_options", "blk_classic")
    assert refusal.value.errno == EINVAL
    for path in (TRACING, f"{TRACING}/instances/a"):
        with pytest.raises(KernelError) as refusal:
            machine.write(f"{path}/current_tracer", "function" if path == TRACING else "blk")
        assert refusal.value.errno == EINVAL
    assert "blk_classic" not in machine.listdir(f"{TRACING}/instances/a/options")
