"""Parameters and drivers of the modules of the bus, and stores that several tables share."""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL
from typing import TypeVar

from fakesys.core.errors import KernelError
from fakesys.core.features import Features
from fakesys.core.text import scan_d
from fakesys.subsystems.ap_bus.bus import ApBus
from fakesys.subsystems.ap_bus.policy import ApFeature
from fakesys.subsystems.ap_bus.state import BusState
from fakesys.subsystems.modules.files import driver_links
from fakesys.tree.attr import Attr, Layout

M = TypeVar("M")

NOT_A_SWITCH = {EINVAL: "no number, or neither 0 nor 1"}


def switch(store: Callable[[M, bool], None]) -> Callable[[M, str], None]:
    """Return a store that reads 0 or 1 by sscanf("%d"). It raises EINVAL for other text."""

    def take(model: M, text: str) -> None:
        number = scan_d(text)
        if number not in (0, 1):
            raise KernelError(EINVAL, f"{number} is neither 0 nor 1")
        store(model, number == 1)

    return take


def anything(store: Callable[[M], object]) -> Callable[[M, str], None]:
    """Return a store that accepts any text."""

    def take(model: M, _text: str) -> None:
        store(model)

    return take


def _parameter(
    name: str, show: Callable[[BusState], object], doc: str, needs: Features = ()
) -> Attr[ApBus]:
    return Attr(
        name=name, mode=0o440, doc=doc, show=lambda bus: f"{show(bus.state)}\n", needs=needs
    )


def _text(mask: str | None) -> str:
    return "(null)" if mask is None else mask


PARAMETERS: Layout[ApBus] = Layout(
    (
        # The parameter is the variable behind `ap_domain`.
        _parameter("domain", lambda state: state.domain, "Default domain, as in `ap_domain`."),
        _parameter(
            "poll_thread", lambda state: state.params.poll_thread, "Poll thread as given at boot."
        ),
        _parameter(
            "apmask", lambda state: _text(state.params.apmask), "Adapter mask as given at boot."
        ),
        _parameter(
            "aqmask", lambda state: _text(state.params.aqmask), "Domain mask as given at boot."
        ),
        _parameter(
            "useirq", lambda state: state.params.useirq, "Use of interrupts as given at boot."
        ),
        _parameter(
            "msgpool_min_items",
            lambda state: state.params.msgpool_min_items,
            "Messages that are allocated beforehand.",
            needs=ApFeature.MESSAGE_POOL,
        ),
    )
)
DRIVERS_OF_ZCRYPT = driver_links(("ap", "cex4card"), ("ap", "cex4queue"))
