"""What is explored: a TOML file with a machine, actors, their steps, and what must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from fakesys.core.text import LONGEST_QUOTE, one_line
from fakesys.machine.hardware import ScenarioError
from fakesys.machine.playback.replay import recording_in
from fakesys.machine.scenario import MOST, Scenario, check, readable
from fakesys.machine.untrusted.files import UnusableFileError, read_file
from fakesys.machine.untrusted.toml import TomlError, table_of
from fakesys.subsystems.control.recording import FOLDER
from fakesys.subsystems.control.script import ScriptError, Step, steps

SHIPPED = Path(__file__).parent / "examples"
MOST_ACTORS = 16
MOST_STEPS = 1000
# Journals, and what is of the daemon: no part of the state of a machine.
_NO_STATE = frozenset(
    {"log", "log_pipe", "uevents", "uevents_pipe", "kmsg", "messages", "bugs", "last_error"}
    | {"requests", "writes", "writers", "snapshot", "state"}
)
# The steps of a recording that set its time, which is that of the task here.
_OF_TIME = ("start", "hold")

Text = Annotated[str, Meta(max_length=1 << 16)]
FilePath = Annotated[str, Meta(min_length=1, max_length=4096)]
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,40}\Z")]
InvariantName = Literal["shared", "assigned", "guest_matrix", "roots", "avic", "counters", "waits"]


class TaskError(ValueError):
    """A task that cannot be explored; the text is one line that says why."""


class Write(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step: a write as by `echo TEXT > WRITE` (`>>` with `append`), or time that passes."""

    write: FilePath | None = None
    text: Text = ""
    append: bool = False
    advance: Annotated[float, Meta(ge=0, le=10_000_000)] | None = None


class Actor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What does its steps in order. `replay`: a script that `fakesys record` wrote."""

    name: Name
    steps: Annotated[tuple[Write, ...], Meta(max_length=MOST_STEPS)] = ()
    replay: str | None = None


class Must(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file must read, without its last newline, or by which errno it is refused."""

    file: FilePath
    text: Text | None = None
    error: Annotated[str, Meta(pattern=r"\AE[A-Z0-9]+\Z")] | None = None
    when: Literal["always", "end"] = "end"


class Levels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Kernels of the parts, where they are not those of the profile: `5.3`, `v6-08`, ..."""

    ap: str | None = None
    mmu: str | None = None
    apicv: str | None = None


class TaskFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file as it is written."""

    actor: Annotated[tuple[Actor, ...], Meta(min_length=1, max_length=MOST_ACTORS)]
    description: str = ""
    machine: Scenario = Scenario()
    kernels: Levels = Levels()
    before: Annotated[tuple[Write, ...], Meta(max_length=MOST_STEPS)] = ()
    must: Annotated[tuple[Must, ...], Meta(max_length=64)] = ()
    without: tuple[InvariantName, ...] = ()


class Task(msgspec.Struct, frozen=True):
    """What `explore` takes: plain data, which can go to another process.

    `before`: steps that must succeed. `actors`: names; `steps`: those of each actor.
    `without`: built-in invariants that are not asked.
    """

    name: str
    description: str
    machine: Scenario
    before: tuple[Step, ...]
    actors: tuple[str, ...]
    steps: tuple[tuple[Step, ...], ...]
    must: tuple[Must, ...]
    without: frozenset[str]


def shipped() -> list[str]:
    """Return the names of the tasks that come with the package."""
    return sorted(entry.stem for entry in SHIPPED.glob("*.toml"))


def task_of(source: str, profile: str | None = None, kernels: Levels | None = None) -> Task:
    """Return a shipped task by its name, or one from a file. Raises TaskError.

    `profile`, `kernels`: other kernels than those of the file.
    """
    is_name = not source.endswith(".toml") and "/" not in source
    if is_name and source not in shipped():
        known = ", ".join(shipped())
        raise TaskError(
            f"{one_line(repr(source))} is no example ({known}) and no path of a .toml file"
        )
    path = SHIPPED / f"{source}.toml" if is_name else Path(source)
    try:
        return _parsed(read_file(path, MOST), path, profile, kernels or Levels())
    except UnusableFileError as error:
        raise TaskError(str(error)) from None
    except msgspec.ValidationError as error:
        why = readable(str(error))
    except (TomlError, ScenarioError, ScriptError) as error:
        why = str(error)
    raise TaskError(f"{one_line(source)}: {one_line(why, LONGEST_QUOTE)}")


def _parsed(data: bytes, path: Path, profile: str | None, kernels: Levels) -> Task:
    found = msgspec.convert(table_of(data), TaskFile)
    machine = replace(found.machine, name=one_line(path.stem))
    if profile is not None:
        machine = replace(machine, profile=profile)
    check(machine)
    if machine.at or machine.expect:
        raise TaskError(f"{one_line(str(path))}: a machine with steps of its own; use `before`")
    names = [actor.name for actor in found.actor]
    if len(set(names)) < len(names):
        raise TaskError(f"{one_line(str(path))}: two actors have one name")
    for must in found.must:
        _require_state(must)
    return Task(
        name=machine.name,
        description=found.description,
        machine=machine,
        before=(*_kernel_steps(found.kernels, kernels), *map(_step, found.before)),
        actors=tuple(names),
        steps=tuple(_steps_of(actor, path.parent) for actor in found.actor),
        must=found.must,
        without=frozenset(found.without),
    )


def _require_state(must: Must) -> None:
    if (must.text is None) == (must.error is None):
        raise TaskError(f"must of {one_line(must.file)}: either `text` or `error`")
    folder, _, name = must.file.rpartition("/")
    told = name in _NO_STATE and f"{folder}/".startswith(FOLDER)
    if told or "/s390dbf/" in must.file or "/tracing/" in must.file:
        raise TaskError(f"must of {one_line(must.file)}: no state of the machine, but its history")


def _kernel_steps(own: Levels, asked: Levels) -> list[Step]:
    files = {"ap": "ap/profile", "mmu": "kvm/mmu_profile", "apicv": "kvm/apicv_profile"}
    chosen = {part: getattr(asked, part) or getattr(own, part) for part in files}
    return [
        Step(0, "put", "ok", f"{FOLDER}{files[part]}", f"{level}\n".encode())
        for part, level in chosen.items()
        if level is not None
    ]


def _steps_of(actor: Actor, folder: Path) -> tuple[Step, ...]:
    if (actor.replay is None) == (not actor.steps):
        raise TaskError(f"actor {actor.name}: either `steps` or `replay`")
    if actor.replay is None:
        return tuple(map(_step, actor.steps))
    script = recording_in(folder / actor.replay)
    made = tuple(_plain(step) for step in steps(script) if step.word not in _OF_TIME)
    if not 0 < len(made) <= MOST_STEPS:
        raise TaskError(f"actor {actor.name}: {len(made)} steps, not 1 to {MOST_STEPS}")
    return made


def _plain(step: Step) -> Step:
    """Return a step without its place in a script and its result there."""
    return step._replace(number=0, result="")


def _step(write: Write) -> Step:
    if (write.write is None) == (write.advance is None):
        raise TaskError("a step: either `write` or `advance`")
    if write.advance is not None:
        return Step(0, "advance", seconds=f"{write.advance:.9f}")
    path: Any = write.write
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise TaskError(f"{one_line(repr(path), LONGEST_QUOTE)} is no path below the mount")
    return Step(0, "add" if write.append else "put", "", path, f"{write.text}\n".encode())
