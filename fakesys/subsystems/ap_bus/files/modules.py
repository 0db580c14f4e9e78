"""Rows and stores that several tables of the AP bus share: switches, modules, links to drivers."""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL
from typing import Any, TypeVar

from fakesys.core.errors import KernelError
from fakesys.core.text import scan_d
from fakesys.tree.attr import Attr, Layout, Link, Row

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


def anything(store: Callable[[M], None]) -> Callable[[M, str], None]:
    """Return a store that accepts any text."""

    def take(model: M, _text: str) -> None:
        store(model)

    return take


def module_rows(name: str, coresize: int, refcnt: Callable[[Any], int]) -> tuple[Row, ...]:
    """Return the files of a loaded module; `coresize` is in bytes, `refcnt` counts its users.

    Source: kernel/module/sysfs.c, kernel/params.c (v6.1).
    """
    return (
        Attr(
            name="initstate",
            mode=0o444,
            doc=f"State of the module {name}.",
            show=lambda _model: "live\n",
        ),
        Attr(
            name="refcnt",
            mode=0o444,
            doc=f"How many users the module {name} has.",
            show=lambda model: f"{refcnt(model)}\n",
        ),
        Attr(
            name="coresize",
            mode=0o444,
            doc=f"Size of the module {name} in memory, in bytes.",
            show=lambda _model: f"{coresize}\n",
        ),
        Attr(
            name="taint",
            mode=0o444,
            doc=f"Letters for what the module {name} taints the kernel with; none.",
            show=lambda _model: "\n",
        ),
    )


def driver_links(*drivers: str) -> Layout[Any]:
    """Return the directory `drivers/` of a module: a link per driver of the AP bus."""
    return Layout(tuple(Link(name=f"ap:{name}", to=_driver_path(name)) for name in drivers))


def _driver_path(name: str) -> Callable[[object], str]:
    return lambda _model: f"sys/bus/ap/drivers/{name}"


EMPTY: Layout[Any] = Layout()
