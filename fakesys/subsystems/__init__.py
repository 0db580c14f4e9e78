"""The subsystems of the simulated kernel, one folder each.

A subsystem is a model that speaks numbers (`model.py` where a folder has one), tables of rows that
speak text (`files.py` or `files/`, commands in `commands/`), tracepoints (`events/`) and the
features by which kernels differ (`features.py`, `policy.py`). A model imports neither tree nor
commands.

They build on each other in this order, and import earlier ones only:

    driver_core  modules  control  selftest  device_nodes  s390dbf  ap_bus  mdev  vfio_ap
    ap_control  tracing  kvm  kvm_mmu  apicv  kvm_module

The other direction is a protocol or a callable that the later one registers, as `Extension` of
`kvm` for memory and interrupts. `machine/` makes the objects and names them to each other.

A write runs: row (text to numbers), model (checks in the kernel's order, then changes), events on
`core.events.Bus`. Between two writes every model is consistent; a refused write changed nothing.
`tests/test_layers.py` checks the order, `tests/test_circles.py` that no import leads back.

Begin with `selftest`: a model of 70 lines, its table, and a device that can be unplugged.

    echo 1 > sys/kernel/debug/fakesys/selftest/create
"""
