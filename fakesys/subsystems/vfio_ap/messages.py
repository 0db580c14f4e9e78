"""What vfio_ap says in `debug/s390dbf`: a guest's PQAP(AQIC) that it refuses.

Like the calls of VFIO_AP_DBF_WARN in vfio_ap_ops.c (v6.1, v6.12). Differs: what a guest can do
wrong with addresses is left out, as guests here have none.
"""

from __future__ import annotations

from errno import ERANGE

from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.s390dbf.model import DebugFeatures, Level

# Of the host: the subclass of guests' adapter interrupts (GAL_ISC), and where a GISA would be.
_ISC = 5
_GISA = 0x0100_0000


class VfioApMessages:
    """What the module says; all of it are warnings."""

    def __init__(self, features: DebugFeatures) -> None:
        self._features = features

    def not_bound(self, apqn: Apqn) -> None:
        """Say that a queue is not one of the device (vfio_ap_ops.c:handle_pqap)."""
        self._warn(f"handle_pqap: Queue {apqn} not bound to the vfio_ap driver")

    def isc_refused(self, apqn: Apqn, isc: int) -> None:
        """Say that KVM knows no such subclass (vfio_ap_ops.c:vfio_ap_irq_enable)."""
        where = f"nisc=-{ERANGE}, isc={isc}, apqn={_number(apqn)}"
        self._warn(f"vfio_ap_irq_enable: gisc registration failed: {where}")

    def interrupts_refused(self, apqn: Apqn, isc: int, answer: int) -> None:
        """Say that the queue itself refused (vfio_ap_ops.c:vfio_ap_irq_enable)."""
        what = f"zone=0, ir=0x1, gisc={_hex(isc)}, f=0,gisa={_hex(_GISA)}, isc={_hex(_ISC)}"
        status = f"PQAP(AQIC) failed with status={_hex(answer)}"
        self._warn(f"vfio_ap_irq_enable: {status}: {what}, apqn={_number(apqn)}")

    def _warn(self, text: str) -> None:
        self._features.write("vfio_ap", Level.WARN, text)


def _hex(number: int) -> str:
    """Return a number as printf("%#x") writes it."""
    return f"{number:#x}" if number else "0"


def _number(apqn: Apqn) -> str:
    return f"{apqn.apid << 8 | apqn.apqi:#04x}"
