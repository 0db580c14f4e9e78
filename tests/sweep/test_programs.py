"""Sweeps of programs: each verdict, each disturbance."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakesys.sweep.cell import end_zygote
from fakesys.sweep.disturbances import Write
from fakesys.sweep.plan import Choice
from fakesys.sweep.search import SweepError
from tests.long import LONG
from tests.sweep.helpers import EXAMPLES, swept, verdicts

MASK = "/sys/bus/ap/apmask"
# Adapter 5 is the host's, or there is a device that may have it.
OWNED = f"grep -q ^0xff {MASK} || ls /sys/bus/mdev/devices | grep -q ."


pytestmark = pytest.mark.usefixtures("world")


def test_the_careless_script_has_a_finding_of_each_verdict() -> None:
    names = ("2:EIO", "4:EIO", "8:EIO", "8:kill-after", "10:EIO", "14:EIO")
    report = swept(
        *("sh", str(EXAMPLES / "careless.sh")),
        names=() if LONG else names,
        seconds=1.0,
        check=("sh", "-c", OWNED),
    )
    found = {one.verdict for one in report.findings}
    assert found == {"silent", "hung", "crashed", "left behind", "unrecoverable", "violated"}


def test_the_shipped_script_is_clean() -> None:
    names = ("4:EIO", "6:kill-after", "8:gone", "8:ENODEV", "10:kill-before")
    script = str(EXAMPLES / "free-adapter.sh")
    report = swept("sh", script, "5", "4", names=() if LONG else names)
    assert report.complete
    assert {one.cell.name: one.why for one in report.findings} == {}
    assert len(report.judged) == (74 if LONG else 5)


def test_a_rival_is_either_before_or_after() -> None:
    # The second write takes for granted what the first read told.
    script = f"[ $(cut -c 3 {MASK}) = f ] && echo -5 > {MASK} && echo -6 > {MASK}"
    rivals = {"rival": (Write("sys/bus/ap/apmask", "-7\n"),)}
    only = Choice(faults=("rival",), rivals=rivals)
    report = swept("sh", "-c", f"{script}; true", choice=only)
    assert set(verdicts(report).values()) == {"ok"}
    if not LONG:
        return
    whole = f"old=$(cat {MASK}); echo -5 > {MASK}; [ -e /nowhere ] || echo $old > {MASK}; exit 1"
    report = swept("sh", "-c", whole, choice=only)
    assert verdicts(report)["3:rival"] == "left behind"


def test_a_late_device_comes_after_its_time() -> None:
    wait = "until [ -e /sys/bus/ap/devices/card05 ]; do sleep 0.05; done"
    path = "/sys/bus/ap/devices/card05/online"
    only = Choice(faults=("late",), only=("open",))
    report = swept("sh", "-c", f"cat {path} || {{ {wait}; cat {path}; }}", choice=only)
    assert verdicts(report) == {"1:late": "ok"}
    assert len(report.judged[0].log) == 3


def test_what_cannot_be_matched_is_skipped(tmp_path: Path) -> None:
    # Each run does something else: the first two are those that nothing disturbs.
    count = tmp_path / "count"
    count.write_text("0\n")
    script = f"read n < {count}; echo $((n + 1)) > {count}; [ $n -gt 1 ] || cat {MASK}"
    report = swept("sh", "-c", script, choice=Choice(faults=("EIO",), only=("read",)))
    assert verdicts(report) == {"1:EIO": "skipped"} or verdicts(report) == {"2:EIO": "skipped"}


def test_children_in_sessions_of_their_own_belong_to_the_program() -> None:
    report = swept("setsid", "-w", "cat", MASK, choice=Choice(faults=("kill-before",)))
    assert [one.cell.operation.process for one in report.judged] == ["cat"] * 2
    assert {one.verdict for one in report.judged} == {"ok"}


def test_programs_that_cannot_be_swept() -> None:
    with pytest.raises(SweepError, match=r"does not end in 0\.3 s"):
        swept("sleep", "5", seconds=0.3)
    with pytest.raises(SweepError, match="the check does not hold"):
        swept("true", check=("false",))


def test_nothing_is_left() -> None:
    swept("sh", "-c", f"sleep 100 & cat {MASK}", choice=Choice(faults=("kill-after",)))
    end_zygote()
    lines = [
        Path(f"/proc/{pid}/cmdline").read_bytes() for pid in os.listdir("/proc") if pid.isdigit()
    ]
    assert not [line for line in lines if b"fakesys.sweep" in line or line == b"sleep\0100\0"]
