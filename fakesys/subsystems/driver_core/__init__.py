"""The files that the kernel's driver core gives to every device, bus and driver.

`files.py` is all of it: rows that the tables of other subsystems include.

* `device_rows`: `uevent`, `subsystem`, `driver` and `power/` of a device.
* `probe_rows`: `drivers_probe` and `drivers_autoprobe` of a bus, which is a `ProbingBus`.
* `bus_uevent`, `driver_uevent`: the write-only `uevent` of a bus and of a driver.

The folder has no model. A device is anything that fulfils `Device` of `core/devices.py`, and the
register of devices, `Devices` of the same file, parses and sends what is written to a `uevent`.
Each model keeps its own state; the rows here only ask it.

`device_rows` comes last in a table, so that rows of the device itself are listed first. `driver`
and `subsystem` of a model are names; without one its link is absent, as it is for a device that is
unbound or has no bus.

Follows drivers/base/core.c, drivers/base/bus.c, drivers/base/power/sysfs.c and
lib/kobject_uevent.c (v6.1).

    LAYOUT = Layout((*CARD, *device_rows(devices)))
    BUS = Layout((*probe_rows(), bus_uevent(lambda bus: bus.devices, lambda bus: "/bus/ap")))
"""
