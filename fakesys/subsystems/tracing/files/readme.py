"""The text of `README`. Programs search it for words, so it names what is offered and no more."""

from __future__ import annotations

from fakesys.subsystems.tracing.base.policy import Build

_BASE = """tracing mini-HOWTO:

# echo 0 > tracing_on : stop recording, the buffers keep what they have
# echo 1 > tracing_on : record again

 Files of the top directory:
  trace\t\t\t- The recorded events as text; open it with O_TRUNC to clear
  trace_pipe\t\t- The same as a stream: what is read is gone, readers wait
  trace_marker\t\t- Write a text into the buffer
  trace_marker_raw\t- Write a 4-byte id and bytes into the buffer
  available_events\t- All events as SYSTEM:EVENT
  set_event\t\t- The enabled events; write SYSTEM:EVENT, SYSTEM:*, !SYSTEM:EVENT
  set_event_pid\t\t- Record events of these tasks only
  set_event_notrace_pid\t- Record no events of these tasks
  current_tracer\t- What traces besides events: nop, or blk for block devices
  available_tracers\t- The names that current_tracer takes
  trace_clock\t\t- Which clock stamps the events; a change clears the buffer
  timestamp_mode\t- How time stamps are stored
  trace_options\t\t- Switches, one a line; write NAME or noNAME
  options/\t\t- The same switches as files
  tracing_cpumask\t- Which CPUs record
  buffer_size_kb\t- Size of the buffer of each CPU
  buffer_total_size_kb\t- Size of all buffers
  buffer_percent\t- How full a buffer must be to wake a poller
  free_buffer\t\t- Closing this file shrinks the buffers
  error_log\t\t- The last mistakes in filters and triggers
  saved_cmdlines\t- Names of tasks by pid
  saved_cmdlines_size\t- How many names are kept
  saved_tgids\t\t- Thread groups of tasks by pid
  instances/\t\t- Make a directory here: further buffers with their own events
  per_cpu/cpuN/\t\t- trace, trace_pipe, trace_pipe_raw, stats, buffer_size_kb of a CPU
"""
_SNAPSHOT = """  snapshot\t\t- Write 1: keep the buffer as it is, 0: free it, 2: clear it
"""
_EVENTS = """
 events/:
  enable\t\t- 0 or 1: switch all events
  SYSTEM/enable\t\t- 0 or 1: switch the events of a system
  SYSTEM/filter\t\t- A filter for all events of a system that have its fields
  SYSTEM/EVENT/enable\t- 0 or 1: switch an event
  SYSTEM/EVENT/filter\t- Record only what fits, such as: common_pid != 0 && CPU < 2
  SYSTEM/EVENT/format\t- The fields of a record
  SYSTEM/EVENT/id\t- The common_type of its records
  SYSTEM/EVENT/trigger\t- What else happens: <trigger>[:count][if <filter>]
\t   trigger: traceon, traceoff
\t            enable_event:<system>:<event>
\t            disable_event:<system>:<event>
\t            stacktrace
"""
_HIST = """\t            enable_hist:<system>:<event>
\t            disable_hist:<system>:<event>
\t            hist (see below)
  SYSTEM/EVENT/hist\t- The histograms of an event
\t    hist:keys=<field1[,field2,...]>
\t      [:values=<field1[,field2,...]>]
\t      [:sort=<field1[,field2,...]>]
\t      [:size=#entries]
\t      [:pause][:continue][:clear]
\t      [:name=histname1]
\t      [:<var1>=<field|var_ref|numeric_literal>[,<var2>=...]]
\t      [:<handler>.<action>]
\t      [if <filter>]
\t    Modifiers of a field: .hex .sym .sym-offset .execname .syscall .log2 .buckets=size
\t    of a value also: .percent .graph; of a sort key: .descending
\t    Handlers: onmatch(matching.event)  - when the event follows the other one
\t              onmax(var)               - when the variable is greater than before
\t              onchange(var)            - when the variable is another than before
\t    Actions: trace(<synthetic_event>,param list)  - make a synthetic event
\t             <synthetic_event>(param list)        - the same
\t             save(field,...)                      - keep fields of this event
\t             snapshot()                           - keep the buffer as it is
"""
_SYNTHETIC = """  synthetic_events\t- Define events that histograms make, remove them by !NAME
\t  Syntax: <name> <type> <field>[; <type> <field>...]
\t  Example: echo 'wake u64 lat; char name[]' >> synthetic_events
  dynamic_events\t- The same with the kind of event, which is always s
\t  Syntax: s:[synthetic/]<name> <type> <field>[; <type> <field>...]
"""


def readme(build: Build) -> str:
    """Return the README of a kernel."""
    text = _BASE + (_SNAPSHOT if build.snapshot else "")
    text += (_SYNTHETIC if build.hist else "") + _EVENTS
    text += "\t            snapshot\n" if build.snapshot else ""
    return text + (_HIST if build.hist else "")
