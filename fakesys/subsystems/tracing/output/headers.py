"""The comment lines that begin `trace`. Like kernel/trace/trace.c:print_func_help_header_irq."""

from __future__ import annotations

from fakesys.subsystems.tracing.base.options import Options
from fakesys.subsystems.tracing.base.policy import Build

_TRACER = "# tracer: nop\n#\n"
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
    options: Options, entries: int, written: int, cpus: int, build: Build, *, empty: bool
) -> str:
    """Return the header for these options and counts. Like trace.c:trace_default_header (v6.1).

    `entries`: events in the buffers, `written`: those and the overwritten ones; `empty`: no event
    follows the header.
    """
    if not options["context-info"]:
        return _TRACER
    verbose = options["verbose"]
    if options["latency-format"]:
        if empty:
            return _TRACER
        columns = "" if verbose else _LATENCY_COLUMNS
        return _latency_header(entries, written, cpus, build) + columns
    return _TRACER if verbose else _TRACER + _columns(options, entries, written, cpus)


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
        f"{_TRACER}# nop latency trace v1.1.5 on {build.release}\n"
        "# --------------------------------------------------------------------\n"
        f"# latency: 0 us, #{entries}/{written}, CPU#0 | "
        f"(M:{build.preemption} VP:0, KP:0, SP:0 HP:0 #P:{cpus})\n"
        "#    -----------------\n"
        "#    | task: -0 (uid:0 nice:0 policy:0 rt_prio:0)\n"
        "#    -----------------\n"
        "#\n"
    )
