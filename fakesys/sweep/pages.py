"""A report as one page of HTML that needs nothing else, and as XML for JUnit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from fakesys.sweep.plan import KINDS
from fakesys.sweep.report import finding, summary
from fakesys.sweep.search import Report
from fakesys.sweep.verdicts import OK, SKIPPED, Judged

_COLOURS = {
    "violated": "#8e24aa",
    "unrecoverable": "#d81b60",
    "crashed": "#b71c1c",
    "hung": "#6d4c41",
    "silent": "#ef6c00",
    "left behind": "#c0a000",
    OK: "#2e7d32",
    SKIPPED: "#9e9e9e",
}
_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; color-scheme: light dark; }
table { border-collapse: collapse; } td, th { padding: .2em .6em; text-align: left; }
tr { border-bottom: 1px solid #8884; } code, pre { font-family: ui-monospace, monospace; }
a.cell { display: inline-block; padding: .05em .4em; margin: .1em; border-radius: .3em;
  color: #fff; text-decoration: none; font-size: 85%; }
pre { overflow-x: auto; background: #8882; padding: .6em; } summary { cursor: pointer; }
"""
# Characters that XML cannot hold.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_html(report: Report) -> str:
    """Return the table as a picture, and each finding folded."""
    return "\n".join(_html(report)) + "\n"


def _html(report: Report) -> Iterator[str]:
    title = escape(" ".join(report.program.command))
    yield "<!doctype html>"
    yield f'<html lang="en"><head><meta charset="utf-8"><title>Sweep of {title}</title>'
    yield f"<style>{_STYLE}</style></head><body>"
    yield f"<h1>Sweep of <code>{title}</code></h1><p>{escape(summary(report))}</p>"
    kinds = [kind for kind in KINDS if any(_kind(one) == kind for one in report.judged)]
    heads = "".join(f"<th>{kind}</th>" for kind in kinds)
    yield f"<table><thead><tr><th></th><th>operation</th>{heads}</tr></thead><tbody>"
    for operation in report.operations:
        rows = [one for one in report.judged if one.cell.operation == operation]
        marks = (" ".join(_mark(one) for one in rows if _kind(one) == kind) for kind in kinds)
        cells = "".join(f"<td>{text}</td>" for text in marks)
        name = escape(operation.title)
        yield f"<tr><td>{operation.number}</td><td><code>{name}</code></td>{cells}</tr>"
    yield "</tbody></table><h2>Findings</h2>"
    for one in report.findings:
        lines = escape("\n".join(finding(one)))
        yield f'<details id="{_id(one)}"><summary>{escape(one.cell.name)} {one.verdict}'
        yield f"</summary><pre>{lines}</pre></details>"
    yield "</body></html>"


def _kind(judged: Judged) -> str:
    return judged.cell.disturbance.kind


def _id(judged: Judged) -> str:
    return escape(judged.cell.name.replace(":", "-"), quote=True)


def _mark(judged: Judged) -> str:
    colour, why = _COLOURS[judged.verdict], escape(f"{judged.verdict}: {judged.why}", quote=True)
    to = f' href="#{_id(judged)}"' if judged.is_finding else ""
    label = escape(judged.cell.disturbance.label)
    return f'<a class="cell" style="background:{colour}" title="{why}"{to}>{label}</a>'


def to_junit(report: Report) -> str:
    """Return one test case for each cell."""
    suite = _xml(" ".join(report.program.command))
    skipped = sum(one.verdict == SKIPPED for one in report.judged)
    counts = f'tests="{len(report.judged)}" failures="{len(report.findings)}" skipped="{skipped}"'
    lines = ['<?xml version="1.0" encoding="utf-8"?>', f'<testsuite name="{suite}" {counts}>']
    for one in report.judged:
        title = _xml(one.cell.operation.title)
        case = f'<testcase classname="{title}" name="{_xml(one.cell.name)}"'
        if one.is_finding:
            why, text = _xml(f"{one.verdict}: {one.why}"), _xml("\n".join(finding(one)))
            lines.append(f'{case}><failure message="{why}">{text}</failure></testcase>')
        elif one.verdict == SKIPPED:
            lines.append(f'{case}><skipped message="{_xml(one.why)}"/></testcase>')
        else:
            lines.append(f"{case}/>")
    return "\n".join([*lines, "</testsuite>"]) + "\n"


def _xml(text: str) -> str:
    return escape(_NO_XML.sub("?", text), quote=True)
