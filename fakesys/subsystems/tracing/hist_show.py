"""The text of an event's `hist` file."""

from __future__ import annotations

from fakesys.subsystems.tracing.events import EventFile


def hist_text(file: EventFile) -> str:
    return ""
