"""A small AP machine without any files, for model tests."""

from __future__ import annotations

from fakesys.core.kernel import Kernel
from fakesys.machine.kernels.ap import AP_KERNELS
from fakesys.subsystems.ap_bus.hardware_spec import CardMode, CardSpec, HardwareSpec, mask_of
from fakesys.subsystems.ap_control.model import ApPolicies, ApSystem
from fakesys.subsystems.vfio_ap.matrix_mdev import MatrixMdev

CARDS = (0, 1)
DOMAINS = (0, 1)
SMALL = HardwareSpec(
    cards=tuple(CardSpec(apid, 11, CardMode.CCA) for apid in CARDS),
    domains=mask_of(*DOMAINS),
    control_domains=mask_of(*DOMAINS),
    max_adapter_id=15,
    max_domain_id=15,
)


def policies_of(kernel: str) -> ApPolicies:
    """The choices of a kernel."""
    ap = AP_KERNELS[kernel]
    return ApPolicies(ap.bus, ap.mdev, ap.vfio_ap, ap.debug)


def system_of(kernel: str, spec: HardwareSpec = SMALL) -> ApSystem:
    """The models of a machine."""
    return ApSystem(Kernel(), spec, policies_of(kernel))


def create(system: ApSystem, number: int) -> MatrixMdev:
    """A new mediated device."""
    matrix = system.vfio_ap.matrix
    assert matrix is not None
    uuid = uuid_of(number)
    matrix.type.create(uuid)
    return system.vfio_ap.mdevs[uuid]


def uuid_of(number: int) -> str:
    """The name of the mediated device of this number."""
    return f"{number:08x}-0000-4000-8000-000000000000"
