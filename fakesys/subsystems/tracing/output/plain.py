"""The lines of `trace` with the usual options, many at once.

What precedes the time depends on the task, the CPU and the second only, so it is kept; what follows
is made by the function that was compiled for the event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fakesys.core.event_format import COMMON_SIZE
from fakesys.core.print_fmt.compiler import LinePrinter
from fakesys.subsystems.tracing.base.saved_cmdlines import SavedCmdlines

MICROSECONDS = 1_000_000

# The line of the task of a record: CPU and record to what precedes the time.
PrefixMaker = Callable[[int, bytes], str]


class PlainLines:
    """Makes lines of records.

    `prefix`: makes what precedes the time; `printers`: makes the function of an event by its
    number.
    """

    def __init__(
        self,
        prefix: PrefixMaker,
        printers: Callable[[int], LinePrinter],
        cmdlines: SavedCmdlines,
    ) -> None:
        self._prefix = prefix
        self._printers = printers
        self._cmdlines = cmdlines
        self._version = cmdlines.version
        # By CPU, then by the common fields of a record: its printer and what precedes the time.
        self._heads: dict[int, dict[bytes, tuple[LinePrinter, bytes]]] = {}
        # The second that was printed last, as text, and where it begins in microseconds.
        self._second, self._second_at = "", -MICROSECONDS

    def lines(self, cpu: int, stamps: Sequence[int], payloads: Sequence[bytes]) -> list[bytes]:
        """Return the lines of events of one CPU."""
        if self._version != self._cmdlines.version:
            self._version = self._cmdlines.version
            self._heads.clear()
        heads = self._heads.setdefault(cpu, {})
        begin = self._second_at
        made: list[bytes] = []
        add = made.append
        for stamp, payload in zip(stamps, payloads, strict=True):
            micro = (stamp + 500) // 1000 - begin
            if not 0 <= micro < MICROSECONDS:
                micro = self._begin_second(micro + begin)
                begin = self._second_at
                heads = self._heads[cpu] = {}
            found = heads.get(payload[:COMMON_SIZE])
            if found is None:
                found = heads[payload[:COMMON_SIZE]] = self._head(cpu, payload)
            add(found[0](found[1], micro, payload))
        return made

    def _head(self, cpu: int, payload: bytes) -> tuple[LinePrinter, bytes]:
        head = f"{self._prefix(cpu, payload)}{self._second}"
        return self._printers(payload[0] | payload[1] << 8), head.encode("latin-1")

    def _begin_second(self, micro: int) -> int:
        """Keep the text of the second of this time; return the microseconds into it."""
        seconds, passed = divmod(micro, MICROSECONDS)
        self._second, self._second_at = f"{seconds:5}.", micro - passed
        self._heads.clear()
        return passed
