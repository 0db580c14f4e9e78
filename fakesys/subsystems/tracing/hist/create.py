"""Making the actions of a histogram: the variables that they watch, save and pass on.

Like kernel/trace/trace_events_hist.c:track_data_create, action_create, trace_action_create,
create_field_var, create_field_var_hist (v6.1).
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOMEM

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.subsystems.tracing.hist.actions import Action
from fakesys.subsystems.tracing.hist.attributes import refusal
from fakesys.subsystems.tracing.hist.expressions import ExpressionParser
from fakesys.subsystems.tracing.hist.histogram import (
    FieldVariable,
    Flag,
    HistField,
    Histogram,
)
from fakesys.subsystems.tracing.hist.variables import (
    Place,
    Synthetic,
    event_variable,
    is_taken,
    refer,
)

MOST_FIELD_VARIABLES = 64
_KEPT_BY = {"onmax": "__max", "onchange": "__change"}


def create_actions(histogram: Histogram, place: Place) -> None:
    """Make what the actions of a parsed histogram need.

    Raises EINVAL, EEXIST, EBUSY; most mistakes are logged. What was made for it on other events
    is in `Histogram.made`, also if it fails.
    """
    for action in histogram.actions:
        if action.handler != "onmatch":
            _watch(histogram, action, place)
        if action.kind == "trace":
            _pass_on(histogram, action, place)
        elif action.kind == "snapshot":
            place.watch_snapshot(histogram)
        else:
            _save(histogram, action, place)


def _watch(histogram: Histogram, action: Action, place: Place) -> None:
    name = action.place[0]
    if not name.startswith("$"):
        message = "For onmax(x) or onchange(x), x must be a variable"
        raise refusal(place.log, message, name)
    variable = histogram.variable(name[1:])
    if variable is None:
        raise refusal(place.log, "Couldn't find onmax or onchange variable", name[1:])
    reference = refer(histogram, variable, "", "")
    if reference is None:
        raise KernelError(ENOMEM, "too many references")
    action.watched = reference.reference
    kept = _variable(histogram, place, _KEPT_BY[action.handler], 8, "u64")
    if kept is None:
        raise refusal(place.log, "Couldn't create onmax or onchange variable", None)
    action.kept = kept.index


def _variable(
    histogram: Histogram, place: Place, name: str, size: int, kind: str
) -> HistField | None:
    """Make a variable; None if there is one of its name or there are too many.

    Like trace_events_hist.c:create_var.
    """
    if is_taken(histogram, place, name):
        return None
    number = histogram.next_variable()
    if number is None:
        return None
    return HistField(
        lambda hit: 0,
        Flag.VARIABLE,
        kind,
        size,
        variable=name,
        index=number,
        owner=histogram,
    )


def _save(histogram: Histogram, action: Action, place: Place) -> None:
    if histogram.saved_variables:
        message = "Can't have more than one save() action per hist"
        raise refusal(place.log, message, None, EEXIST)
    for parameter in action.parameters:
        try:
            made = _field_variable(histogram, place, parameter)
        except KernelError:
            place.log("Couldn't create field variable", parameter)
            raise
        histogram.saved_variables.append(made)


def _field_variable(histogram: Histogram, place: Place, name: str) -> FieldVariable:
    if len(histogram.field_variables) >= MOST_FIELD_VARIABLES:
        raise refusal(place.log, "Too many field variables defined", name)
    try:
        value = ExpressionParser(histogram, place).atom(name, Flag.VARIABLE)
    except KernelError:
        place.log("Couldn't parse field variable", name)
        raise
    variable = _variable(histogram, place, name, value.size, value.type)
    if variable is None:
        raise refusal(place.log, "Couldn't create or find variable", name)
    return FieldVariable(variable, value)


def _pass_on(histogram: Histogram, action: Action, place: Place) -> None:
    target = place.synthetic(action.event)
    if target is None:
        raise refusal(place.log, "Couldn't find synthetic event", action.event)
    action.synthetic = action.event
    for number, parameter in enumerate(action.parameters):
        column = _parameter(histogram, action, number, parameter, target, place)
        action.columns.append(column)
    if len(action.columns) != target.width:
        message = "Param count doesn't match synthetic event field count"
        raise refusal(place.log, message, action.event)


def _parameter(
    histogram: Histogram,
    action: Action,
    number: int,
    text: str,
    target: Synthetic,
    place: Place,
) -> int:
    system, event, name = _divided(text)
    find = _known_variable if name.startswith("$") else _made_variable
    found = find(histogram, action, (system, event, name), place)
    if found is None:
        raise KernelError(EINVAL, f"there is no {text}")
    stack = bool(found.flags & Flag.STACKTRACE)
    if not target.takes(number, found.type, found.size, found.signed, stack=stack):
        raise refusal(place.log, "Param type doesn't match synthetic event field type", name)
    reference = refer(histogram, found, system, event)
    if reference is None:
        raise KernelError(ENOMEM, "too many references")
    return reference.reference


def _divided(text: str) -> tuple[str, str, str]:
    """Divide [SYSTEM.EVENT.]NAME. Raises EINVAL for a single dot."""
    system, dot, rest = text.partition(".")
    if not dot:
        return "", "", text
    event, dot, name = rest.partition(".")
    if not dot:
        raise KernelError(EINVAL, f"{text!r} names an event without its system")
    return system, event, name


Name = tuple[str, str, str]


def _known_variable(
    histogram: Histogram, action: Action, name: Name, place: Place
) -> HistField | None:
    """Like trace_events_hist.c:trace_action_find_var."""
    system, event, variable = name[0], name[1], name[2][1:]
    form = histogram.form
    found = None
    if not system or (system, event) == (form.system, form.event):
        found = histogram.variable(variable)
    if found is None:
        if not system and action.handler == "onmatch":
            system, event = action.place
        found = event_variable(histogram, place, system, event, variable)
    if found is None:
        place.log("Couldn't find param", variable)
    return found


def _made_variable(
    histogram: Histogram, action: Action, name: Name, place: Place
) -> HistField | None:
    """Make a variable of a field of this event or another.

    Like trace_events_hist.c:trace_action_create_field_var.
    """
    system, event, field = name
    form = histogram.form
    if not system or (system, event) == (form.system, form.event):
        try:
            made = _field_variable(histogram, place, field)
        except KernelError:
            pass
        else:
            histogram.field_variables.append(made)
            return made.variable
    if not system and action.handler == "onmatch":
        system, event = action.place
    return _on_other_event(histogram, system, event, field, place) if event else None


def _on_other_event(
    histogram: Histogram, system: str, event: str, field: str, place: Place
) -> HistField | None:
    form = place.find(system, event)
    if len(histogram.made) >= MOST_FIELD_VARIABLES:
        raise refusal(place.log, "Too many field variables defined", field)
    if form is None:
        place.log("Event file not found", field)
        return None
    compatible = _compatible(histogram, form, place)
    if compatible is None:
        place.log("Matching event histogram not found", field)
        return None
    name = f"synthetic_{field}"
    found = event_variable(histogram, place, system, event, name)
    if found is not None:
        return found
    text, condition = compatible
    command = f"{text}:{name}={field}"
    command += f" if {condition}" if condition else ""
    try:
        place.count_too(form, command)
    except KernelError:
        place.log("Couldn't create histogram for field", field)
        return None
    histogram.made.append((form, command))
    found = event_variable(histogram, place, system, event, name)
    if found is None:
        place.log("Couldn't find synthetic variable", field)
    return found


def _compatible(histogram: Histogram, form: EventFormat, place: Place) -> tuple[str, str] | None:
    """Return the keys, as text, and the filter of a histogram with keys of the same types."""
    wanted = [(key.type, key.size, key.signed) for key in histogram.keys]
    for counted in place.on_event(form):
        keys = counted.histogram.keys
        if [(key.type, key.size, key.signed) for key in keys] == wanted:
            return "keys=" + ",".join(key.label for key in keys), counted.filter_text
    return None
