"""The flags of `trace_options` and `options/`. Like kernel/trace/trace.h:TRACE_FLAGS (v6.18)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from errno import EINVAL

from fakesys.core.errors import KernelError

# Options of the tracer nop, which all instances share: kernel/trace/trace_nop.c:nop_set_flag.
NOP_ACCEPT, NOP_REFUSE = "test_nop_accept", "test_nop_refuse"
# Options of the tracer blk, which only the top directory has: kernel/trace/blktrace.c.
BLK_CLASSIC = "blk_classic"
BLK = (BLK_CLASSIC, "blk_cgroup", "blk_cgname")
# In the order of the kernel; true: set at boot.
_ALL: dict[str, bool] = {
    "print-parent": True,
    "sym-offset": False,
    "sym-addr": False,
    "verbose": False,
    "raw": False,
    "hex": False,
    "bin": False,
    "block": False,
    "fields": False,
    "trace_printk": True,
    "annotate": True,
    "userstacktrace": False,
    "sym-userobj": False,
    "printk-msg-only": False,
    "context-info": True,
    "latency-format": False,
    "record-cmd": True,
    "record-tgid": False,
    "overwrite": True,
    "disable_on_free": False,
    "irq-info": True,
    "markers": True,
    "event-fork": False,
    "trace_printk_dest": True,
    "copy_trace_marker": True,
    "pause-on-trace": False,
    "hash-ptr": True,
    "stacktrace": False,
    NOP_ACCEPT: False,
    NOP_REFUSE: False,
    **dict.fromkeys(BLK, False),
}
OF_TRACERS: Mapping[str, tuple[str, ...]] = {"nop": (NOP_ACCEPT, NOP_REFUSE), "blk": BLK}
"""The options of each tracer, in the order of the kernel."""
# Options of the whole machine: instances have no file for them (TOP_LEVEL_TRACE_FLAGS).
GLOBAL = frozenset(("trace_printk", "printk-msg-only", "record-cmd", *BLK))
# Off in a new instance, whatever the top directory has: trace.c:ZEROED_TRACE_FLAGS.
NOT_COPIED = frozenset(("event-fork", "trace_printk_dest", "copy_trace_marker", *BLK))


class Options:
    """The flags of one instance.

    `top`: does the instance have files for the options of the whole machine?
    """

    def __init__(self, flags: Mapping[str, bool], *, top: bool) -> None:
        self.top = top
        self._on = dict(flags)
        # Incremented with every change, so that a renderer made for these options can be kept.
        self.version = 0
        # The option `stacktrace`, which each recorded event asks for.
        self.stacks = self["stacktrace"]

    def __getitem__(self, name: str) -> bool:
        return self._on.get(name, False)

    @staticmethod
    def at_boot(absent: Set[str]) -> Options:
        """Return the options of the top directory; `absent`: those that this kernel lacks."""
        flags = {name: on for name, on in _ALL.items() if name not in absent}
        return Options(flags, top=True)

    def for_new_instance(self) -> Options:
        """Return the options of an instance that is made while the top directory has these."""
        flags = {name: on and name not in NOT_COPIED for name, on in self._on.items()}
        return Options(flags, top=False)

    def names(self) -> Iterable[str]:
        """Return the options that have a file, in the kernel's order."""
        return (name for name in self._on if self.top or name not in GLOBAL)

    def switch(self, name: str, on: bool) -> None:
        """Set or clear an option. Raises EINVAL for an unknown name."""
        if name not in self._on:
            raise KernelError(EINVAL, f"{name!r} is no trace option")
        self._on[name] = on
        self.version += 1
        self.stacks = self["stacktrace"]

    def switched_on(self) -> tuple[str, ...]:
        """Return the options that are on, those without a file too, in the kernel's order."""
        return tuple(name for name, on in self._on.items() if on)

    def text(self, tracer: str) -> str:
        """Return one option a line, with `no` before those that are off; of this tracer only."""
        return "".join(
            f"{name}\n" if on else f"no{name}\n"
            for name, on in self._on.items()
            if is_of(tracer, name)
        )


def is_of(tracer: str, name: str) -> bool:
    """Return whether an option has a meaning while a tracer is set."""
    return name in OF_TRACERS[tracer] or not any(name in each for each in OF_TRACERS.values())
