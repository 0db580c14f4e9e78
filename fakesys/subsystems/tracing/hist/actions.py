"""Actions of histograms, such as `onmax($lat).save(comm)`: their parts, and their text.

Like kernel/trace/trace_events_hist.c:onmatch_parse, track_data_parse, action_parse,
parse_action_params, print_actions_spec (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL
from typing import Literal

from msgspec import Struct, field

from fakesys.core.errors import KernelError
from fakesys.subsystems.tracing.hist.attributes import Log, refusal

MOST_PARAMETERS = 64

Handler = Literal["onmatch", "onmax", "onchange"]
Kind = Literal["save", "snapshot", "trace"]
_PREFIXES: tuple[tuple[str, Kind], ...] = (("save", "save"), ("snapshot", "snapshot"))


class Action(Struct, eq=False):
    """An action. `place`: the event of onmatch, or the variable of onmax and onchange.

    `word`: how it is called; `target`: the synthetic event of `trace(EVENT, ...)`.
    The numbers are set when it is created: `columns`, of the references whose values the
    synthetic event gets; `watched`, of the reference that onmax and onchange look at; `kept`, of
    the variable with the value that they have seen last.
    """

    handler: Handler
    place: tuple[str, ...]
    kind: Kind = "trace"
    word: str = ""
    target: str | None = None
    parameters: list[str] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    watched: int = 0
    kept: int = 0
    synthetic: str = ""

    @property
    def event(self) -> str:
        """The name of the synthetic event that it makes."""
        return self.word if self.target is None else self.target

    @property
    def shape(self) -> tuple[object, ...]:
        """What must be equal in equal histograms. Like trace_events_hist.c:actions_match."""
        return self.handler, self.kind, tuple(self.parameters), self.event, self.place

    def spelling(self, saved: list[str]) -> str:
        """Return its text in the trigger file; `saved`: the names of the saved fields."""
        words: list[str] = []
        if self.kind == "save":
            words = saved
        elif self.kind == "trace":
            words = ([] if self.target is None else [self.target]) + self.parameters
        return f":{self.handler}({'.'.join(self.place)}).{self.word}({','.join(words)})"

    def is_news(self, value: int, last: int) -> bool:
        """Return whether onmax or onchange act on a value after the last one."""
        return value > last if self.handler == "onmax" else value != last


def parse_action(text: str, has_event: Callable[[str, str], bool], log: Log) -> Action:
    """Parse `HANDLER(...).WORD(...)`. Raises EINVAL; most mistakes are logged."""
    handler, _, rest = text.partition("(")
    place, closed, rest = rest.partition(")")
    if handler == "onmatch":
        action = Action("onmatch", _event(place, closed, has_event, log))
    elif not closed:
        raise KernelError(EINVAL, f"{text!r} has no closing parenthesis")
    else:
        action = Action("onmax" if handler == "onmax" else "onchange", (place,))
    _parse_word(action, rest, log)
    return action


def _event(
    place: str, closed: str, has_event: Callable[[str, str], bool], log: Log
) -> tuple[str, ...]:
    if not closed:
        raise refusal(log, "No closing paren found", place)
    system, dot, event = place.partition(".")
    if not dot:
        raise refusal(log, "Missing subsystem", system)
    if not has_event(system, event):
        raise refusal(log, "Invalid subsystem or event name", event)
    return system, event


def _parse_word(action: Action, text: str, log: Log) -> None:
    _, dot, rest = text.partition(".")
    action.word, opened, rest = rest.partition("(")
    if not dot or not opened:
        raise refusal(log, "No action found", None)
    parameters, closed, _ = rest.partition(")")
    action.kind = next((kind for word, kind in _PREFIXES if action.word.startswith(word)), "trace")
    if action.kind == "snapshot":
        if not closed:
            raise refusal(log, "No closing paren found", parameters)
    else:
        _parse_parameters(action, parameters, log)
    if action.kind != "trace" and action.handler == "onmatch":
        raise refusal(log, "Handler doesn't support action", action.word)


def _parse_parameters(action: Action, text: str, log: Log) -> None:
    takes_event = action.kind == "trace" and action.word.startswith("trace")
    for number, part in enumerate(text.split(",")):
        if len(action.parameters) >= MOST_PARAMETERS:
            raise refusal(log, "Too many action params", None)
        parameter = part.strip()
        if len(parameter) < 2:
            raise refusal(log, "Invalid action param", parameter)
        if takes_event and number == 0:
            action.target = parameter
        else:
            action.parameters.append(parameter)
