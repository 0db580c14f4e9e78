"""Mediated devices (mdev): parts of a parent device that users create and hand to guests.

* `MdevBus` (`model.py`) is the bus `mdev` with the class `mdev_bus`. It owns the parents that are
  registered and all devices, and numbers their iommu groups and vfio devices.
* `MdevParent` is a device that offers `MdevType`s; it is made by a driver such as vfio_ap, which
  hands in an `MdevDriver`: callbacks that make and remove the model behind a device.
* `Mdev` (`device.py`) is one device. Its `data` is that model.

Order of a creation: refuse a UUID that exists (EEXIST), let the driver refuse (`probe`), enter the
device, send `add`, attach it to an iommu group, send `bind`. A removal waits for the user.

Between two operations a device has a group exactly if it is bound or its end waits (`Stage`), and
each device of the bus is in `devices` of its type.

`files.py` has the tables of types, devices, groups and bus; the files that only vfio_ap has are in
`subsystems/vfio_ap/files.py`. Kernels differ by an `MdevPolicy` (`policy.py`).

Follows drivers/vfio/mdev/mdev_core.c, mdev_sysfs.c and mdev_driver.c, drivers/vfio/vfio_main.c and
drivers/iommu/iommu.c (v6.1).

    uuid=$(uuidgen)
    echo $uuid > /sys/class/mdev_bus/matrix/mdev_supported_types/vfio_ap-passthrough/create
    readlink /sys/bus/mdev/devices/$uuid/iommu_group
    echo 1 > /sys/bus/mdev/devices/$uuid/remove
"""
