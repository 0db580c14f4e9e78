"""The way to a violation as a script, which `fakesys replay` runs in memory or on a mount."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fakesys.core.text import one_line
from fakesys.core.version import __version__
from fakesys.machine.machine import Machine
from fakesys.subsystems.control.script import Step, line_of, preamble


class Done(NamedTuple):
    """A step with the result that it had. `actor`: its name, empty for what comes before."""

    actor: str
    step: Step


def script_of(machine: Machine, done: Iterable[Done], wrong: Iterable[str]) -> str:
    """Return a script of these steps, with what does not hold after the last one as remarks."""
    recorded = machine.recorded
    head = preamble(__version__, recorded.mount_options, recorded.description)
    return "".join(
        (head, "hold\n", *_lines(done), *(f"# Violated: {one_line(w)}\n" for w in wrong))
    )


def _lines(done: Iterable[Done]) -> Iterator[str]:
    actor = ""
    for one in done:
        if one.actor != actor:
            actor = one.actor
            yield f"# {actor}\n"
        yield line_of(one.step)
