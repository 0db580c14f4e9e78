"""AP part, settings, journals and steps of a snapshot: what no machine has is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.machine.timeline import Timeline, log
from tests.saved.files import sealed
from tests.whole_machine import (
    AP,
    CONTROL,
    CREATE,
    MATRIX,
    U1,
    U2,
    attempt,
    differences,
    everything,
)

GUESTS = f"{CONTROL}/ap/guests"
SCENARIO = "vfio-ap-three-guests"


def machine_with_guests() -> Machine:
    """Two mediated devices, one of them with a guest, and queues of the host."""
    machine = Machine("6.1", SCENARIO, selftest=True)
    Timeline(machine, log).schedule()
    for path, text in (
        (f"{AP}/apmask", "-5\n"),
        (CREATE, f"{U1}\n"),
        (CREATE, f"{U2}\n"),
        (f"{MATRIX}/{U1}/assign_adapter", "5\n"),
        (f"{MATRIX}/{U1}/assign_domain", "4\n"),
        (f"{CONTROL}/ap/new_guest", "one\n"),
        (f"{CONTROL}/ap/new_guest", "two ap=0\n"),
        (f"{GUESTS}/one/attach", f"{U1}\n"),
        (f"{CONTROL}/ap/queues/06.0004/rc", "5\n"),
        (f"{CONTROL}/ap/queues/06.0004/submit", "3\n"),
        (f"{CONTROL}/faults/queue_reset", "05.0004 3\n"),
        (f"{CONTROL}/faults/sclp_configure", "05 EIO\n"),
        (f"{CONTROL}/faults/store", "*/assign_adapter EIO after=2 times=1\n"),
        (f"{CONTROL}/faults/delay", "nothing 2.5\n"),
        ("sys/bus/mdev/drivers/vfio_ap_mdev/unbind", f"{U2}\n"),
        (f"{AP}/devices/card05/online", "0\n"),
    ):
        assert attempt(machine, path, text) == "ok", (path, text)
    return machine


@cache
def document() -> str:
    return machine_with_guests().save().decode()


def test_all_of_it_is_the_same_after_a_load() -> None:
    machine, copy = machine_with_guests(), Machine("seed", "empty")
    copy.load(machine.save())
    assert differences(machine, copy) == []
    for path, text in ((f"{CONTROL}/clock/advance", "60\n"), (f"{GUESTS}/one/detach", "1\n")):
        assert attempt(machine, path, text) == attempt(copy, path, text)
    assert differences(machine, copy) == []


Change = Callable[[dict[str, Any]], object]


def ap(found: dict[str, Any]) -> Any:
    return found["models"]["ap"]


def _hardware(name: str, value: object) -> Change:
    return lambda found: ap(found)["hardware"].update({name: value})


def _bus(name: str, value: object) -> Change:
    return lambda found: ap(found)["bus"].update({name: value})


def _card(name: str, value: object) -> Change:
    return lambda found: ap(found)["bus"]["cards"][1].update({name: value})


def _mdev(number: int, name: str, value: object) -> Change:
    return lambda found: ap(found)["mdev"]["devices"][number].update({name: value})


def _matrix(name: str, value: object) -> Change:
    return lambda found: ap(found)["vfio_ap"]["mdevs"][0].update({name: value})


def _vfio(name: str, value: object) -> Change:
    return lambda found: ap(found)["vfio_ap"].update({name: value})


def _fault(name: str, value: object) -> Change:
    return lambda found: found["control"]["store"][0].update({name: value})


def _twice(*path: str) -> Change:
    """The first item of a list occurs once more."""

    def change(found: Any) -> None:
        for name in path:
            found = found[name]
        found.append(found[0])

    return change


def _steps(change: Callable[[list[Any]], object]) -> Change:
    return lambda found: change(found["timeline"]["writes"])


ALL = "f" * 64
HARDWARE, BUS, VFIO = (("models", "ap", name) for name in ("hardware", "bus", "vfio_ap"))

WRONG: tuple[tuple[Change, str], ...] = (
    (_hardware("max_adapter_id", 5), "card 06 is above the highest adapter ID"),
    (_hardware("reset_answers", [[5, 4, 9]]), "no such answer of a queue"),
    (_hardware("reset_answers", [[5, 4, 3], [5, 4, 2]]), "an answer to a reset occurs twice"),
    (_hardware("configure_errors", [[5, 5], [5, 5]]), "an error of SCLP occurs twice"),
    (_twice(*HARDWARE, "cards"), "an installed card occurs twice"),
    (_twice(*BUS, "cards"), "a card occurs twice"),
    (_bus("scans", 0), "the bus was never scanned"),
    (_bus("apmask", ALL), "not its own"),
    (_bus("drivers", []), "the queue drivers are"),
    (_bus("timer", {"due_ns": 5, "sequence": 1 << 40}), "is of the future"),
    (_card("offline", "1"), "no queue that is offline"),
    (_card("queues", "0"), "counts for an absent queue"),
    (_bus("order", []), "has a queue that is not registered"),
    (_bus("card_driver", [4, 9]), "card 09 is not there"),
    (_mdev(0, "stage", "removing"), "has come in half"),
    (_card("requests", 1 << 130), "the count of requests of card 05 is"),
    (_card("waiting", [[0, 1]]), "counts for an absent queue"),
    (_mdev(0, "uuid", "x"), "'x' is no UUID of a device"),
    (_mdev(0, "uuid", U1.upper().replace("1", "A")), "is no UUID"),
    (_mdev(0, "type", "vfio_ap"), "is of a type that nothing offers"),
    (_mdev(0, "group", 9), "a number that was not given out yet"),
    (_mdev(0, "group", -1), "is bound in half"),
    (_twice("models", "ap", "mdev", "devices"), "a mediated device occurs twice"),
    (_matrix("max_apid", 4), f"{U1} has an ID above its maximum"),
    (_matrix("matrix", ["40", "10", "0"]), "has queues of the host"),
    (_matrix("guest_masks", ["20", ALL, "0"]), "what is not assigned"),
    (_matrix("interrupts", [[5, 5, 1]]), "interrupts of a queue without guest"),
    (_matrix("uuid", U2), "the matrices are not those of the bound devices"),
    (_vfio("attached", []), "attached without a guest, or not at all"),
    (_vfio("attached", [U1, U1]), "an attached device occurs twice"),
    (_vfio("autoprobe", None), "the queue drivers are cex4queue"),
    (_vfio("guests", [{"name": "..", "ap": True, "mdev": None}]), "is no name of a guest"),
    (_vfio("guests", [{"name": "a", "ap": True, "mdev": U2}]), "a device that is not there"),
    (_twice(*VFIO, "guests"), "there are two guests"),
    (_fault("errno", 511), "511 is no errno"),
    (_fault("times", 1 << 64), "the end of a fault is"),
    (lambda found: found["control"].update(seed=1 << 64), "the seed is"),
    (lambda found: found["log"].update(last=0), "more lines than were logged"),
    (lambda found: found["uevents"].update(last=3), "more uevents than were sent"),
    (lambda found: found["origin"].update(profile="9.9"), "'9.9' is no profile"),
    (lambda found: found["origin"]["scenario"].update(name="a\nb"), "is no name"),
    (lambda found: found["origin"]["scenario"]["ap"].update(preset="x"), "'x' is none of"),
    (lambda found: found["models"]["kernels"].update(mmu="9.9"), "'9.9' is none of"),
    (lambda found: found["models"]["kernel"]["random"].update(words=[0] * 624), "is at rest"),
    (_steps(lambda steps: steps[0].__setitem__(0, 99)), "a step that is not in the scenario"),
    (_steps(lambda steps: steps.append([steps[0][0], steps[1][1]])), "a step of the scenario"),
    (_steps(lambda steps: steps[0].__setitem__(1, steps[1][1])), "there are two timers"),
)


@pytest.mark.parametrize(("change", "why"), WRONG, ids=[why[:40] for _, why in WRONG])
def test_what_no_machine_has_is_refused(change: Change, why: str) -> None:
    found = json.loads(document())
    change(found)
    machine = Machine("6.18", "default")
    before = machine.save()
    with pytest.raises(KernelError) as refusal:
        machine.load(sealed(found))
    assert (refusal.value.name, machine.save()) == ("EINVAL", before)
    assert why in refusal.value.why


def rows(found: dict[str, Any]) -> Any:
    """The first row of uevents of queues; a small batch is saved as its uevents."""
    batch = next(kept for kept in found["uevents"]["kept"] if kept["type"] == "queues")
    return batch["rows"][0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda row: row["steps"].append(row["steps"][0]), "a queue is in two steps of a row"),
        (
            lambda row: (
                [step.update(actions=step["actions"][:1]) for step in row["steps"]]
                and row.update(complete="1")
            ),
            "the bindings are complete without a binding",
        ),
        (lambda row: row["steps"][0].update(actions=[]), "Expected `array` of length >= 1"),
    ],
)
def test_uevents_of_queues_that_nothing_sends_are_refused(change: Change, why: str) -> None:
    found = json.loads(Machine("seed", "full").save())
    change(rows(found))
    with pytest.raises(KernelError) as refusal:
        Machine("6.18", "default").load(sealed(found))
    assert why in refusal.value.why


def test_names_that_are_no_utf8_are_saved() -> None:
    machine = Machine("6.1", "default")
    attempt(machine, "sys/kernel/tracing/instances/mkdir", "b\udce9r")
    attempt(machine, "sys/kernel/tracing/instances/b\udce9r/events/enable", "x\n")
    assert "/b\xe9r/events/enable EINVAL" in machine.read(f"{CONTROL}/last_error")
    copy = Machine("6.1", "empty")
    copy.load(machine.save())
    assert differences(machine, copy) == []


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_what_cards_have_told_is_kept(kernel: str) -> None:
    """Reading the files of cards fills the caches of the drivers."""
    machine = Machine(kernel, "default")
    assert any(path.endswith("mkvps") for path in everything(machine, "sys/devices/ap"))
    copy = Machine("seed", "empty")
    copy.load(machine.save())
    assert differences(machine, copy) == []
