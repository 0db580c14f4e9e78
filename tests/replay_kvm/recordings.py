"""A folder of recordings, read and checked: `scenarios/*.json` or the files themselves.

Their format is that of tests/oracle/kvm/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ORACLE = Path(__file__).parent.parent / "oracle" / "kvm"
ALIASES = "aliases.json"

# Op -> arguments that it cannot do without.
OPS: dict[str, tuple[str, ...]] = {
    "mem": ("name", "size"),
    "create_vm": (),
    "irqchip": (),
    "destroy_vm": (),
    "slot": ("slot", "gpa", "size"),
    "badslot": ("slot", "gpa", "size", "ua", "flags"),
    "quirks2": ("mask",),
    "cap": ("cap", "arg"),
    "guest_tables": (),
    "create_vcpu": ("id",),
    "close_vcpu": ("id",),
    "setup_vcpu": ("id",),
    "set_cr3": ("id", "cr3"),
    "guest": ("vcpu", "prog"),
    "run_real": ("vcpu", "code"),
    "dirty_log": ("slot",),
    "clear_dirty": ("slot", "first", "n"),
    "nr_mmu_pages": ("n",),
    "get_nr_mmu_pages": (),
    "host_write": ("mem", "off", "hexdata"),
    "madvise": ("mem", "off", "size"),
    "mprotect": ("mem", "off", "size"),
    "gauges": (),
    "param": ("name", "value"),
    "munmap": ("mem", "off", "size"),
    "fork": (),
    "fork_end": (),
    "smi": ("id",),
    "ring": ("id", "first", "n"),
    "ring_reset": (),
    "clear_stat": ("file",),
}


class RecordingError(ValueError):
    """A folder or file that cannot be replayed; the text names it and says why."""


@dataclass(frozen=True)
class Recordings:
    """Scenarios by name, in order; `aliases`: lists of events that they abbreviate."""

    scenarios: tuple[dict[str, Any], ...]
    aliases: dict[str, list[str]]

    def named(self, name: str) -> dict[str, Any]:
        """One scenario. Raises KeyError."""
        return {scenario["scenario"]: scenario for scenario in self.scenarios}[name]


def load(folder: Path) -> Recordings:
    """All recordings of a folder. Raises RecordingError."""
    if not folder.is_dir():
        raise RecordingError(f"{folder}: no such folder")
    inner = folder / "scenarios"
    place = inner if inner.is_dir() else folder
    scenarios = tuple(_scenarios(place))
    if not scenarios:
        raise RecordingError(f"{folder}: no recordings in it (*.json with a key 'scenario')")
    return Recordings(scenarios, _aliases(place))


def _scenarios(place: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(place.glob("*.json")):
        content = _json(path)
        if isinstance(content, dict) and "scenario" in content:
            _check(path, content)
            yield content


def _aliases(place: Path) -> dict[str, list[str]]:
    for folder in (place, place.parent):
        if (folder / ALIASES).is_file():
            content = _json(folder / ALIASES)
            if not isinstance(content, dict):
                raise RecordingError(f"{folder / ALIASES}: no JSON object")
            return content
    return {}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path}: {error}") from None


def _check(path: Path, content: dict[str, Any]) -> None:
    steps = content.get("steps")
    if not isinstance(steps, list):
        raise RecordingError(f"{path}: 'steps' is no list")
    for number, step in enumerate(steps):
        where = f"{path}: step {number}"
        op = step.get("op") if isinstance(step, dict) else None
        if op not in OPS:
            raise RecordingError(f"{where}: {op!r} is none of {', '.join(OPS)}")
        missing = [name for name in OPS[op] if name not in step.get("args", {})]
        if missing:
            raise RecordingError(f"{where}: {op} without {', '.join(missing)}")
