"""A thread that ends what keeps the machine's thread busy for too long.

What is watched lies between `enter` and `leave`, on whichever thread it runs. `Overdue` is raised
there, and nowhere else: `leave` waits for one that is on its way. It cannot end a single call of a
C function, such as the encoding of one huge text.
"""

from __future__ import annotations

import ctypes
import threading
import time

DEFAULT_SECONDS = 30.0
# After a signal that ends the daemon, nothing may take longer.
HURRY_SECONDS = 1.0
# How often to look, as parts of the limit, and in seconds at most.
LOOKS = 10
LONGEST_LOOK = 1.0

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = (ctypes.c_ulong, ctypes.py_object)


class Overdue(BaseException):
    """What is watched has run longer than the limit. No model catches it."""


class Watchdog:
    """Watches one section after the other; `seconds`: how long one of them may take."""

    def __init__(self, seconds: float = DEFAULT_SECONDS) -> None:
        self.seconds = seconds
        # The number of the section, and the thread in it; 0 while there is none.
        self.section = 0
        self.thread = 0
        # The section that `Overdue` is meant for, 0 for none, and whether it was raised.
        self.aimed = 0
        self._raised = False
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def hurry(self) -> None:
        """Allow a second at most from now on. May be called by a signal handler."""
        self.seconds = min(self.seconds, HURRY_SECONDS)

    @property
    def watching(self) -> bool:
        """Whether a section has begun and not ended."""
        return self.thread != 0

    def enter(self) -> None:
        """Begin a section on this thread."""
        self.section += 1
        self.thread = threading.get_ident()

    def leave(self) -> None:
        """End the section; `Overdue` is not raised any more."""
        self.thread = 0
        if self.aimed:
            self.take()

    def take(self) -> None:
        """Take an `Overdue` that is on its way, or was raised before."""
        try:
            while self.aimed and not self._raised:
                time.sleep(0.001)
            # Raised in this thread before the next few steps of the interpreter.
            for _ in range(100):
                pass
        except Overdue:
            pass
        self.aimed, self._raised = 0, False

    def _run(self) -> None:
        section, since = 0, 0.0
        while not self._stopped.wait(min(self.seconds / LOOKS, LONGEST_LOOK)):
            now = time.monotonic()
            if not self.thread or self.section != section:
                section, since = self.section, now
            elif now - since >= self.seconds:
                self._end(section, self.thread)

    def _end(self, section: int, thread: int) -> None:
        """Raise `Overdue` in a thread that is in this section still."""
        if self.aimed:
            return
        self._raised, self.aimed = False, section
        # A section that ends after this line sees what was aimed at it, and waits.
        if thread and self.section == section and self.thread == thread:
            _raise_in(thread, Overdue)
            self._raised = True
        else:
            self.aimed = 0
