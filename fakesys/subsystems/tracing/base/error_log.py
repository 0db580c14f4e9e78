"""The last eight mistakes in filters and triggers. Like kernel/trace/trace.c:tracing_log_err."""

from __future__ import annotations

from collections import deque

KEPT = 8
COMMAND = "  Command: "


class ErrorLog:
    """Texts with a caret under the mistake, oldest first."""

    def __init__(self) -> None:
        self._entries: deque[str] = deque(maxlen=KEPT)

    def add(self, now_ns: int, where: str, command: str, message: str, position: int) -> None:
        """Note that `command` was wrong at `position`; `where` names the part that says so."""
        micro = now_ns // 1000
        self._entries.append(
            f"[{micro // 1_000_000:5}.{micro % 1_000_000:06}] {where}: error: {message}\n"
            f"{COMMAND}{command}\n{' ' * (len(COMMAND) + position)}^\n"
        )

    def clear(self) -> None:
        """Forget them all."""
        self._entries.clear()

    def text(self) -> str:
        """All entries."""
        return "".join(self._entries)
