"""The control files that belong to no single subsystem: `fakesys/` and its `clock/`, `faults/`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from errno import EBUSY, EINTR, EINVAL, ERANGE
from typing import Any, TypeVar

from fakesys.core.clock import NS
from fakesys.core.copying.copies import COPY_ERRORS
from fakesys.core.saved import byte_text
from fakesys.core.text import kstrtoull, one_word, require_one, zero_or_one
from fakesys.core.version import __version__
from fakesys.subsystems.control.faults import FAULTS, Fault, parse_seconds
from fakesys.subsystems.control.model import Control
from fakesys.subsystems.control.snapshots import ERRORS, SnapshotFile
from fakesys.subsystems.control.streams import (
    Cursor,
    JournalPipe,
    JournalText,
    MessageDevice,
    lines_from,
    messages_from,
    uevents_from,
)
from fakesys.tree.attr import Attr, Dir, Handle, Layout, Mount
from fakesys.tree.kinds import CONTROL, CONTROL_JOURNAL, CONTROL_STREAM

M = TypeVar("M")
R = TypeVar("R")


def bracketed(choices: Iterable[str], current: str) -> str:
    """Return a line of all choices with the current one in brackets."""
    return " ".join(f"[{name}]" if name == current else name for name in choices) + "\n"


def with_current(choices: Iterable[str], current: str) -> tuple[str, ...]:
    """Return all choices and, if it is none of them, the current one."""
    names = tuple(choices)
    return names if current in names else (*names, current)


def journal_rows(name: str, doc: str, cursor: Callable[[M], Cursor[R]]) -> tuple[Attr[M], Attr[M]]:
    """Return the rows `NAME` and `NAME_pipe` of a journal that begins at `cursor`."""
    return (
        Attr(
            name=name,
            mode=0o444,
            doc=f"{doc}; ends with what is there.",
            open=lambda model, _flags: JournalText(cursor(model)),
            kind=CONTROL_JOURNAL,
        ),
        Attr(
            name=f"{name}_pipe",
            mode=0o444,
            doc="The same as a stream, which waits for more.",
            open=lambda model, _flags: JournalPipe(cursor(model)),
            kind=CONTROL_STREAM,
        ),
    )


def _last_error(control: Control) -> str:
    refusal = control.last_error
    if refusal is None:
        return ""
    error = refusal.error
    # A reason may name what is no text of bytes.
    why = error.why.encode("latin-1", "backslashreplace").decode("latin-1")
    return f"{refusal.time_ns / NS:.6f} {byte_text(refusal.path)} {error.name} {why}\n"


def _bugs(control: Control) -> str:
    return f"{len(control.bugs)}\n" + "".join(control.bugs)


def _profile(control: Control) -> str:
    return bracketed(control.machine.kernels.profile_names, control.machine.kernels.profile_name)


def _set_profile(control: Control, text: str) -> None:
    control.machine.kernels.set_profile(one_word(text))


def _set_seed(control: Control, text: str) -> None:
    control.set_seed(kstrtoull(text))


def _set_lockdown(control: Control, text: str) -> None:
    control.set_lockdown(zero_or_one(text))


def _reset(control: Control, text: str) -> None:
    require_one(text)
    control.machine.reset()


def _set_rate(control: Control, text: str) -> None:
    control.machine.kernel.clock.rate = parse_seconds(text)


def _advance(control: Control, text: str) -> None:
    control.machine.kernel.clock.advance(parse_seconds(text))


def _open_writers(control: Control, _flags: int) -> Handle:
    from fakesys.subsystems.control.writers import WritersFile

    return WritersFile(control.recordings)


def _state(control: Control) -> str:
    return json.dumps(control.machine.state(), indent=1, sort_keys=True) + "\n"


CLOCK: Layout[Control] = Layout(
    (
        Attr(
            name="now",
            mode=0o444,
            doc="Simulated seconds since the machine was made.",
            show=lambda control: f"{control.machine.kernel.clock.now:.6f}\n",
        ),
        Attr(
            name="rate",
            mode=0o644,
            doc="Simulated seconds per real second; 0 stops the clock.",
            show=lambda control: f"{control.machine.kernel.clock.rate:g}\n",
            store=_set_rate,
            errors={EINVAL: "not a number, negative, or above 1,000,000"},
        ),
        Attr(
            name="advance",
            mode=0o200,
            doc="Write seconds to move the time by hand; everything due runs, in order.",
            store=_advance,
            errors={
                EINVAL: "not a number, negative, or beyond the last moment, after 73 years",
                EINTR: "a signal came; the time has moved to the last timer that ran",
            },
        ),
    )
)


def _fault_attr(fault: Fault) -> Attr[Control]:
    def show(control: Control) -> str:
        return "".join(f"{line}\n" for line in fault.lines(control.faults))

    def store(control: Control, text: str) -> None:
        fault.replace(control.faults, [line.split() for line in text.splitlines() if line.strip()])
        control.faults_changed()

    return Attr(
        name=fault.name,
        mode=0o644,
        doc=f"{fault.doc} Each write replaces all lines; an empty line clears.",
        show=show,
        store=store,
        errors=fault.errors,
    )


GENERIC_FAULTS: tuple[Attr[Control], ...] = tuple(_fault_attr(fault) for fault in FAULTS)

TOP: Layout[Control] = Layout(
    (
        Attr(
            name="version",
            mode=0o444,
            doc="Version of the package.",
            show=lambda _control: f"{__version__}\n",
        ),
        Attr(
            name="profile",
            mode=0o644,
            doc="The kernel that is imitated; sets those of ap/, mmu and apicv at once.",
            show=_profile,
            store=_set_profile,
            errors={EINVAL: "no such profile", EBUSY: "an mdev, a guest or a VM exists"},
        ),
        Attr(
            name="cmdline",
            mode=0o444,
            doc="The command line that the kernel was booted with.",
            show=lambda control: f"{control.machine.kernels.boot}\n",
        ),
        Attr(
            name="last_error",
            mode=0o444,
            doc="`TIME PATH ERRNO reason` of the last write of the mount if it was refused.",
            show=_last_error,
        ),
        Attr(
            name="bugs",
            mode=0o444,
            doc="Number of internal errors since the start, then one traceback for each.",
            show=_bugs,
        ),
        Attr(
            name="requests",
            mode=0o444,
            doc="Number of requests that the mount has served.",
            show=lambda control: f"{control.requests_served()}\n",
        ),
        Attr(
            name="seed",
            mode=0o644,
            doc="Seed of the random generator; a write restarts it.",
            show=lambda control: f"{control.seed}\n",
            store=_set_seed,
            errors={EINVAL: "not a number", ERANGE: "more than 64 bits"},
        ),
        Attr(
            name="lockdown",
            mode=0o644,
            doc="1: debugfs answers as on a locked-down kernel, this directory excepted.",
            show=lambda control: f"{control.lockdown:d}\n",
            store=_set_lockdown,
            errors={EINVAL: "neither 0 nor 1"},
        ),
        Attr(
            name="state",
            mode=0o444,
            doc="The whole machine as one JSON object, keys sorted.",
            show=_state,
            copied=True,
            errors=COPY_ERRORS,
        ),
        Attr(
            name="snapshot",
            mode=0o600,
            doc="The whole machine: read it to save it, write it to load it in one step.",
            open=SnapshotFile,
            errors=ERRORS,
        ),
        *journal_rows(
            "uevents",
            "Every uevent of the mount, the oldest of the last 65,536 first",
            lambda control: uevents_from(control.uevents),
        ),
        *journal_rows(
            "log",
            "Every line of the kernel log, the last 65,536 of them",
            lambda control: lines_from(control.log),
        ),
        Attr(
            name="messages",
            mode=0o444,
            doc="The lines of the kernel log as records of /dev/kmsg; ends with what is there.",
            open=lambda control, _flags: JournalText(messages_from(control.log)),
            kind=CONTROL_JOURNAL,
        ),
        Attr(
            name="kmsg",
            mode=0o644,
            doc="As /dev/kmsg: a read waits for one record, a write logs a line.",
            open=lambda control, _flags: MessageDevice(control.log, control.machine.kernel.log),
            kind=CONTROL_STREAM,
        ),
        Attr(
            name="writes",
            mode=0o400,
            doc="Every write to the mount from its opening on, as a shell script; waits for more.",
            open=lambda control, _flags: control.recordings.open(),
            kind=CONTROL_STREAM,
        ),
        Attr(
            name="writers",
            mode=0o400,
            doc="As `writes`, but lines of JSON which name the writing process.",
            open=_open_writers,
            kind=CONTROL_STREAM,
        ),
        Attr(
            name="reset",
            mode=0o200,
            doc="Write 1: everything as at mount time.",
            store=_reset,
            errors={EINVAL: "not 1"},
        ),
        Dir(name="clock", layout=CLOCK),
    ),
    kind=CONTROL,
)


def mounts(control: Control, faults: tuple[Attr[Any], ...] = ()) -> tuple[Mount, ...]:
    """Where the control files stand. `faults`: those that act on the hardware of a subsystem."""
    fault_files: Layout[Control] = Layout((*GENERIC_FAULTS, *faults), kind=CONTROL)
    return (
        Mount("sys/kernel/debug/fakesys", TOP, lambda: control),
        Mount("sys/kernel/debug/fakesys/faults", fault_files, lambda: control),
    )
