"""The AP matrix as a picture: adapters by domains, each queue in the colour of its owner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fakesys.core.text import ids, parse_absolute_mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Owner(Enum):
    """The owner of a queue: letter and colour in a terminal, and text of the legend."""

    ABSENT = (".", "white", "no such queue")
    UNBOUND = ("-", "grey70", "no driver")
    HOST = ("H", "blue", "host (cex4queue)")
    VFIO_AP = ("V", "yellow", "vfio_ap, free")
    MDEV = ("M", "dark_orange", "assigned to a mediated device")
    GUEST = ("G", "green", "in use by a guest")

    @property
    def letter(self) -> str:
        """The character in a terminal."""
        return self.value[0]

    @property
    def colour(self) -> str:
        """The colour in a terminal, by a name that rich knows."""
        return self.value[1]

    @property
    def legend(self) -> str:
        """The text in the legend."""
        return self.value[2]


# The colours of a plot.
RGB = {
    Owner.ABSENT: "#ffffff",
    Owner.UNBOUND: "#bbbbbb",
    Owner.HOST: "#4c72b0",
    Owner.VFIO_AP: "#f0d060",
    Owner.MDEV: "#dd8452",
    Owner.GUEST: "#55a868",
}


class ApMatrix(Struct, frozen=True):
    """Adapters, domains that have any queue, and the owner of each (adapter, domain)."""

    adapters: tuple[int, ...]
    domains: tuple[int, ...]
    owners: Mapping[tuple[int, int], Owner]

    def owner(self, apid: int, apqi: int) -> Owner:
        """Return the owner of the queue of this adapter and domain."""
        return self.owners.get((apid, apqi), Owner.ABSENT)

    def rows(self, domains: tuple[int, ...]) -> Iterator[tuple[int, list[Owner]]]:
        """Yield each adapter with the owners of its queues in these domains."""
        for apid in self.adapters:
            yield apid, [self.owner(apid, apqi) for apqi in domains]


def ap_matrix(state: Mapping[str, Any]) -> ApMatrix:
    """Return the matrix of a machine, given its `fakesys/state`.

    Later owners replace earlier ones: no driver, a driver, a mediated device, its guest.
    """
    ap = state["ap"]
    owners: dict[tuple[int, int], Owner] = {}
    used = 0
    for apid, queues in _by_card({c: card["queues"] for c, card in ap["bus"]["cards"].items()}):
        used |= queues
        owners.update(dict.fromkeys(_pairs(apid, queues), Owner.UNBOUND))
    for driver, owner in (("cex4queue", Owner.HOST), ("vfio_ap", Owner.VFIO_AP)):
        for apid, queues in _by_card(ap["bus"]["drivers"].get(driver, {})):
            owners.update(dict.fromkeys(_pairs(apid, queues), owner))
    for mdev in ap["vfio_ap"]["mdevs"].values():
        _claim(owners, mdev["matrix"], Owner.MDEV)
        if mdev["guest"]:
            _claim(owners, mdev["guest_masks"], Owner.GUEST)
    cards = tuple(int(apid, 16) for apid in ap["bus"]["cards"])
    return ApMatrix(cards, tuple(ids(used)), owners)


def _by_card(masks: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    for apid, mask in masks.items():
        yield int(apid, 16), parse_absolute_mask(mask)


def _pairs(apid: int, mask: int) -> Iterator[tuple[int, int]]:
    for apqi in ids(mask):
        yield apid, apqi


def _claim(owners: dict[tuple[int, int], Owner], masks: list[str], owner: Owner) -> None:
    adapters, domains = (parse_absolute_mask(mask) for mask in masks[:2])
    for apid in ids(adapters):
        for pair in _pairs(apid, domains):
            if pair in owners:
                owners[pair] = owner


def draw(matrix: ApMatrix) -> Figure:
    """Draw the matrix. Raises ImportError without matplotlib."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    kinds = list(Owner)
    cells = [[kinds.index(owner) for owner in row] for _, row in matrix.rows(matrix.domains)]
    width = min(20.0, max(6.0, 2.5 + 0.3 * len(matrix.domains)))
    height = min(20.0, 1.8 + 0.3 * len(matrix.adapters))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    colours = ListedColormap([RGB[kind] for kind in kinds])
    if cells and matrix.domains:
        axes.imshow(cells, cmap=colours, vmin=-0.5, vmax=len(kinds) - 0.5, aspect="auto")
    _label(axes.set_xticks, matrix.domains, "{:04x}", rotation=90)
    _label(axes.set_yticks, matrix.adapters, "{:02x}", rotation=0)
    axes.set_xlabel("domain")
    axes.set_ylabel("adapter")
    handles = [Patch(facecolor=RGB[k], edgecolor="grey", label=k.legend) for k in kinds[1:]]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize="small")
    return figure


def _label(set_ticks: Any, numbers: tuple[int, ...], form: str, *, rotation: int) -> None:
    step = max(1, len(numbers) // 32)
    places = range(0, len(numbers), step)
    set_ticks(places, [form.format(numbers[place]) for place in places], rotation=rotation)
