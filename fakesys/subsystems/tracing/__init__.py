"""tracefs: recorded events, per-CPU buffers, filters, triggers, instances."""
