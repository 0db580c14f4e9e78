"""The lines of a frame: who has which queue, what each VM does, what was refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from fakesys.top.owners import KINDS, owners
from fakesys.top.rates import Rates
from fakesys.view.store import Present
from fakesys.view.streams import shown

# Between columns.
GAP = 2
# Of a name in a column, where the width is not that of a pipe.
LONGEST_NAME = 24
ALL = "all"

Cells = tuple[str, ...]


@dataclass
class Section:
    """A head and lines below it, which may be cut; `empty` is said when there are none."""

    head: Text
    lines: list[Text] = field(default_factory=list)
    empty: str = ""

    def body(self) -> list[Text]:
        """Return the lines, or the one that says that there are none."""
        return self.lines or [Text(self.empty, "dim")]


def lines_of(
    present: Present, rates: Rates, *, trouble: str = "", width: int, height: int | None
) -> list[Text]:
    """Return the lines of a frame, none wider than `width`.

    Without `height` there are as many as there is to say.
    """
    values = present.values
    top = [_title(values)]
    if trouble:
        top.append(Text(trouble, "bold red"))
    longest = LONGEST_NAME if height is not None else width
    sections = [
        _vms(values, rates, longest),
        _counters(values, rates, longest),
        _adapters(values, longest),
        _refusals(values, present.lines),
    ]
    room = None if height is None else height - len(top)
    lines = top[:height] + _fitted(sections, room)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def counters_of(values: Mapping[str, Any]) -> dict[str, int]:
    """Return every counter of KVM, by `VM/NAME`; those of all VMs together by `all/NAME`."""
    found = {f"{ALL}/{name}": count for name, count in values.get("kvm/counters", {}).items()}
    for key, vm in values.items():
        if (name := key.removeprefix("kvm/vm/")) != key:
            found.update({f"vm/{name}/{what}": count for what, count in vm["counters"].items()})
    return found


def _fitted(sections: list[Section], room: int | None) -> list[Text]:
    """Return the lines of the sections that fit in the room, which they share."""
    bodies = [section.body() for section in sections]
    given = [len(body) for body in bodies]
    if room is not None:
        given = _shares(given, room)
    found = []
    for section, body, count in zip(sections, bodies, given, strict=True):
        if count:
            section.head.stylize("bold")
            found += [section.head, *_cut(body, count)]
    return found


def _shares(wanted: list[int], room: int) -> list[int]:
    """Return how many lines each gets: a line each in turn, the first with its head."""
    given = [0] * len(wanted)
    while True:
        before = room
        for place, want in enumerate(wanted):
            cost = 1 if given[place] else 2
            if given[place] < want and cost <= room:
                given[place] += 1
                room -= cost
        if room == before:
            return given


def _cut(body: list[Text], count: int) -> list[Text]:
    if len(body) <= count:
        return body
    return [*body[: count - 1], Text(f"and {len(body) - count + 1} more", "dim")]


def _title(values: Mapping[str, Any]) -> Text:
    words = [
        f"fakesys {values.get('mount/version', '')}",
        values.get("mount/point", ""),
        f"profile {values.get('mount/profile', '')}",
        f"clock x{values.get('mount/rate', '')}",
    ]
    line = Text("  ".join(words), "reverse")
    if (bugs := values.get("mount/bugs", "0")) != "0":
        line.append(f"  internal errors: {bugs}", "bold red")
    return line


def _table(head: Cells, rows: list[Cells], least: tuple[int, ...], longest: int) -> list[Text]:
    """Return head and rows in columns as wide as their content, but at least so wide.

    Columns whose width is negative are texts, of at most `longest` characters; others are numbers.
    """
    columns = []
    for place, column in enumerate(least):
        content = max(cell_len(cells[place]) for cells in [head, *rows])
        columns.append(max(abs(column), min(content, longest)))
    return [_row(cells, columns, least) for cells in [head, *rows]]


def _row(cells: Cells, columns: list[int], least: tuple[int, ...]) -> Text:
    parts = []
    for words, column, side in zip(cells, columns, least, strict=True):
        cell = Text(words)
        cell.truncate(column, overflow="ellipsis")
        cell.align("left" if side < 0 else "right", column)
        parts.append(cell)
    return Text(" " * GAP).join(parts)


def _vms(values: Mapping[str, Any], rates: Rates, longest: int) -> Section:
    head = ("VM", "exits/s", "vCPUs", "guest", "halted", "out", "APICv", "pages")
    names = sorted(k.removeprefix("kvm/vm/") for k in values if k.startswith("kvm/vm/"))
    vms = [values[f"kvm/vm/{name}"] for name in names]
    rows = [_vm(name, vm, rates) for name, vm in zip(names, vms, strict=True)]
    first, *lines = _table(head, rows, (-16, 9, 5, 5, 6, 4, -11, 6), longest)
    for line, vm in zip(lines, vms, strict=True):
        reasons = ", ".join(f"{reason}: {meaning}" for reason, meaning in vm["reasons"])
        line.append(f"  {reasons}", "yellow")
    return Section(first, lines, empty="no VM")


def _vm(name: str, vm: Mapping[str, Any], rates: Rates) -> Cells:
    states = [state for _, state, _ in vm["vcpus"]]
    guest, halted = states.count("guest"), states.count("halted")
    counts = (len(states), guest, halted, len(states) - guest - halted)
    return (
        shown(os.fsencode(name)),
        _rate(rates.of(f"vm/{name}/exits")),
        *map(str, counts),
        vm["apicv"],
        vm["mmu"].get("n_used", ""),
    )


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.1f}"


def _counters(values: Mapping[str, Any], rates: Rates, longest: int) -> Section:
    """Return the counters of all VMs together: first those that move fastest."""
    found = values.get("kvm/counters", {})
    gains = {name: rates.of(f"{ALL}/{name}") for name in found}
    names = sorted(found, key=lambda name: (-(gains[name] or 0.0), -found[name], name))
    rows: list[Cells] = [(name, _rate(gains[name]), str(found[name])) for name in names]
    head, *lines = _table(("counter", "per second", "total"), rows, (-16, 10, 10), longest)
    for name, line in zip(names, lines, strict=True):
        if gains[name]:
            line.stylize("bold green")
    return Section(head, lines, empty="all 0")


def _adapters(values: Mapping[str, Any], longest: int) -> Section:
    """Return how many queues of each adapter belong to whom."""
    found = owners(values)
    rows = [_adapter(_kind_of(values[f"ap/card/{apid}"]), apid, found[apid]) for apid in found]
    if len(found) > 1:
        sums = {kind: sum(counts[kind] for counts in found.values()) for kind in KINDS}
        rows.insert(0, _adapter("", ALL, sums))
    least = (-4, -10, 6, *(max(5, len(kind)) for kind in KINDS))
    head, *lines = _table(("card", "", "queues", *KINDS), rows, least, longest)
    return Section(head, lines, empty="no adapter")


def _adapter(what: str, apid: str, counts: Mapping[str, int]) -> Cells:
    return (apid, what, str(sum(counts.values())), *(str(counts[kind] or "-") for kind in KINDS))


def _kind_of(card: Mapping[str, Any]) -> str:
    return f"{card['type']} {card['mode']}".strip()


def _refusals(values: Mapping[str, Any], lines: Mapping[str, list[list[str]]]) -> Section:
    """Return the refused writes, the last one first, each with its reason if that is known."""
    section = Section(Text("refused writes, the last one first"), empty="none")
    for seconds, *writer, result, path, text, why in reversed(lines.get("writes", [])):
        if result not in ("ok", ""):
            line = Text(f"{seconds:>12}  ")
            line.append(result, "red")
            line.append("  ".join(("", path, repr(text), why, *writer)).rstrip())
            section.lines.append(line)
    if not section.lines and (last := values.get("mount/last_error")):
        # Refused before this program began.
        section.lines.append(Text(last))
    return section
