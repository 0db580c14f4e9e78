"""The comment lines that begin `trace`. Like kernel/trace/trace.c:print_func_help_header_irq."""

from __future__ import annotations

from fakesys.subsystems.tracing.base.options import BLK_CLASSIC, Options
from fakesys.subsystems.tracing.base.policy import Build

_CLASSIC = (
    "# DEV   CPU TIMESTAMP     PID ACT FLG\n"
    "#  |     |     |           |   |   |\n"
)  # fmt: skip
_FLAGS = (
    "                               _-----=> irqs-off/BH-disabled",
    "                              / _----=> need-resched",
    "                             | / _---=> hardirq/softirq",
    "                             || / _--=> preempt-depth",
    "                             ||| / _-=> migrate-disable",
    "                             |||| /     delay",
)
_COLUMNS = {
    (True, False): (
        "#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n"
        "#              | |         |   |||||     |         |\n"
    ),
    (True, True): (
        "#           TASK-PID       TGID    CPU#  |||||  TIMESTAMP  FUNCTION\n"
        "#              | |           |       |   |||||     |         |\n"
    ),
    (False, False): (
        "#           TASK-PID     CPU#     TIMESTAMP  FUNCTION\n"
        "#              | |         |         |         |\n"
    ),
    (False, True): (
        "#           TASK-PID       TGID    CPU#     TIMESTAMP  FUNCTION\n"
        "#              | |           |       |         |         |\n"
    ),
}
_LATENCY_COLUMNS = (
    "#                    _------=> CPU#            \n"
    "#                   / _-----=> irqs-off/BH-disabled\n"
    "#                  | / _----=> need-resched    \n"
    "#                  || / _---=> hardirq/softirq \n"
    "#                  ||| / _--=> preempt-depth   \n"
    "#                  |||| / _-=> migrate-disable \n"
    "#                  ||||| /     delay           \n"
    "#  cmd     pid     |||||| time  |   caller     \n"
    "#     \\   /        ||||||  \\    |    /       \n"
)


def header(
    tracer: str,
    options: Options,
    entries: int,
    written: int,
    cpus: int,
    build: Build,
    *,
    empty: bool,
) -> str:
    """Return the header for these options and counts.

    `entries`: events in the buffers, `written`: those and the overwritten ones; `empty`: no event
    follows the header. Like kernel/trace/trace.c:trace_default_header and
    kernel/trace/blktrace.c:blk_tracer_print_header (v6.1).
    """
    first = tracer_line(tracer)
    if tracer == "blk":
        return first + (_CLASSIC if options[BLK_CLASSIC] else "")
    if not options["context-info"]:
        return first
    verbose = options["verbose"]
    if options["latency-format"]:
        if empty:
            return first
        columns = "" if verbose else _LATENCY_COLUMNS
        return first + _latency_header(entries, written, cpus, build) + columns
    return first if verbose else first + _columns(options, entries, written, cpus)


def tracer_line(tracer: str) -> str:
    """Return what every header begins with."""
    return f"# tracer: {tracer}\n#\n"


def _columns(options: Options, entries: int, written: int, cpus: int) -> str:
    tgid, irq_info = options["record-tgid"], options["irq-info"]
    flags = ""
    if irq_info:
        indent = " " * 10 if tgid else ""
        flags = "".join(f"# {indent}{line}\n" for line in _FLAGS)
    counts = f"# entries-in-buffer/entries-written: {entries}/{written}   #P:{cpus}\n#\n"
    return counts + flags + _COLUMNS[irq_info, tgid]


def _latency_header(entries: int, written: int, cpus: int, build: Build) -> str:
    return (
        f"# nop latency trace v1.1.5 on {build.release}\n"
        "# --------------------------------------------------------------------\n"
        f"# latency: 0 us, #{entries}/{written}, CPU#0 | "
        f"(M:{build.preemption} VP:0, KP:0, SP:0 HP:0 #P:{cpus})\n"
        "#    -----------------\n"
        "#    | task: -0 (uid:0 nice:0 policy:0 rt_prio:0)\n"
        "#    -----------------\n"
        "#\n"
    )
