"""A recording played on the machine that it was made on."""

from __future__ import annotations

from collections.abc import Iterator

from fakesys.machine.machine import Machine
from fakesys.machine.scenario import load, with_boot
from tests.replay_ap.compare import Difference, same
from tests.replay_ap.player import Player
from tests.replay_ap.recordings import Recording

BOOTS = {"10f": "ap.apmask=-5 ap.aqmask=0x08 ap.domain=7 ap.poll_thread=1"}
# Lists for another machine: what is written to control files of the AP part before them.
SETUPS: dict[str, tuple[tuple[str, str], ...]] = {
    "10a": (("lpar/qci", "0"),),
    "10b": (("lpar/interrupts", "0"),),
    "10c": (("lpar/max_adapter_id", "63"), ("lpar/max_domain_id", "15")),
    "10d": (("lpar/reconfig", "0"),),
    "10e": (("preset", "empty"),),
}


def machine_for(recording: Recording) -> Machine:
    """The machine that a list is made for, with scans by hand only."""
    number = recording.name.partition("-")[0]
    machine = Machine(recording.kernel, with_boot(load("default"), BOOTS.get(number, "")))
    machine.clock.rate = 0
    control = "sys/kernel/debug/fakesys/ap"
    machine.write(f"{control}/autoscan", "0\n")
    for file, text in SETUPS.get(number, ()):
        machine.write(f"{control}/{file}", f"{text}\n")
    return machine


def differences(recording: Recording) -> Iterator[Difference]:
    """The steps that are answered otherwise than recorded."""
    player = Player(machine_for(recording))
    for number, step in enumerate(recording.steps, start=1):
        errno, text = player.play(step.operation)
        if not same(step, errno, text, player.passed):
            yield Difference(number, step, errno, text)
