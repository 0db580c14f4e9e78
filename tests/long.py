"""Whether tests run with the full numbers rather than in their fast form."""

from __future__ import annotations

import os

LONG = os.environ.get("FAKESYS_LONG", "") not in ("", "0")
