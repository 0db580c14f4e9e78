"""The steps of a scenario over time: on a mount by the clock, in process as fast as it goes.

A snapshot holds the steps that are still to come of the timeline that was scheduled last; a loaded
machine writes what they tell to the log of its process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Annotated, Protocol

from msgspec import Meta

from fakesys.core.clock import Clock, SavedTimer, Timer
from fakesys.core.errors import KernelError
from fakesys.core.journal import render_uevent
from fakesys.core.saved import U63, Saved, check, check_unique
from fakesys.core.text import one_line
from fakesys.machine.hardware import as_bytes
from fakesys.machine.scenario import At, Expect, Scenario
from fakesys.subsystems.control.model import Control


def log(text: str) -> None:
    """Write a line to the log of the process."""
    logging.getLogger(__name__).info("%s", text)


class Stage(Protocol):
    """The machine that a timeline plays on. `timeline`: the one that was scheduled last."""

    control: Control
    timeline: Timeline | None

    @property
    def clock(self) -> Clock:
        """The simulated time."""

    @property
    def scenario(self) -> Scenario:
        """What the machine was made from."""

    def read(self, path: str) -> str:
        """Return the text of a file. Raises KernelError."""

    def write(self, path: str, text: str) -> int:
        """Write to a file. Raises KernelError."""


class Timeline:
    """The writes and expectations of a scenario; None: of the machine's.

    `tell` hears one line per thing that happens; `failures` lists what was not as expected.
    `writes`, `checks`: the steps on the clock, each with its place in the scenario.
    `uevents_told`, `log_told`: numbers of the last records of the journals that were told.
    """

    def __init__(
        self, machine: Stage, tell: Callable[[str], None], scenario: Scenario | None = None
    ) -> None:
        self.machine = machine
        self.scenario = scenario or machine.scenario
        self.failures: list[str] = []
        self.writes: list[tuple[int, Timer]] = []
        self.checks: list[tuple[int, Timer]] = []
        self.uevents_told = self.log_told = 0
        self._tell = tell

    def schedule(self) -> None:
        """Put every dated step on the machine's clock; at equal times, writes come first."""
        clock = self.machine.clock
        for index, step in enumerate(self.scenario.at):
            self.writes.append((index, clock.after(step.seconds, self.write_of(index))))
        for index, wish in enumerate(self.scenario.expect):
            if wish.seconds is not None:
                self.checks.append((index, clock.after(wish.seconds, self.check_of(index))))
        self.machine.timeline = self

    def write_of(self, index: int) -> Callable[[], None]:
        """Return the action of a write of the scenario."""
        return partial(self._write, self.scenario.at[index])

    def check_of(self, index: int) -> Callable[[], None]:
        """Return the action of an expectation of the scenario."""
        return partial(self._check, self.scenario.expect[index])

    def run(self) -> bool:
        """Do all of it now; return whether everything was as expected."""
        self._tell_events()
        self.schedule()
        self.machine.clock.advance(self._duration())
        for wish in self.scenario.expect:
            if wish.seconds is None:
                self._check(wish)
        return not self.failures

    def _duration(self) -> float:
        dates = [step.seconds for step in self.scenario.at]
        dates += [wish.seconds for wish in self.scenario.expect if wish.seconds is not None]
        return max(dates, default=0.0)

    def _write(self, step: At) -> None:
        text = as_bytes(step.text if step.text.endswith("\n") else f"{step.text}\n")
        try:
            with self.machine.control.recordings.unrecorded():
                self.machine.write(step.write, text)
            result = None
        except KernelError as error:
            result = error
        answer = "ok" if result is None else result.name
        reason = "" if result is None else f" ({result.why})"
        write = f"write {step.write} {step.text!r}"
        self._say(f"{write} -> {answer}{reason}")
        if answer != (step.expect or "ok"):
            self._fail(f"{write}: {answer}, not {step.expect or 'ok'}")
        self._tell_events()

    def _check(self, wish: Expect) -> None:
        try:
            found, error = self.machine.read(wish.read).removesuffix("\n"), None
        except KernelError as refusal:
            found, error = "", refusal.name
        read = f"read {wish.read}"
        if error != wish.error:
            self._fail(f"{read}: {error or 'ok'}, not {wish.error or 'ok'}")
            return
        if wish.text is not None and found != as_bytes(wish.text.removesuffix("\n")):
            self._fail(f"{read}: {found!r}, not {wish.text!r}")
            return
        self._say(f"{read} -> {error or repr(found)}, as expected")

    def _fail(self, what: str) -> None:
        self.failures.append(one_line(what))
        self._say(f"NOT AS EXPECTED: {what}")

    def _say(self, what: str) -> None:
        self._tell(f"[{self.machine.clock.now:12.6f}] {one_line(what)}")

    def _tell_events(self) -> None:
        control = self.machine.control
        for number, event in control.uevents.since(self.uevents_told):
            fields = render_uevent(number, event).strip().split("\n")
            self._say("uevent " + " ".join(fields))
            self.uevents_told = number
        for number, line in control.log.since(self.log_told):
            self._say(f"log {line}")
            self.log_told = number


# A step: its place in the scenario, and when it is due.
SavedStep = tuple[Annotated[int, Meta(ge=0)], SavedTimer]


class SavedTimeline(Saved, frozen=True):
    """What is still to come, and the last records of the journals that were told."""

    writes: tuple[SavedStep, ...]
    checks: tuple[SavedStep, ...]
    uevents_told: U63
    log_told: U63


def save_timeline(timeline: Timeline | None) -> SavedTimeline | None:
    """Return what a snapshot holds of a timeline; None when no step is still to come."""
    if timeline is None:
        return None
    writes, checks = _pending(timeline.writes), _pending(timeline.checks)
    if not writes and not checks:
        return None
    return SavedTimeline(
        writes=writes,
        checks=checks,
        uevents_told=timeline.uevents_told,
        log_told=timeline.log_told,
    )


def _pending(steps: list[tuple[int, Timer]]) -> tuple[SavedStep, ...]:
    return tuple((index, timer.saved) for index, timer in steps if timer.saved is not None)


def restored_timeline(
    saved: SavedTimeline | None, machine: Stage, scenario: Scenario, clock: Clock
) -> Timeline | None:
    """Return the timeline of a snapshot for `machine`, with its steps on the clock.

    `scenario`, `clock`: those of the snapshot, which the machine does not have yet. Raises
    BadSnapshotError.
    """
    if saved is None:
        return None
    made = Timeline(machine, log, scenario)
    made.uevents_told, made.log_told = saved.uevents_told, saved.log_told
    made.writes = _armed(saved.writes, len(scenario.at), made.write_of, clock)
    made.checks = _armed(saved.checks, len(scenario.expect), made.check_of, clock)
    return made


def _armed(
    steps: tuple[SavedStep, ...],
    count: int,
    action: Callable[[int], Callable[[], None]],
    clock: Clock,
) -> list[tuple[int, Timer]]:
    check(all(index < count for index, _ in steps), "a step that is not in the scenario")
    check_unique([index for index, _ in steps], "a step of the scenario")
    return [(index, clock.at(timer, action(index))) for index, timer in steps]
