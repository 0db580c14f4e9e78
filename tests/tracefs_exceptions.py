"""Recorded tracefs operations that fakesys answers otherwise, each with its reason."""

from __future__ import annotations

# (case, index of the operation) -> why.
KNOWN: dict[tuple[str, int], str] = {
    ("tracers", 0): "the recorded kernel has a function tracer; here is `nop` alone",
}
