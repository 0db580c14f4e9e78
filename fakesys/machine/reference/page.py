"""The reference of all files, tracepoints and known differences, as Markdown or as plain text."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from fakesys.machine.profiles import PROFILES
from fakesys.machine.reference.differences import differences
from fakesys.machine.reference.files import errors_of, folders, mode_of, profiles_of
from fakesys.machine.reference.tracepoints import Form, events

WIDTH = 96
_TRACEPOINTS = """
## Tracepoints

The events of `sys/kernel/tracing/events/`, in the order of `available_events`. `mmu` and `apicv`
are the kernels of `fakesys/kvm/mmu_profile` and `fakesys/kvm/apicv_profile`. The common fields
are left out. A list of names of which only the ends are shown is whole in the event's `format`.
"""
_DIFFERENCES = """
## Differences from the kernel

Where the simulation differs on purpose from the code that it follows.
"""


def markdown() -> str:
    """Return the whole reference as a Markdown page."""
    lines = [
        "# Files and tracepoints",
        "",
        "Written by `make abi` from the declarations; do not edit.",
        f"Profiles: {', '.join(PROFILES)}. Paths begin at the mount point.",
        *_file_tables(),
        *_TRACEPOINTS.rstrip().split("\n"),
        *_event_sections(),
        *_DIFFERENCES.rstrip().split("\n"),
        "",
    ]
    for place, like, text in differences():
        lines.append(f"- `{place}`{like and f' ({like})'}: {text}")
    return "\n".join(lines) + "\n"


def plain() -> str:
    """Return the same as text: one block per file and per event."""
    return "\n".join([*_file_blocks(), *_event_blocks(), *_difference_blocks()])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _file_tables() -> Iterator[str]:
    for folder in folders():
        yield from ("", f"## `{folder.path}/`", "")
        if folder.same_as is not None:
            yield f"The same as `{folder.same_as}/`."
            continue
        yield from ("| file | mode | profiles | what | errors |", "|---|---|---|---|---|")
        for (name, what), entry in folder.entries.items():
            row = entry.row
            cells = (f"`{name}`", mode_of(row), profiles_of(entry), what, errors_of(row))
            yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _event_sections() -> Iterator[str]:
    for name, event in events().items():
        yield from ("", f"### `{name}`", "", event.doc)
        for form in event.forms:
            yield from ("", f"{form.kernels}:", "", "```c", *_form_lines(form), "```")


def _form_lines(form: Form) -> Iterator[str]:
    yield from wrap("; ".join(form.fields), WIDTH, break_long_words=False)
    yield f"print fmt: {form.print_fmt}"


def _file_blocks() -> Iterator[str]:
    for folder in folders():
        if folder.same_as is not None:
            yield from (f"{folder.path}/", f"    the same as {folder.same_as}/", "")
        for (name, what), entry in folder.entries.items():
            mode, profiles = mode_of(entry.row), profiles_of(entry)
            yield f"{folder.path}/{name}  {mode}  profiles: {profiles}"
            yield f"    {what}"
            yield from (f"    {error}" for error in errors_of(entry.row).split("; ") if error)
            yield ""


def _event_blocks() -> Iterator[str]:
    for name, event in events().items():
        yield f"tracepoint {name}"
        yield f"    {event.doc}"
        for form in event.forms:
            yield f"    {form.kernels}:"
            yield from (f"        {line}" for line in _form_lines(form))
        yield ""


def _difference_blocks() -> Iterator[str]:
    for place, like, text in differences():
        yield f"differs: {place}{like and f' ({like})'}"
        yield from (f"    {text}", "")
