"""Each counter equals the number of its event lines, in replays of the recordings of hosts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.files.test_kvm_exits import counted
from tests.long import LONG
from tests.replay_kvm.hosts import MODES, host, scenarios
from tests.replay_kvm.machines import Recorder
from tests.replay_kvm.normal import Normal
from tests.replay_kvm.recordings import ORACLE, load
from tests.replay_kvm.replay import Replay

EVERY = 1 if LONG else 12


def is_cleared(scenario: dict[str, Any]) -> bool:
    """Whether somewhere counters are cleared, whose lines stay."""
    return any("clear_stat" in step.values() for step in scenario["steps"])


CASES = [
    (mode, name)
    for mode in MODES
    for number, (name, scenario) in enumerate(scenarios(mode).items())
    if number % EVERY == 0 and not is_cleared(scenario)
]


class Lines:
    """The lines of the VM that there is, which a replay takes step by step."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.all: list[str] = []

    def take(self) -> list[str]:
        """Lines since the last call."""
        lines = self._recorder.take()
        self.all += lines
        return lines

    def untake(self, lines: list[str]) -> None:
        """Put lines back."""
        for line in lines:
            self.all.remove(line)
        self._recorder.untake(lines)


class Counting(Replay):
    """Compares counters and lines before a VM goes."""

    compared = 0

    def _op_destroy_vm(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        self.compare()
        return super()._op_destroy_vm(args, step)

    def compare(self) -> None:
        """Compare those of the VM that there is."""
        lines = self._events
        assert isinstance(lines, Lines)
        lines.take()
        directory = f"sys/kernel/debug/kvm/{self._directory}"
        expected = counted(lines.all)
        found = {name: int(self._files.read(f"{directory}/{name}")) for name in expected}
        assert found == expected
        lines.all.clear()
        self.compared += 1


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_counters_are_the_lines_of_each_recording(mode: str, name: str) -> None:
    with host(mode) as (files, events):
        lines = Lines(events)
        replay = Counting(files, lines, load(ORACLE).aliases, Normal(hosts=True, full=True))
        replay.run(scenarios(mode)[name])
        assert replay.compared
