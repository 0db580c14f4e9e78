"""The AP bus in a snapshot: plain values, and a bus that is filled with them.

* `hardware.py`: installed cards, the machine's masks, the two faults of hardware.
* `bus.py`: masks, settings, cards with their queues, drivers, the timer of the next scan.
* `rows.py`: the uevents of many queues, which a journal keeps as masks.

Order: `restore_hardware`, then `restore_bus`, on models without cards and with every driver
registered. Both raise `BadSnapshotError` for values that no machine can have: a queue with two
drivers, a driver's queue that the masks give to the other one, an ID above the maximum.

    restore_hardware(saved.hardware, system.hardware)
    restore_bus(saved.bus, system.bus)
"""
