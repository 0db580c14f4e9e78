"""The last eight errors in filters and triggers. Like kernel/trace/trace.c:tracing_log_err."""

from __future__ import annotations

from collections import deque

# TRACING_LOG_ERRS_MAX.
KEPT = 8
COMMAND = "  Command: "


class ErrorLog:
    """The text of `error_log`: entries with a caret under the error, oldest first."""

    def __init__(self) -> None:
        self.entries: deque[str] = deque(maxlen=KEPT)

    def add(self, now_ns: int, where: str, command: str, message: str, position: int) -> None:
        """Append an entry; the oldest of eight is dropped.

        `where` names the parser that reports the error, `position` is its index in `command`.
        """
        micro = now_ns // 1000
        self.entries.append(
            f"[{micro // 1_000_000:5}.{micro % 1_000_000:06}] {where}: error: {message}\n"
            f"{COMMAND}{command}\n{' ' * (len(COMMAND) + position)}^\n"
        )

    def clear(self) -> None:
        """Drop all entries."""
        self.entries.clear()

    def text(self) -> str:
        """Return all entries."""
        return "".join(self.entries)
