"""Texts of the control files: what is written becomes a call of the model, state becomes text."""

from __future__ import annotations

import re
from collections.abc import Callable
from errno import EINVAL, EOVERFLOW
from functools import partial

from fakesys.core.errors import KernelError
from fakesys.core.text import kstrtoull
from fakesys.subsystems.tracing.base.clocks import NAMES, stamp_text
from fakesys.subsystems.tracing.base.options import NOP_REFUSE, is_of
from fakesys.subsystems.tracing.events.synthetic import Log
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.instances.synthetic import run_commands
from fakesys.subsystems.tracing.ring_buffer.buffer_set import DEFAULT_KB

_GROUPS = re.compile(r"[\s,]")
# The longest line of a file of definitions (WRITE_BUFSIZE - 2).
COMMAND_ROOM = 4094
_HEX = re.compile("[0-9a-fA-F]+")


def decimal(text: str) -> int:
    """Parse a number in base 10. Raises EINVAL, ERANGE."""
    return kstrtoull(text, base=10)


def zero_or_one(text: str) -> bool:
    """Parse a switch. Raises EINVAL for any other number."""
    value = decimal(text)
    if value > 1:
        raise KernelError(EINVAL, f"{value} is neither 0 nor 1")
    return value == 1


def hold(instance: Instance) -> Callable[[], None]:
    """Keep an instance from being removed; return what lets it go."""
    instance.opened += 1

    def let_go() -> None:
        instance.opened -= 1

    return let_go


def write_tracing_on(instance: Instance, text: str) -> None:
    """Switch recording: 0 is off, any other number on. Raises EINVAL, ERANGE."""
    instance.switch(decimal(text) != 0)


def write_tracer(instance: Instance, text: str) -> None:
    """Choose the tracer. Raises EINVAL for an unknown one."""
    instance.set_tracer(text.strip())


def clock_text(instance: Instance) -> str:
    """Return all clocks, the current one in brackets."""
    words = (f"[{name}]" if name == instance.clock else name for name in NAMES)
    return " ".join(words) + "\n"


def write_clock(instance: Instance, text: str) -> None:
    """Choose a clock by name. Raises EINVAL."""
    instance.set_clock(text.strip())


def write_option(instance: Instance, text: str) -> None:
    """Set NAME or clear noNAME. Like kernel/trace/trace.c:trace_set_options (v6.1).

    Raises EINVAL for an unknown name, and for the option that nop refuses even if it would not
    change.
    """
    word = text.strip()
    on = not word.startswith("no")
    name = word if on else word.removeprefix("no")
    if name == NOP_REFUSE:
        raise KernelError(EINVAL, "the tracer nop refuses this option")
    if not is_of(instance.tracer, name):
        raise KernelError(EINVAL, f"{name} is an option of another tracer")
    instance.set_option(name, on)


def cpumask_text(instance: Instance) -> str:
    """Return hex digits, in groups of 32 bits."""
    return mask_text(instance.cpumask, instance.shared.cpus)


def mask_text(mask: int, bits: int) -> str:
    """Return a bitmap as `%*pb` prints it: as many digits as `bits` needs, a comma every eight."""
    digits = f"{mask:0{-(-bits // 4)}x}"
    groups = [digits[max(0, end - 8) : end] for end in range(len(digits), 0, -8)]
    return ",".join(reversed(groups)) + "\n"


def write_cpumask(instance: Instance, text: str) -> None:
    """Record on these CPUs only. Raises EINVAL, EOVERFLOW for a CPU that does not exist."""
    instance.cpumask = parse_mask(text, instance.shared.cpus)


def parse_mask(text: str, bits: int) -> int:
    """Parse groups of up to eight hex digits, the last one lowest. Raises EINVAL, EOVERFLOW.

    Like lib/bitmap-str.c:bitmap_parse (v6.18): it begins at the end and stops at what is wrong.
    """
    groups = [group for group in _GROUPS.split(text.partition("\n")[0]) if group]
    value = 0
    for place, group in enumerate(reversed(groups)):
        if place >= -(-bits // 32):
            raise KernelError(EOVERFLOW, f"{text!r} has more than {place} groups")
        if not _HEX.fullmatch(group[-8:]):
            raise KernelError(EINVAL, f"{text!r} is no mask")
        if len(group) > 8:
            refusal = EOVERFLOW if _HEX.fullmatch(group[-9]) else EINVAL
            raise KernelError(refusal, f"{group!r} has more than eight digits")
        value |= int(group, 16) << 32 * place
    if value >> bits:
        raise KernelError(EOVERFLOW, f"there are {bits} CPUs")
    return value


def write_percent(instance: Instance, text: str) -> None:
    """Set `buffer_percent`. Raises EINVAL for more than 100."""
    value = decimal(text)
    if value > 100:
        raise KernelError(EINVAL, f"{value} is more than 100")
    instance.percent = value


def size_text(instance: Instance) -> str:
    """Return the KB per CPU, X if they differ."""
    sizes = {instance.size_kb(cpu) for cpu in range(len(instance.buffers))}
    if len(sizes) > 1:
        return "X\n"
    return _size(sizes.pop(), instance.buffers.expanded, DEFAULT_KB)


def total_size_text(instance: Instance) -> str:
    """Return the KB of all CPUs."""
    cpus = len(instance.buffers)
    total = sum(instance.size_kb(cpu) for cpu in range(cpus))
    return _size(total, instance.buffers.expanded, DEFAULT_KB * cpus)


def cpu_size_text(instance: Instance, cpu: int) -> str:
    """Return the KB of one CPU."""
    return _size(instance.size_kb(cpu), instance.buffers.expanded, DEFAULT_KB)


def _size(kilobytes: int, expanded: bool, later: int) -> str:
    return f"{kilobytes}\n" if expanded else f"{kilobytes} (expanded: {later})\n"


def stats_text(instance: Instance, cpu: int) -> str:
    """Return the counts of one buffer. Like kernel/trace/trace.c:tracing_stats_read (v6.1)."""
    buffer = instance.buffers.live[cpu]
    oldest = buffer.oldest_stamp() or 0
    in_ns = instance.in_ns
    return (
        f"entries: {buffer.entries}\n"
        f"overrun: {buffer.overrun}\n"
        "commit overrun: 0\n"
        f"bytes: {buffer.bytes}\n"
        f"oldest event ts: {stamp_text(oldest, in_ns=in_ns)}\n"
        f"now ts: {stamp_text(instance.now(), in_ns=in_ns)}\n"
        f"dropped events: {buffer.dropped}\n"
        f"read events: {buffer.read_events}\n"
    )


def free_on_close(instance: Instance) -> None:
    """Do what closing `free_buffer` does."""
    if instance.options["disable_on_free"]:
        instance.switch(False)
    instance.buffers.shrink()


def available_events(instance: Instance) -> str:
    """Return all events as SYSTEM:EVENT, one a line."""
    return "".join(f"{form.name}\n" for form in instance.shared.catalog.events)


def write_cmdlines_size(instance: Instance, text: str) -> None:
    """Set how many names of tasks are kept. Raises EINVAL."""
    instance.shared.cmdlines.resize(decimal(text))


def write_synthetic(instance: Instance, text: str) -> None:
    """Define and remove synthetic events, one a line.

    Raises EINVAL, EEXIST, ENOENT, EBUSY; mistakes in a definition are logged.
    """
    _define(instance, text, instance.owner.synthetic.obey)


def write_dynamic(instance: Instance, text: str) -> None:
    """Do the same in the language of `dynamic_events`."""
    _define(instance, text, instance.owner.synthetic.obey_dynamic)


def _define(instance: Instance, text: str, obey: Callable[[str, Log], None]) -> None:
    def obey_line(line: str) -> None:
        command = line.lstrip()

        obey(command, partial(instance.log_mistake, "synthetic_events", command))

    run_commands(text, obey_line, COMMAND_ROOM)
