"""The whole AP part in one line: bus, cards, queues, mediated devices, guests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fakesys.core.errors import KernelError
from tests.replay_ap.host import Host

BUS = ("apmask", "aqmask", "ap_adapter_mask", "ap_usage_domain_mask", "ap_control_domain_mask")
QUEUE = ("config", "chkstop", "online", "status", "interrupt", "reset")


def snapshot(host: Host) -> str:
    """What the recording program writes for `snap`."""
    return "".join(_pieces(host))


def _pieces(host: Host) -> Iterator[str]:
    yield from _files(host, "bus/ap", (*BUS, "ap_domain", "bindings"))
    for card in _names(host, "devices/ap"):
        if card.startswith("card"):
            yield from _card(host, card)
    for uuid in _names(host, "bus/mdev/devices"):
        yield f"|{uuid} "
        yield from _files(
            host, f"bus/mdev/devices/{uuid}", ("matrix", "guest_matrix", "control_domains")
        )
    for guest in _names(host, "kernel/debug/fakesys/ap/guests"):
        yield f"|{guest} {host.guest_masks(guest)}"


def _card(host: Host, card: str) -> Iterator[str]:
    folder = f"devices/ap/{card}"
    yield f"|{card} "
    yield from _files(host, folder, ("config", "chkstop", "online"))
    for queue in _names(host, folder):
        if queue[2:3] == ".":
            yield f"|{queue} {_driver(host, f'{folder}/{queue}')}"
            yield from _files(host, f"{folder}/{queue}", QUEUE)


def queue_state(host: Host, queue: str) -> str:
    """The part of a queue's state that a reset changes, as a snapshot has it."""
    folder = f"devices/ap/card{queue[:2]}/{queue}"
    return "".join(_files(host, folder, ("interrupt", "reset")))


def _driver(host: Host, folder: str) -> str:
    try:
        return host.target(f"{folder}/driver").decode().rpartition("/")[2] + " "
    except KernelError:
        return ""


def _files(host: Host, folder: str, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        found = host.read(f"{folder}/{name}")
        if found.errno == "ENOENT":
            continue
        text = found.data.decode().removesuffix("\n").replace("\n", ",")
        yield f"{name}:{text if found.errno == '0' else found.errno};"


def _names(host: Host, path: str) -> list[str]:
    try:
        return [name.rstrip("/@") for name in host.names(path)]
    except KernelError:
        return []
