"""tracefs: recorded events, buffers per CPU, filters, triggers, histograms, instances.

`instances/tracing.py:Tracing` is the whole: it owns the top directory and the other instances,
each an `Instance`, and everything they have in common, `Shared`. An instance owns a `BufferSet` of
one `CpuBuffer` per CPU, and one `EventFile` per event, which owns its filter and its triggers.

The folders, lowest first; each imports only from those before it:

    base         clocks, options, names of tasks, error log, and what kernels differ in
    events       system ftrace, events of real processes, the catalog of all events
    filter       a filter becomes a function, or an error with its place
    hist         histograms: their language, their counts, their actions
    ring_buffer  the pages of one CPU and their binary form; the buffers of all CPUs
    output       records become lines, with and without consuming them
    instances    event files, triggers, instances, and all of them together
    files        the tables: names, modes, texts
    saved        all of it as plain values, for snapshots

The way of an event: `Bus.emit`, `Listeners`, `EventFile.handle` (filter, pids, triggers),
`Instance.record`, `CpuBuffer.write`. Each step calls only the next one and the objects below it.

Between two commands holds: tracing is subscribed to an event of the bus if and only if an event
file of some instance is attached to it, and `EventFile.records_only` is up to date.

Follows kernel/trace/ of v6.1 and v6.18; each folder names its files. Example:

    cd sys/kernel/tracing
    echo 'vec == 0x35' > events/kvm/kvm_apic_accept_irq/filter
    echo 1 > events/kvm/kvm_apic_accept_irq/enable
    cat trace
"""
