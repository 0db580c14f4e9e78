"""The steps of a scenario over time: on a mount by the clock, in process as fast as it goes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from fakesys.core.errors import KernelError
from fakesys.core.journal import render_uevent
from fakesys.core.text import one_line
from fakesys.machine.hardware import as_bytes
from fakesys.machine.machine import Machine
from fakesys.machine.scenario import At, Expect, Scenario


def log(text: str) -> None:
    """Write a line to the log of the process."""
    logging.getLogger(__name__).info("%s", text)


@dataclass
class Timeline:
    """The writes and expectations of one scenario on one machine.

    `tell` hears one line per thing that happens; `failures` counts what was not as expected.
    """

    machine: Machine
    scenario: Scenario
    tell: Callable[[str], None]
    failures: list[str] = field(default_factory=list)
    _uevents_told: int = 0
    _log_told: int = 0

    def schedule(self) -> None:
        """Put every dated step on the machine's clock; at equal times, writes come first."""
        clock = self.machine.clock
        for step in self.scenario.at:
            clock.after(step.seconds, lambda step=step: self._write(step))  # type: ignore[misc]
        for wish in self.scenario.expect:
            if wish.seconds is not None:
                clock.after(wish.seconds, lambda wish=wish: self._check(wish))  # type: ignore[misc]

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
        self.tell(f"[{self.machine.clock.now:12.6f}] {one_line(what)}")

    def _tell_events(self) -> None:
        control = self.machine.control
        for number, event in control.uevents.since(self._uevents_told):
            fields = render_uevent(number, event).strip().split("\n")
            self._say("uevent " + " ".join(fields))
            self._uevents_told = number
        for number, line in control.log.since(self._log_told):
            self._say(f"log {line}")
            self._log_told = number
