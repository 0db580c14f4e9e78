"""`fakesys explore`: every order, what must hold in each, and the shortest way to what does not."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from msgspec.structs import replace

from fakesys.explore import copies, search, watch
from fakesys.explore.invariants import INVARIANTS
from fakesys.explore.search import Progress, Search, explore
from fakesys.explore.task import Levels, TaskError, shipped, task_of
from fakesys.machine.machine import Machine
from fakesys.machine.playback.replay import InMemory, done
from fakesys.machine.scenario import load
from fakesys.subsystems.ap_control import saved as ap
from fakesys.subsystems.kvm.events.run import KvmEntry
from fakesys.subsystems.vfio_ap.policy import Masks
from tests.cli.test_offline import fakesys
from tests.long import LONG

AP = "sys/kernel/debug/fakesys/ap"
CTL = "sys/kernel/debug/fakesys/kvm/ctl"

MASKS = """
[machine]
profile = "6.1"
[machine.ap]
domains = [4, 0x47]
[[machine.ap.card]]
id = 5
type = "CEX5C"

[[actor]]
name = "one"
steps = [{ write = "sys/bus/ap/apmask", text = "-5" }, { write = "sys/bus/ap/apmask", text = "+5" }]
[[actor]]
name = "two"
steps = [{ write = "sys/bus/ap/apmask", text = "-5" }, { write = "sys/bus/ap/nonsense" }]
"""


def file_of(tmp_path: Path, text: str) -> str:
    path = tmp_path / "task.toml"
    path.write_text(text)
    return str(path)


def must(file: str, text: str, when: str = "end") -> str:
    return f'[[must]]\nfile = "{file}"\ntext = "{text}"\nwhen = "{when}"\n'


def test_the_examples_are_listed() -> None:
    result = fakesys("explore")
    assert result.returncode == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == shipped()


def test_masks_break_5_3_and_a_script_leads_there(tmp_path: Path) -> None:
    script = tmp_path / "way.sh"
    words = ("mask-assign-unplug", "--profile", "seed", "--ap-profile", "5.3")
    result = fakesys("explore", *words, "--script", str(script))
    assert result.returncode == 1
    assert "violated after 4 steps: guest1 has queue 05.0004" in result.stderr
    assert fakesys("replay", str(script)).returncode == 0
    # The script tells its machine to a mount, too.
    assert "fakesys mount --scenario ./THIS-FILE --profile seed" in script.read_text()
    assert load(script) == task_of("mask-assign-unplug", "seed", Levels(ap="5.3")).machine
    # The same without the file, and the same bytes.
    assert fakesys("explore", *words).stdout == script.read_text()


@pytest.mark.parametrize("profile", ["6.1", "6.12"] if LONG else ["6.1"])
def test_masks_hold_in_all_orders(profile: str) -> None:
    outcome = explore(task_of("mask-assign-unplug", profile))
    assert outcome.violation is None
    assert outcome.complete
    assert outcome.decided == outcome.orders > 1_000_000
    # Some hundred states, as each step is done once in each of them.
    assert outcome.progress.states < 5_000


@pytest.mark.skipif(not LONG, reason="takes five seconds")
def test_the_whole_series_holds() -> None:
    outcome = explore(task_of("mask-assign-unplug", "seed", Levels(ap="v6-10")))
    assert (outcome.violation, outcome.complete) == (None, True)


def test_unloading_holds_while_a_guest_comes_and_goes() -> None:
    result = fakesys("explore", "unload-open-mdev")
    assert (result.returncode, result.stdout) == (0, "holds\n")
    assert "30 of 30 orders" in result.stderr


def test_the_window_of_one_vcpu_ends_that_of_another_in_v3_only(tmp_path: Path) -> None:
    """Hazard H1."""
    script = tmp_path / "way.sh"
    words = ("two-extint-windows", "--apicv-profile", "v3", "--script", str(script))
    result = fakesys("explore", *words)
    assert result.returncode == 1
    assert "waits for an interrupt window with AVIC on" in result.stderr
    assert fakesys("replay", str(script)).returncode == 0
    if LONG:
        assert fakesys("explore", "two-extint-windows").returncode == 0


@pytest.mark.skipif(not LONG, reason="takes ten seconds")
def test_the_fast_zap_holds() -> None:
    assert fakesys("explore", "fast-zap-faults").returncode == 0


def ends_of_all_orders(name: str) -> set[str]:
    """The masks at the end of each order, each on a machine of its own."""
    task = task_of(name)
    turns = [actor for actor, steps in enumerate(task.steps) for _ in steps]
    found = set()
    for order in set(permutations(turns)):
        machine = Machine(None, task.machine)
        left = [list(steps) for steps in task.steps]
        for actor in order:
            done(left[actor].pop(0), InMemory(machine))
        found.add(machine.read("sys/bus/ap/apmask"))
    return found


def test_the_ends_are_those_of_all_orders(tmp_path: Path) -> None:
    name = file_of(tmp_path, MASKS)
    # With a copy of each state, and with all but the first made again by their steps.
    for kept, unpacked in ((search.COPIES, search.UNPACKED), (search.COPIES, 1), (1, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(search, "COPIES", kept)
            patch.setattr(search, "UNPACKED", unpacked)
            patch.setattr(copies, "SHARED", kept)
            walked = Search(task_of(name))
            walked.run(None, lambda _: None)
            found = set()
            for state in walked._seen:
                if state >> search._MACHINES == walked._end:
                    walked.world._go_to(state & (1 << search._MACHINES) - 1)
                    walked.world.present = -1
                    found.add(walked.world.machine.read("sys/bus/ap/apmask"))
        assert found == ends_of_all_orders(name)
        assert len(found) == 2


def test_what_must_hold_at_the_end(tmp_path: Path) -> None:
    mask = Machine("6.1").read("sys/bus/ap/apmask").strip()
    name = file_of(tmp_path, MASKS + must("sys/bus/ap/apmask", mask))
    result = fakesys("explore", name)
    assert result.returncode == 1
    # The shortest way to an end has all four steps.
    assert "violated after 4 steps: sys/bus/ap/apmask: '0xfb" in result.stderr
    assert "put ENOENT sys/bus/ap/nonsense '\\n'" in result.stdout
    name = file_of(tmp_path, MASKS + must("sys/bus/ap/apmask", mask, "always"))
    assert "violated after 1 steps" in fakesys("explore", name).stderr


QUEUE = f"""
[machine]
profile = "6.1"
[machine.ap]
domains = [4]
[[machine.ap.card]]
id = 5
type = "CEX5C"
[[actor]]
name = "mask"
steps = [
    {{ write = "sys/bus/ap/apmask", text = "-5" }},
    {{ write = "sys/bus/ap/apmask", text = "+5" }},
]
[[actor]]
name = "unplug"
steps = [{{ write = "{AP}/del_card", text = "5" }}]
[[actor]]
name = "queue"
steps = [{{ write = "{AP}/queues/05.0004/rc", text = "0" }}]
"""


def test_the_results_are_those_of_each_order(tmp_path: Path) -> None:
    task = task_of(file_of(tmp_path, QUEUE))
    walked = Search(task)
    walked.run(None, lambda _: None)
    found = set()
    for order in set(permutations((0, 0, 1, 2))):
        machine, left = Machine(None, task.machine), [list(steps) for steps in task.steps]
        state = walked._state(0, walked.world.root)
        for actor in order:
            step = left[actor].pop(0)
            place, number = state >> search._MACHINES, state & (1 << search._MACHINES) - 1
            state, edge = walked._go(place, number, actor, step)
            assert edge.result == done(step, InMemory(machine)), (order, step)
            found.add(edge.result)
    assert found == {"ok", "ENODEV", "ENOENT"}


def test_of_the_resets_of_a_queue_only_the_first_matters() -> None:
    """Its control files stay when the card goes, so a step can tell whether there was one."""
    machine = Machine("6.1")
    saved = ap.save(machine.subsystems.ap.system)

    def essence(*planes: str) -> object:
        hardware = replace(saved.hardware, resets=((5, planes),))
        return copies._essence(replace(saved, hardware=hardware))

    assert essence("10") == essence("10", "10") != essence("0")


def test_chance_is_part_of_a_state() -> None:
    """No write to the AP part draws a number, so the generator is used by hand."""
    machine = Machine("6.1")
    kept = copies.Copies(machine)
    first, digest = kept.take("", ())
    assert kept.take("", ())[1] == digest
    drawn = []
    for _ in range(2):
        drawn.append((machine.kernel.random.randrange(1000), machine.kernel.random.random()))
        after, other = kept.take("", ())
        assert other != digest
        kept.restore(first)
        assert kept.take("", ())[1] == digest
    assert drawn[0] == drawn[1]
    kept.restore(after)
    assert kept.take("", ())[1] == other


def test_an_error_must_be(tmp_path: Path) -> None:
    refused = '[[must]]\nfile = "sys/bus/ap/nonsense"\nerror = "ENOENT"\nwhen = "always"\n'
    assert fakesys("explore", file_of(tmp_path, MASKS + refused)).returncode == 0
    other = refused.replace("ENOENT", "EBUSY")
    result = fakesys("explore", file_of(tmp_path, MASKS + other))
    assert "violated after 0 steps: sys/bus/ap/nonsense: ENOENT, not EBUSY" in result.stderr


def test_what_holds_is_not_said_before_all_was_tried(tmp_path: Path) -> None:
    result = fakesys("explore", file_of(tmp_path, MASKS), "--limit", "3")
    assert (result.returncode, result.stdout[:9]) == (3, "undecided")

    def interrupt(progress: Progress) -> None:
        if progress.states > 3:
            raise KeyboardInterrupt

    outcome = explore(task_of(file_of(tmp_path, MASKS)), progress=interrupt)
    assert (outcome.complete, outcome.violation) == (False, None)
    assert outcome.progress.states > 3


def test_an_actor_can_be_a_recording(tmp_path: Path) -> None:
    result = fakesys("explore", "mask-assign-unplug", "--profile", "seed", "--ap-profile", "5.3")
    (tmp_path / "way.sh").write_text(result.stdout)
    name = file_of(tmp_path, '[[actor]]\nname = "all"\nreplay = "way.sh"\n')
    task = task_of(name)
    assert len(task.steps[0]) == 8
    outcome = explore(task)
    assert outcome.violation is not None
    assert outcome.violation.wrong[0].startswith("guest1 has queue 05.0004")


def test_time_and_faults_are_part_of_a_state(tmp_path: Path) -> None:
    text = """
[[actor]]
name = "clock"
steps = [{ advance = 31 }]
[[actor]]
name = "fault"
steps = [
    { write = "sys/kernel/debug/fakesys/faults/store", text = "sys/bus/ap/apmask EIO" },
    { write = "sys/kernel/debug/fakesys/faults/store", text = "" },
]
[[actor]]
name = "mask"
steps = [{ write = "sys/bus/ap/apmask", text = "-5" }]
"""
    outcome = explore(task_of(file_of(tmp_path, text)))
    assert outcome.complete
    task = task_of(file_of(tmp_path, text + must("sys/bus/ap/apmask", "never")))
    outcome = explore(task)
    assert outcome.violation is not None
    assert "advance 31.000000000" in outcome.violation.script


def test_a_counter_that_tells_nothing_is_found(tmp_path: Path) -> None:
    steps = f'[[actor]]\nname = "a"\nsteps = [{{ write = "{CTL}", text = "g vcpu 0 exit hlt" }}]\n'
    before = "".join(
        f'[[before]]\nwrite = "{CTL}"\ntext = "{text}"\n' for text in ("vm create g", "g vcpu add")
    )
    name = file_of(tmp_path, before + steps)
    assert explore(task_of(name)).violation is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(watch.TOLD, "exits", KvmEntry)
        violation = explore(task_of(name)).violation
    assert violation is not None
    assert violation.wrong[0].startswith("the counter exits rose by 1, with 0 events kvm_entry")


BAD = (
    ("", "key : missing key actor"),
    ('[[actor]]\nname = "a b"\n', "key actor[0].name"),
    ('[[actor]]\nname = "a"\n', "either `steps` or `replay`"),
    ('[[actor]]\nname = "a"\nsteps = [{}]\n', "either `write` or `advance`"),
    ('[[actor]]\nname = "a"\nsteps = [{ write = "../x" }]\n', "no path below the mount"),
    ('[[actor]]\nname = "a"\nreplay = "nothing.sh"\n', "No such file"),
    (MASKS + must("sys/kernel/debug/fakesys/log", ""), "no state of the machine"),
    (MASKS + '[[must]]\nfile = "sys/bus/ap/apmask"\n', "either `text` or `error`"),
    (MASKS.replace('"two"', '"one"'), "two actors have one name"),
    (MASKS.replace('"6.1"', '"9.9"'), "key profile"),
    (MASKS + '[[machine.at]]\nwrite = "x"\ntext = "y"\n', "use `before`"),
    (MASKS + '[[before]]\nwrite = "sys/bus/ap/nonsense"\n', "before: sys/bus/ap/nonsense"),
    ("[", "not TOML"),
)


@pytest.mark.parametrize(("text", "why"), BAD)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, why: str) -> None:
    result = fakesys("explore", file_of(tmp_path, text))
    assert (result.returncode, result.stdout) == (2, "")
    assert why.removeprefix("key : ") in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_example() -> None:
    assert fakesys("explore", "nonesuch").returncode == 2
    with pytest.raises(TaskError, match="is no example"):
        task_of("nonesuch")


UUID = "10000000-0000-4000-8000-000000000001"
WAITS = f"""
[[before]]
write = "{AP}/remove_policy"
text = "block"
[[before]]
write = "sys/devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create"
text = "{UUID}"
[[before]]
write = "{AP}/new_guest"
text = "guest1"
[[actor]]
name = "guest"
steps = [
    {{ write = "{AP}/guests/guest1/attach", text = "{UUID}" }},
    {{ write = "{AP}/guests/guest1/detach", text = "1" }},
]
[[actor]]
name = "remove"
steps = [{{ write = "sys/devices/vfio_ap/matrix/{UUID}/remove", text = "1" }}]
[[must]]
file = "sys/devices/vfio_ap/matrix/{UUID}/uuid"
error = "ENOENT"
"""


def test_what_waits_is_tried_again(tmp_path: Path) -> None:
    """The removal of an open device ends when the guest closes it."""
    outcome = explore(task_of(file_of(tmp_path, WAITS)))
    assert (outcome.violation, outcome.complete) == (None, True)


DELAYED = """
[[before]]
write = "sys/kernel/debug/fakesys/faults/delay"
text = "sys/bus/ap/apmask 5"
[[actor]]
name = "mask"
steps = [{ write = "sys/bus/ap/apmask", text = "-5" }]
"""


def test_what_waits_for_ever_is_found(tmp_path: Path) -> None:
    """The time of the machine stops, so a delayed write never ends."""
    name = file_of(tmp_path, DELAYED)
    result = fakesys("explore", name)
    assert result.returncode == 1
    assert "mask waits for ever: sys/bus/ap/apmask" in result.stderr
    assert "put EAGAIN sys/bus/ap/apmask" in result.stdout
    name = file_of(tmp_path, 'without = ["waits"]\n' + DELAYED)
    assert fakesys("explore", name).returncode == 0


def test_invariants_tell_what_no_kernel_does() -> None:
    """The models are changed by hand, as no write leads there."""
    machine = Machine("6.1", task_of("mask-assign-unplug").machine)
    machine.write("sys/bus/ap/apmask", "-5")
    matrix = "sys/devices/vfio_ap/matrix"
    for number in (1, 2):
        uuid = f"{number}0000000-0000-4000-8000-000000000000"
        machine.write(f"{matrix}/mdev_supported_types/vfio_ap-passthrough/create", uuid)
        machine.write(f"{AP}/new_guest", f"guest{number}")
        machine.write(f"{AP}/guests/guest{number}/attach", uuid)
    machine.write(f"{matrix}/10000000-0000-4000-8000-000000000000/assign_adapter", "5")
    machine.write(f"{matrix}/10000000-0000-4000-8000-000000000000/assign_domain", "4")
    models = machine.subsystems
    assert [line for check in INVARIANTS.values() for line in check(models)] == []
    one, other = models.ap.system.vfio_ap.mdevs.values()
    other.matrix = one.matrix
    (line,) = INVARIANTS["assigned"](models)
    assert line.startswith("queue 05.0004 is assigned to 10000000-")
    other.guest_masks = one.guest_masks
    (line,) = INVARIANTS["shared"](models)
    assert line == "queue 05.0004 can be used by guest1 and guest2"
    other.matrix = Masks(0, 0, 0)
    lines = list(INVARIANTS["guest_matrix"](models))
    assert [line.split(",")[0] for line in lines] == [
        "guest2 has adapter 05",
        "guest2 has domain 0004",
    ]


def test_a_vcpu_on_an_obsolete_root_is_found() -> None:
    task = task_of("fast-zap-faults")
    machine = Machine(task.machine.profile, task.machine)
    for step in (*task.before, task.steps[0][0]):
        assert done(step, InMemory(machine)) == "ok"
    # The zap is paused in the middle; both vCPUs are asked to load new roots.
    assert list(INVARIANTS["roots"](machine.subsystems)) == []
    for mmu in machine.subsystems.kvm.memory.mmus.values():
        mmu.requests = 0
    lines = list(INVARIANTS["roots"](machine.subsystems))
    assert lines
    assert lines[0].startswith("vCPU 0 of m walks through ")
