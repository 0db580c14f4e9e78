"""The files of vfio_ap: the matrix device, mediated devices, what queues show, the module.

Source: drivers/s390/crypto/vfio_ap_ops.c, vfio_ap_drv.c (v6.1; v6.12 where a row needs it).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from errno import EADDRINUSE, EADDRNOTAVAIL, EBUSY, EINVAL, ENODEV, ERANGE

from msgspec.structs import replace

from fakesys.core.devices import Devices
from fakesys.core.errors import KernelError
from fakesys.core.text import format_mask, ids, kstrtoull, parse_absolute_mask
from fakesys.subsystems.ap_bus.files.bus import bind_rows, queue_driver_layout
from fakesys.subsystems.ap_bus.queue import ApQueue
from fakesys.subsystems.driver_core.files import (
    bus_uevent,
    device_rows,
    driver_uevent,
    probe_rows,
)
from fakesys.subsystems.mdev.device import Mdev
from fakesys.subsystems.mdev.files import TYPE, device_files
from fakesys.subsystems.mdev.policy import MdevFeature
from fakesys.subsystems.modules.files import driver_links
from fakesys.subsystems.modules.model import Loaded
from fakesys.subsystems.vfio_ap.driver import MatrixDevice, RootDevice, VfioAp
from fakesys.subsystems.vfio_ap.matrix_mdev import MatrixMdev
from fakesys.subsystems.vfio_ap.policy import Masks, VfioApFeature
from fakesys.tree.attr import Attr, Children, Dir, Layout, Link, Mount, Row
from fakesys.tree.kinds import SYSFS_LONG

# Three masks of 66 characters, two commas, a newline.
AP_CONFIG_LENGTH = 201
NOT_A_NUMBER = {
    EINVAL: "not a number",
    ERANGE: "more than 64 bits",
    ENODEV: "above the maximum ID",
}
ASSIGN_ERRORS = {
    **NOT_A_NUMBER,
    EADDRNOTAVAIL: "apmask and aqmask give a queue of the new matrix to the host",
    EADDRINUSE: "another mediated device has a queue of the new matrix",
}


def matrix_text(masks: Masks) -> str:
    """Return a line per queue; adapters or domains alone when the other half is empty."""
    domains = [f".{apqi:04x}\n" for apqi in ids(masks.aqm)]
    if not masks.apm:
        return "".join(domains)
    ends = domains or [".\n"]
    return "".join(f"{apid:02x}{end}" for apid in ids(masks.apm) for end in ends)


def _matrix(mdev: Mdev) -> str:
    return matrix_text(_data(mdev).matrix)


def _data(mdev: Mdev) -> MatrixMdev:
    data: MatrixMdev = mdev.data
    return data


def _number(take: Callable[[MatrixMdev, int], None]) -> Callable[[Mdev, str], None]:
    return lambda mdev, text: take(_data(mdev), kstrtoull(text))


def _show_config(mdev: Mdev) -> str:
    return f"{','.join(format_mask(mask) for mask in _data(mdev).matrix)}\n"


def parse_config(text: str) -> Masks:
    """Return the masks of a text `APM,AQM,ADM`; what follows a third comma or newline is ignored.

    Raises EINVAL. Like vfio_ap_ops.c:parse_bitmap (v6.12).
    """
    fields = re.split("[,\n]", text[:AP_CONFIG_LENGTH])
    if len(fields) < 3:
        raise KernelError(EINVAL, f"{text!r} is not APM,AQM,ADM")
    apm, aqm, adm = (parse_absolute_mask(field) for field in fields[:3])
    return Masks(apm, aqm, adm)


def _set_config(mdev: Mdev, text: str) -> None:
    _data(mdev).configure(parse_config(text))


def _assignment(
    name: str,
    take: Callable[[MatrixMdev, int], None],
    what: str,
    with_guest: str,
    errors: Mapping[int, str] = NOT_A_NUMBER,
) -> tuple[Attr[Mdev], ...]:
    """Return the rows of one file: of kernels that take it while a guest has the device, or not."""

    def idle(mdev: Mdev, text: str) -> None:
        _data(mdev).require_no_guest()
        take(_data(mdev), kstrtoull(text))

    return (
        Attr(
            name=name,
            mode=0o200,
            doc=f"{what}{with_guest}.",
            store=_number(take),
            errors=errors,
            unless=VfioApFeature.BUSY_WITH_GUEST,
        ),
        Attr(
            name=name,
            mode=0o200,
            doc=f"{what}, while no guest has the device.",
            store=idle,
            errors={**errors, EBUSY: "a guest has the device"},
            needs=VfioApFeature.BUSY_WITH_GUEST,
        ),
    )


MDEV: tuple[Attr[Mdev], ...] = (
    *_assignment(
        "assign_adapter",
        MatrixMdev.assign_adapter,
        "Write an adapter number to assign it",
        "; a running guest gets it at once",
        ASSIGN_ERRORS,
    ),
    *_assignment(
        "unassign_adapter",
        MatrixMdev.unassign_adapter,
        "Write an adapter number to take it back",
        ", from a running guest too",
    ),
    *_assignment(
        "assign_domain",
        MatrixMdev.assign_domain,
        "Write a domain number to assign it",
        "; a running guest gets it at once",
        ASSIGN_ERRORS,
    ),
    *_assignment(
        "unassign_domain",
        MatrixMdev.unassign_domain,
        "Write a domain number to take it back",
        ", from a running guest too",
    ),
    *_assignment(
        "assign_control_domain",
        MatrixMdev.assign_control_domain,
        "Write a domain number to let the guest control it",
        "; two devices may have it",
    ),
    *_assignment(
        "unassign_control_domain",
        MatrixMdev.unassign_control_domain,
        "Write a domain number to end the guest's control of it",
        "",
    ),
    Attr(
        name="matrix",
        mode=0o444,
        doc="The assigned queues, one a line; adapters or domains alone without the others.",
        show=_matrix,
        kind=SYSFS_LONG,
    ),
    Attr(
        name="guest_matrix",
        mode=0o444,
        doc="The queues that the guest has; only while one with AP instructions is attached.",
        show=lambda mdev: matrix_text(_data(mdev).visible_guest_masks),
        errors={ENODEV: "no such guest is attached"},
        kind=SYSFS_LONG,
        needs=VfioApFeature.GUEST_MATRIX,
    ),
    Attr(
        name="guest_matrix",
        mode=0o444,
        doc="The queues that a guest has or would have.",
        show=lambda mdev: matrix_text(_data(mdev).guest_masks),
        kind=SYSFS_LONG,
        needs=VfioApFeature.GUEST_MATRIX_KEPT,
    ),
    Attr(
        name="control_domains",
        mode=0o444,
        doc="The assigned control domains, one a line.",
        show=lambda mdev: "".join(f"{domain:04x}\n" for domain in ids(_data(mdev).matrix.adm)),
    ),
    Attr(
        name="ap_config",
        mode=0o644,
        doc="Adapters, domains and control domains as three masks; write all at once.",
        show=_show_config,
        store=_set_config,
        errors={
            EINVAL: "not three masks",
            EADDRNOTAVAIL: ASSIGN_ERRORS[EADDRNOTAVAIL],
            EADDRINUSE: ASSIGN_ERRORS[EADDRINUSE],
            ENODEV: NOT_A_NUMBER[ENODEV],
        },
        needs=VfioApFeature.AP_CONFIG,
    ),
)


def queue_rows(module: Callable[[], VfioAp]) -> tuple[Row, ...]:
    """Return the rows that vfio_ap adds to the queues that it has."""

    def bound(queue: ApQueue) -> bool:
        return queue.driver == module().driver.name

    row: Attr[ApQueue] = Attr(
        name="status",
        mode=0o444,
        doc="`unassigned`, `assigned` to a mediated device, or `in use` by its guest.",
        show=lambda queue: f"{module().status(queue.apqn)}\n",
        present=bound,
    )
    return (row,)


def driver_rows() -> tuple[Row, ...]:
    """Return the directory of the module's driver on the AP bus."""
    return (
        Dir(
            name="vfio_ap",
            layout=queue_driver_layout(bind_rows(needs=VfioApFeature.BIND)),
            of=lambda bus: bus.state.queue_drivers.get("vfio_ap"),
        ),
    )


def _is_bound(mdev: Mdev) -> bool:
    return mdev.driver is not None


def _mdev_names(matrix: MatrixDevice) -> list[str]:
    return list(matrix.type.devices)


def _mdev(matrix: MatrixDevice, name: str) -> Mdev | None:
    return matrix.type.devices.get(name)


TYPES: Layout[MatrixDevice] = Layout(
    (Dir(name="vfio_ap-passthrough", layout=TYPE, of=lambda matrix: matrix.type),)
)


def matrix_layout(devices: Devices) -> Layout[MatrixDevice]:
    """Return the directory of the matrix device, which has one directory per mediated device."""
    # A mediated device has these rows only while it is bound.
    own = tuple(replace(row, present=_is_bound) for row in MDEV)
    mdev: Layout[Mdev] = Layout((*own, *device_files(devices)))
    return Layout(
        (
            *device_rows(devices, power=False),
            Attr(
                name="features",
                mode=0o444,
                doc="What the module can do.",
                show=lambda _matrix: "guest_matrix hotplug ap_config\n",
                needs=VfioApFeature.AP_CONFIG,
            ),
            Dir(name="mdev_supported_types", layout=TYPES),
            Children(names=_mdev_names, get=_mdev, layout=mdev, label="UUID"),
        )
    )


_MDEV_DRIVER: Link[VfioAp] = Link(
    name="mdev:vfio_ap_mdev",
    to=lambda _module: "sys/bus/mdev/drivers/vfio_ap_mdev",
    needs=MdevFeature.BIND,
)
DRIVERS_OF_MODULE: Layout[VfioAp] = Layout((*driver_links(("ap", "vfio_ap")).rows, _MDEV_DRIVER))
# The series of 2019 gave the module a version.
VERSION: Attr[Loaded] = Attr(
    name="version",
    mode=0o444,
    doc="Version of the module vfio_ap.",
    show=lambda _loaded: "1.2.0\n",
    needs=VfioApFeature.VERSION,
)
MATRIX_PATH = "sys/devices/vfio_ap/matrix"


def _of_matrix(matrix: MatrixDevice) -> Devices:
    return matrix.devices


# The driver has no owner, so no `module` link (vfio_ap_drv.c:matrix_driver, v6.1).
MATRIX_DRIVER: Layout[MatrixDevice] = Layout(
    (
        driver_uevent(_of_matrix, lambda _matrix: "/bus/matrix/drivers/vfio_ap"),
        Link(name="matrix", to=lambda _matrix: MATRIX_PATH),
    )
)
MATRIX_BUS: Layout[MatrixDevice] = Layout(
    (
        *probe_rows(),
        bus_uevent(_of_matrix, lambda _matrix: "/bus/matrix"),
        Dir(
            name="devices",
            layout=Layout((Link(name="matrix", to=lambda _matrix: MATRIX_PATH),)),
        ),
        Dir(name="drivers", layout=Layout((Dir(name="vfio_ap", layout=MATRIX_DRIVER),))),
    )
)


def _root(devices: Devices) -> Layout[RootDevice]:
    link: Link[RootDevice] = Link(name="module", to=lambda _root: "sys/module/vfio_ap")
    return Layout((*device_rows(devices, power=False), link))


def mounts(module: Callable[[], VfioAp], devices: Devices) -> tuple[Mount, ...]:
    """Return where the module's files appear; all are absent while it is not loaded."""

    def matrix() -> MatrixDevice | None:
        return module().matrix

    def root() -> RootDevice | None:
        device = module().matrix
        return device.root if device else None

    def loaded() -> VfioAp | None:
        return module() if module().matrix is not None else None

    return (
        Mount("sys/devices/vfio_ap", _root(devices), root),
        Mount(MATRIX_PATH, matrix_layout(devices), matrix),
        Mount("sys/bus/matrix", MATRIX_BUS, matrix),
        Mount("sys/module/vfio_ap/drivers", DRIVERS_OF_MODULE, loaded),
    )
