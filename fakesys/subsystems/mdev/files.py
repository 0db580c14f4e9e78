"""The files of mediated devices in general, of their bus, their class and their iommu groups.

Source: drivers/vfio/mdev/mdev_sysfs.c, drivers/iommu/iommu.c (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from errno import EBUSY, EEXIST, EINVAL, ENODEV, EPERM, EUSERS

from msgspec.structs import replace

from fakesys.core.devices import Devices, is_uuid
from fakesys.core.errors import KernelError
from fakesys.core.text import kstrtoull
from fakesys.subsystems.device_nodes.files import node_rows
from fakesys.subsystems.driver_core.files import (
    bus_uevent,
    device_name,
    device_rows,
    driver_uevent,
    probe_rows,
)
from fakesys.subsystems.mdev.device import NONE, Mdev, MdevType, VfioDevice, VfioGroup
from fakesys.subsystems.mdev.model import MdevBus
from fakesys.subsystems.mdev.policy import MdevFeature
from fakesys.tree.attr import Attr, Children, Dir, Layout, Link, Links, Mount, Row

UUID_LENGTH = 36


def device_path(mdev: Mdev) -> str:
    """Return the path of the device's directory from the root of the mount."""
    return f"sys{mdev.devpath}"


def _type_path(mdev: Mdev) -> str | None:
    if not mdev.is_listed:
        return None
    return f"sys{mdev.parent.devpath}/mdev_supported_types/{mdev.type.name}"


def _group_path(mdev: Mdev) -> str | None:
    return None if mdev.group == NONE else f"sys/kernel/iommu_groups/{mdev.group}"


def _create(kind: MdevType, text: str) -> None:
    # Like mdev_sysfs.c:create_store (v6.1): byte 37, if there is one, is ignored.
    uuid = text[:UUID_LENGTH]
    if not UUID_LENGTH <= len(text) <= UUID_LENGTH + 1 or not is_uuid(uuid):
        raise KernelError(EINVAL, f"{text!r} is not a UUID")
    kind.create(uuid.lower())


def _remove(mdev: Mdev, text: str) -> None:
    try:
        wanted = kstrtoull(text)
    except KernelError as refusal:
        # Like mdev_sysfs.c:remove_store (v6.1): every error of kstrtoul becomes EINVAL.
        raise KernelError(EINVAL, refusal.why) from None
    if wanted:
        mdev.bus.remove(mdev)


def _listed(devices: Mapping[str, Mdev]) -> list[str]:
    return [uuid for uuid, mdev in devices.items() if mdev.is_listed]


def _listed_path(devices: Mapping[str, Mdev], name: str) -> str | None:
    mdev = devices.get(name)
    return device_path(mdev) if mdev and mdev.is_listed else None


def _devices(kind: MdevType) -> Iterable[str]:
    return _listed(kind.devices)


def _device(kind: MdevType, name: str) -> str | None:
    return _listed_path(kind.devices, name)


TYPE: Layout[MdevType] = Layout(
    (
        Attr(
            name="name",
            mode=0o444,
            doc="What the type is called for people.",
            show=lambda kind: f"{kind.pretty_name}\n",
        ),
        Attr(
            name="device_api",
            mode=0o444,
            doc="The interface that devices of this type offer.",
            show=lambda kind: f"{kind.device_api}\n",
        ),
        Attr(
            name="available_instances",
            mode=0o444,
            doc="How many more devices of this type can be made.",
            show=lambda kind: f"{kind.available}\n",
        ),
        Attr(
            name="create",
            mode=0o200,
            doc="Write a UUID to make a device.",
            store=_create,
            errors={
                EINVAL: "not a UUID, or followed by more than one byte",
                EEXIST: "the device exists",
                EPERM: "no instance is left",
                EUSERS: "no instance is left, from 6.1 on",
            },
        ),
        Dir(name="devices", layout=Layout((Links(names=_devices, get=_device),))),
    )
)


def _vfio_device(mdev: Mdev, name: str) -> VfioDevice | None:
    there = mdev.shows_vfio and name == mdev.vfio_device.name
    return mdev.vfio_device if there else None


def _is_listed(mdev: Mdev) -> bool:
    return mdev.is_listed


def _bus_path(mdev: Mdev) -> str | None:
    return f"sys/bus/{mdev.subsystem}" if mdev.is_listed else None


def _own_rows(devices: Devices) -> tuple[Row, ...]:
    """Return what the driver core gives to a device, which loses it while its removal waits."""
    rows = device_rows(devices, power=False)
    files = tuple(replace(row, present=_is_listed) for row in rows if isinstance(row, Attr))
    links = tuple(row for row in rows if isinstance(row, Link) and row.name != "subsystem")
    return (*files, Link(name="subsystem", to=_bus_path), *links)


def _vfio_dev(devices: Devices) -> Layout[Mdev]:
    rows = device_rows(devices, power=False)
    own = tuple(row for row in rows if not isinstance(row, Link))
    links: tuple[Row, ...] = (
        Link(name="device", to=lambda vfio: device_path(vfio.mdev)),
        Link(name="subsystem", to=lambda _vfio: "sys/class/vfio-dev"),
    )
    layout: Layout[VfioDevice] = Layout((*own, *links))
    return Layout(
        (
            Children(
                names=lambda mdev: (mdev.vfio_device.name,),
                get=_vfio_device,
                layout=layout,
                label="vfioN",
            ),
        )
    )


def device_files(devices: Devices) -> tuple[Row, ...]:
    """Return the rows that every mediated device has."""
    return (
        Attr(
            name="remove",
            mode=0o200,
            doc="Write a number other than 0 to remove the device.",
            store=_remove,
            errors={EINVAL: "not a number", EBUSY: "a guest has it, and the policy refuses"},
            present=_is_listed,
            waits=True,
        ),
        *_own_rows(devices),
        Link(name="mdev_type", to=_type_path),
        Link(name="iommu_group", to=_group_path),
        Dir(
            name="vfio-dev",
            layout=_vfio_dev(devices),
            of=lambda mdev: mdev if mdev.shows_vfio else None,
        ),
    )


def _set_group_type(_mdev: Mdev, text: str) -> None:
    raise KernelError(EINVAL, f"{text!r} is no type of a group without default domain")


GROUP: Layout[Mdev] = Layout(
    (
        Attr(
            name="name",
            mode=0o444,
            doc="Who made the group.",
            show=lambda _mdev: "vfio-noiommu\n",
            present=lambda mdev: mdev.bus.policy.vfio_devices,
        ),
        Attr(
            name="reserved_regions",
            mode=0o444,
            doc="Ranges of addresses that are kept from the group; none.",
            show=lambda _mdev: "",
        ),
        Attr(
            name="type",
            mode=0o644,
            doc="Type of the group's default domain; it has none, and takes no other.",
            show=lambda _mdev: "unknown\n",
            store=_set_group_type,
            errors={EINVAL: "no type, or one that the group cannot have"},
        ),
        Dir(
            name="devices",
            layout=Layout(
                (
                    Links(
                        names=lambda mdev: (mdev.uuid,),
                        get=lambda mdev, name: device_path(mdev) if name == mdev.uuid else None,
                    ),
                )
            ),
        ),
    )
)


def _group(bus: MdevBus, name: str) -> Mdev | None:
    if not name.isascii() or not name.isdigit():
        return None
    mdev = bus.groups.get(int(name))
    return mdev if mdev and name == str(mdev.group) else None


GROUPS: Layout[MdevBus] = Layout(
    (
        Children(
            names=lambda bus: _group_names(bus),
            get=_group,
            layout=GROUP,
            label="N",
        ),
    )
)


BUS_DEVICES: Layout[MdevBus] = Layout(
    (
        Links(
            names=lambda bus: _listed(bus.devices),
            get=lambda bus, name: _listed_path(bus.devices, name),
        ),
    )
)


def _parent(bus: MdevBus, name: str) -> str | None:
    parent = bus.parents.get(name)
    return f"sys{parent.devpath}" if parent else None


PARENTS: Layout[MdevBus] = Layout((Links(names=lambda bus: bus.parents, get=_parent),))

DRIVER_UEVENT: Attr[MdevBus] = driver_uevent(
    lambda bus: bus.kernel.devices, lambda bus: f"/bus/mdev/drivers/{bus.policy.driver}"
)


def _bound(bus: MdevBus) -> list[str]:
    return [uuid for uuid, mdev in bus.devices.items() if mdev.driver]


def _bound_device(bus: MdevBus, name: str) -> str | None:
    mdev = bus.devices.get(name)
    return device_path(mdev) if mdev and mdev.driver else None


def _module(bus: MdevBus) -> str | None:
    return f"sys/module/{bus.policy.module}" if bus.policy.module else None


DRIVER: Layout[MdevBus] = Layout(
    (
        DRIVER_UEVENT,
        Attr(
            name="bind",
            mode=0o200,
            doc="Takes no device: they are bound when they are created, and only then.",
            store=lambda bus, text: bus.bind(device_name(text)),
            errors={ENODEV: "always"},
            needs=MdevFeature.BIND,
        ),
        Attr(
            name="unbind",
            mode=0o200,
            doc="Write a UUID to take the device from the driver; it can only be removed then.",
            store=lambda bus, text: bus.unbind(device_name(text)),
            errors={ENODEV: "not bound", EBUSY: "a guest has it, and the policy refuses"},
            needs=MdevFeature.BIND,
        ),
        Link(name="module", to=_module),
        Links(names=_bound, get=_bound_device),
    )
)
DRIVERS: Layout[MdevBus] = Layout(
    (
        Children(
            names=lambda bus: (bus.policy.driver,) if bus.parents else (),
            get=lambda bus, name: bus if bus.parents and name == bus.policy.driver else None,
            layout=DRIVER,
        ),
    )
)


def _vfio_names(bus: MdevBus) -> list[str]:
    return [f"vfio{number}" for number in bus.vfio_devices]


def _vfio_path(bus: MdevBus, name: str) -> str | None:
    digits = name.removeprefix("vfio")
    if not digits.isascii() or not digits.isdigit() or not name.startswith("vfio"):
        return None
    mdev = bus.vfio_devices.get(int(digits))
    return f"sys{mdev.vfio_device.devpath}" if mdev and name == mdev.vfio_device.name else None


VFIO_CLASS: Layout[MdevBus] = Layout((Links(names=_vfio_names, get=_vfio_path),))


BUS: Layout[MdevBus] = Layout(
    (*probe_rows(), bus_uevent(lambda bus: bus.kernel.devices, lambda _bus: "/bus/mdev"))
)


def _vfio_group(bus: MdevBus, name: str) -> VfioGroup | None:
    mdev = _group(bus, name)
    return None if mdev is None else mdev.vfio_group


def _vfio_group_path(bus: MdevBus, name: str) -> str | None:
    group = _vfio_group(bus, name)
    return None if group is None else f"sys{group.devpath}"


def _group_names(bus: MdevBus) -> list[str]:
    return [str(number) for number in sorted(bus.groups)]


VFIO_GROUPS: Layout[MdevBus] = Layout((Links(names=_group_names, get=_vfio_group_path, label="N"),))


def _vfio_nodes(devices: Devices) -> Layout[MdevBus]:
    layout: Layout[VfioGroup] = Layout(node_rows(devices))
    groups = Children(names=_group_names, get=_vfio_group, layout=layout, label="N")
    return Layout((groups,))


def mounts(
    bus: Callable[[], MdevBus], devices: Devices, is_loaded: Callable[[str], bool]
) -> tuple[Mount, ...]:
    """Return where the files of bus, classes and groups appear; they exist when empty, too.

    `is_loaded`: asked for the modules mdev and vfio, which make the bus and the classes.
    """

    def mdev() -> MdevBus | None:
        return bus() if is_loaded("mdev") else None

    def vfio() -> MdevBus | None:
        return bus() if is_loaded("vfio") else None

    def vfio_devices() -> MdevBus | None:
        return bus() if is_loaded("vfio") and bus().policy.vfio_devices else None

    return (
        Mount("sys/bus/mdev", BUS, mdev),
        Mount("sys/bus/mdev/devices", BUS_DEVICES, mdev),
        Mount("sys/bus/mdev/drivers", DRIVERS, mdev),
        Mount("sys/class/mdev_bus", PARENTS, mdev),
        Mount("sys/class/vfio", VFIO_GROUPS, vfio),
        Mount("sys/class/vfio-dev", VFIO_CLASS, vfio_devices),
        Mount(
            "sys/devices/virtual/vfio",
            _vfio_nodes(devices),
            lambda: bus() if bus().groups else None,
        ),
        Mount("sys/kernel/iommu_groups", GROUPS, bus),
    )
