"""What is known of programs that others wrote; `fakesys doc sweep` tells it."""

from __future__ import annotations

import pytest

from fakesys.machine.machine import Machine
from fakesys.machine.scenario import load, with_boot
from fakesys.sweep.plan import Choice
from tests.sweep.helpers import swept, verdicts
from tests.tools import s390
from tests.tools.helpers import needs
from tests.tools.kept import Unavailable, kept

UUID = "11111111-2222-4333-8444-555555555555"
MASK = "0xfb" + 62 * "f"
START = f"""
mdevctl define --uuid {UUID} --parent matrix --type vfio_ap-passthrough
mdevctl modify --uuid {UUID} --addattr=assign_adapter --value=5
mdevctl modify --uuid {UUID} --addattr=assign_domain --value=4
mdevctl start --uuid {UUID}
"""


pytestmark = pytest.mark.usefixtures("world")


def test_chzdev_does_not_look_at_the_result_of_its_write() -> None:
    try:
        with kept("s390x-programs") as folder:
            command = s390.command(s390.unpacked(folder), "chzdev")
    except Unavailable as error:
        pytest.skip(str(error))
    only = Choice(only=("write",), faults=("EBUSY",))
    report = swept(*command, "-t", "ap", "apmask=-5", "-a", choice=only)
    assert list(verdicts(report).values()) == ["silent"]
    assert "ap device type configured" in report.judged[0].output


@needs("mdevctl")
def test_mdevctl_takes_back_what_is_refused_but_not_what_was_cut_off() -> None:
    machine = Machine(scenario=with_boot(load("default"), f"ap.apmask={MASK}"))
    only = Choice(only=("write",), faults=("ENODEV", "kill-after"))
    names = ("6:ENODEV", "6:kill-after")
    report = swept("sh", "-c", START, choice=only, names=names, machine=machine)
    assert verdicts(report) == {"6:ENODEV": "ok", "6:kill-after": "unrecoverable"}
    assert "Device already exists" in report.judged[1].output
