"""`fakesys top`: what a frame says, in every size, of a machine in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from fakesys.machine.machine import Machine
from fakesys.top.frame import counters_of, lines_of
from fakesys.top.owners import KINDS, owners
from fakesys.top.rates import Rates
from fakesys.view import reading
from fakesys.view.store import Store
from fakesys.view.watching import LONGEST, Source

UUID = "10000000-0000-4000-8000-000000000001"
MATRIX = f"sys/devices/vfio_ap/matrix/{UUID}"
AP = "sys/kernel/debug/fakesys/ap"
HOSTILE = "[red]a[/red] \\x1b[2J"
VM: dict[str, Any] = {
    "apicv": "inhibited",
    "reasons": [["IRQWIN", "waiting for an interrupt window"]],
    "vcpus": [["vcpu0", "guest", "0"], ["vcpu1", "halted", "0"], ["vcpu2", "out", "0"]],
    "counters": {"exits": 30},
    "mmu": {"n_used": "7"},
}


def ap_values(machine: Machine, folder: Path) -> dict[str, Any]:
    """The AP part as it is read from a mount of this machine."""
    (folder / AP).mkdir(parents=True, exist_ok=True)
    (folder / AP / "state").write_text(json.dumps(machine.state()["ap"]))
    return reading.ap(folder)


def frame(store: Store, *, width: int = 80, height: int | None = 24, **more: Any) -> list[str]:
    """The lines of a frame as text; they fit."""
    lines = lines_of(
        store.present(), more.pop("rates", Rates(1.0)), width=width, height=height, **more
    )
    assert height is None or len(lines) <= height
    assert all(cell_len(line.plain) <= width for line in lines)
    return [line.plain.rstrip() for line in lines]


def test_owners_are_those_of_each_queue(tmp_path: Path) -> None:
    machine = Machine()
    machine.write("sys/bus/ap/aqmask", "-4,-0x47\n")
    create = "sys/devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create"
    machine.write(create, UUID)
    for name, number in (("adapter", "4"), ("adapter", "5"), ("domain", "4")):
        machine.write(f"{MATRIX}/assign_{name}", number)
    machine.write(f"{AP}/new_guest", "g\n")
    machine.write("sys/bus/ap/drivers/cex4queue/unbind", "06.00ab\n")

    def found(apid: str) -> tuple[int, ...]:
        counts = owners(ap_values(machine, tmp_path))[apid]
        assert tuple(counts) == tuple(reversed(KINDS))
        return tuple(counts[kind] for kind in KINDS)

    # unbound, host, free, mdev, guest, deconfigured, checkstopped
    assert found("05") == (0, 2, 1, 1, 0, 0, 0)
    assert found("06") == (1, 1, 2, 0, 0, 0, 0)
    machine.write(f"{AP}/guests/g/attach", UUID)
    assert found("05") == (0, 2, 1, 0, 1, 0, 0)
    machine.write(f"{AP}/cards/06/checkstop", "1")
    machine.clock.advance(120)
    assert found("06") == (0, 0, 0, 0, 0, 0, 4)
    values = ap_values(machine, tmp_path)
    values["ap/card/05"]["config"] = False
    assert owners(values)["05"]["deconf"] == 4


def test_rates_are_gains_per_second_of_the_window() -> None:
    rates = Rates(1.0)
    assert rates.of("exits") is None
    for at, count in ((0.0, 100), (0.5, 100), (1.0, 110), (1.5, 130), (1.5, 900)):
        rates.note(at, {"exits": count})
    assert rates.seconds == 1.0
    assert rates.of("exits") == 30.0
    rates.note(2.5, {"new": 4})
    assert rates.of("exits") is None, "another VM of this name"
    assert rates.of("new") == 4.0, "a reading leaves out what is 0"


def full_store() -> Store:
    """More of everything than fits a small terminal."""
    store = Store()
    store.replace("mount/", {"mount/point": "/mnt", "mount/bugs": "2", "mount/profile": "seed"})
    store.replace(
        "kvm/",
        {f"kvm/vm/guest{number}": VM for number in range(12)}
        | {"kvm/counters": {f"counter_{number}": number for number in range(1, 31)}},
    )
    store.append("writes", [["1.000", "ok", "sys/a", "1", ""]] * 3)
    store.append("writes", [["2.000", "EBUSY", "sys/b", HOSTILE, "it is in use"]] * 9)
    return store


def test_a_frame_says_what_happens() -> None:
    store, rates = full_store(), Rates(1.0)
    rates.note(0.0, {"all/counter_3": 1, "vm/guest0/exits": 10})
    rates.note(2.0, counters_of(store.present().values))
    lines = frame(store, height=None, width=400, rates=rates)
    assert lines[0].endswith("internal errors: 2")
    vm = next(line for line in lines if line.startswith("guest0 "))
    assert vm.split()[:8] == ["guest0", "10.0", "3", "1", "1", "1", "inhibited", "7"]
    assert vm.endswith("IRQWIN: waiting for an interrupt window")
    counters = lines[lines.index("counter           per second       total") + 1 :]
    assert counters[0].split() == ["counter_30", "15.0", "30"]
    assert counters[-1].split() == [
        "2.000",
        "EBUSY",
        "sys/b",
        *repr(HOSTILE).split(),
        *("it", "is", "in", "use"),
    ]
    assert "no adapter" in lines
    assert not any("sys/a" in line for line in lines)


def test_the_last_refusal_before_the_start_is_shown() -> None:
    store = Store()
    assert frame(store)[-1] == "none"
    store.replace("mount/", {"mount/last_error": "1.5 sys/bus/ap/aqmask EINVAL no mask"})
    assert frame(store)[-1] == "1.5 sys/bus/ap/aqmask EINVAL no mask"


@pytest.mark.parametrize("height", [1, 2, 3, 5, 9, 13, 24, 60])
@pytest.mark.parametrize("width", [1, 20, 40, 79, 80, 200])
def test_a_frame_fits(width: int, height: int) -> None:
    lines = frame(full_store(), width=width, height=height, trouble="The daemon does not answer.")
    if height < 60:
        assert len(lines) >= height - 1, "no room is left while something is not said"
    if (width, height) == (80, 24):
        heads = ("VM ", "counter ", "card ", "refused ")
        assert all(any(line.startswith(head) for line in lines) for head in heads)
        # 12 VMs, 30 counters and 9 refusals in three equal parts.
        assert [line for line in lines if line.startswith("and ")] == [
            "and 7 more",
            "and 25 more",
            "and 5 more",
        ]


def test_columns_of_a_large_machine_fit_80_characters(tmp_path: Path) -> None:
    store = Store()
    store.replace("ap/", ap_values(Machine(scenario="full"), tmp_path))
    lines = frame(store)
    assert lines[6].split() == ["all", "65536", "-", "65536", *["-"] * 5]
    assert lines[5].endswith("chkstop")


def test_what_a_stopped_daemon_held_up_is_read_again_soon(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [0.0]
    monkeypatch.setattr("fakesys.view.watching.time.monotonic", lambda: now[0])

    def read(_root: Path) -> dict[str, Any]:
        now[0] += 60.0
        return {}

    source = Source("mount/", 1.0, read)
    source.read(tmp_path, Store())
    assert source.due == 60.0 + LONGEST
