"""What a sweep has found, as a table with its findings, and as JSON that can be gone on with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from io import StringIO
from typing import Any

import msgspec
from msgspec import Struct
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fakesys.core.text import one_line
from fakesys.core.version import __version__
from fakesys.sweep.operations import Operation
from fakesys.sweep.plan import KINDS
from fakesys.sweep.search import Report
from fakesys.sweep.verdicts import VERDICTS, Judged

# Columns of a table that goes to no terminal.
WIDTH = 110
_STYLES = {"ok": "green", "skipped": "dim"}
# Of a difference and of an output, so many lines are shown.
_MOST_LINES = 40
_MOST_OUTPUT = 8


class Saved(Struct, frozen=True):
    """A report as a file."""

    fakesys: str
    command: tuple[str, ...]
    machine: dict[str, Any]
    complete: bool
    unsteady: list[str]
    operations: list[Operation]
    judged: list[Judged]


class ReportError(ValueError):
    """A file that holds no report of this program; the text is one line."""


def to_json(report: Report) -> bytes:
    """Return a report as a file, which does not depend on time."""
    saved = Saved(
        __version__,
        report.program.command,
        report.program.machine,
        report.complete,
        report.unsteady,
        report.operations,
        report.judged,
    )
    return msgspec.json.format(msgspec.json.encode(saved), indent=1) + b"\n"


def from_json(data: bytes, report: Report) -> dict[str, Judged]:
    """Return the cells in a file, by name, for the same program. Raises ReportError."""
    try:
        saved = msgspec.json.decode(data, type=Saved)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"no report of a sweep: {one_line(str(error))}") from None
    program = report.program
    if (saved.fakesys, saved.command) != (__version__, program.command):
        raise ReportError(f"a report of fakesys {saved.fakesys} on {' '.join(saved.command)}")
    if msgspec.json.encode(saved.machine) != msgspec.json.encode(program.machine):
        raise ReportError("a report of another machine")
    if saved.operations != report.operations:
        raise ReportError("a report of a program that did other operations")
    return {judged.cell.name: judged for judged in saved.judged}


def show(report: Report, console: Console) -> None:
    """Print the table, each finding with the files that differ, and the sum."""
    if report.operations:
        console.print(table(report))
    for one in report.findings:
        console.print()
        for line in finding(one):
            console.print(escape(line), highlight=False, soft_wrap=True)
    console.print()
    console.print(escape(summary(report)), highlight=False, soft_wrap=True)


def text(report: Report) -> str:
    """Return what `show` prints."""
    output = StringIO()
    show(report, Console(file=output, width=WIDTH))
    return output.getvalue()


def table(report: Report) -> Table:
    """Return the table operations x disturbances."""
    kinds = [kind for kind in KINDS if any(_kind(one) == kind for one in report.judged)]
    made = Table("", box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("operation", overflow="fold")
    for kind in kinds:
        made.add_column(kind)
    for operation in report.operations:
        rows = [one for one in report.judged if one.cell.operation == operation]
        texts = ["\n".join(_marked([one for one in rows if _kind(one) == kind])) for kind in kinds]
        made.add_row(str(operation.number), escape(operation.title), *texts)
    return made


def _kind(judged: Judged) -> str:
    return judged.cell.disturbance.kind


def _marked(cells: list[Judged]) -> Iterator[str]:
    """Yield a line for each verdict of some cells: its name, and which they are."""
    for verdict in VERDICTS:
        found = [one.cell.disturbance for one in cells if one.verdict == verdict]
        if not found:
            continue
        style = _STYLES.get(verdict, "bold red")
        own = [one.label.removeprefix(one.kind).strip("-") for one in found]
        names = f" {len(found)}" if verdict == "ok" and len(found) > 1 else ""
        if verdict != "ok":
            names = f": {', '.join(own)}" if any(own) else ""
        yield f"[{style}]{verdict}[/]{escape(names)}"


def finding(judged: Judged) -> Iterator[str]:
    """Yield the lines about one cell."""
    cell = judged.cell
    yield f"{cell.name} {judged.verdict}: {judged.why}"
    yield f"  {cell.operation.title}"
    output = judged.output.splitlines()
    yield from (f"  | {line}" for line in output[-_MOST_OUTPUT:])
    yield from (f"  {line}" for line in judged.lines[:_MOST_LINES])
    if len(judged.lines) > _MOST_LINES:
        yield f"  ({len(judged.lines) - _MOST_LINES} more lines)"


def summary(report: Report) -> str:
    """Return the numbers of all verdicts in one line."""
    counts = Counter(one.verdict for one in report.judged)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    done = len(report.judged)
    rest = "" if report.complete else f", ended after {done} of {report.cells}"
    return f"{len(report.operations)} operations, {done} cells{rest}: {told or 'nothing'}"
