"""Snapshots that a test has changed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

# All but the head, which is one line, and the checksum.
PARTS = ("origin", "models", "control", "uevents", "log", "timeline")


def sealed(document: dict[str, Any]) -> bytes:
    """The lines of a file: one for the head, one for each part, and the checksum that fits."""
    head = {name: document[name] for name in document if name not in (*PARTS, "sha256")}
    lines = [json.dumps(head)[:-1]]
    lines += [
        f"{json.dumps(name)}:{json.dumps(document[name])}" for name in document if name in PARTS
    ]
    text = (",\n".join(lines) + ",\n").encode()
    return text + b'"sha256":"' + hashlib.sha256(text).hexdigest().encode() + b'"}\n'
