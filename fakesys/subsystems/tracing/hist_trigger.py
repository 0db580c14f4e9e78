"""Histograms as triggers."""

from __future__ import annotations

from fakesys.subsystems.tracing.events import EventFile


def clear_hists(file: EventFile) -> None:
    """O_TRUNC."""
