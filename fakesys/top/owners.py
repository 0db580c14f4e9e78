"""The queues of an adapter by owner, counted from the masks of `fakesys/ap/state`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fakesys.core.text import parse_absolute_mask

# In this order a later one takes a queue from an earlier one.
KINDS = ("unbound", "host", "free", "mdev", "guest", "deconf", "chkstop")


def owners(values: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return for each adapter how many queues each kind of owner has; kinds without any too."""
    drivers = values.get("ap/drivers", {})
    claims = [_claims(value) for key, value in values.items() if key.startswith("ap/mdev/")]
    return {
        apid: _counts(_masks(apid, card, drivers, claims))
        for key, card in sorted(values.items())
        if (apid := key.removeprefix("ap/card/")) != key
    }


def _claims(mdev: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the adapters and domains of a mediated device, and those of its guest."""
    found = {"mdev": _pair(mdev["matrix"])}
    if mdev["guest"]:
        found["guest"] = _pair(mdev["guest_masks"])
    return found


def _pair(masks: list[str]) -> tuple[int, int]:
    return parse_absolute_mask(masks[0]), parse_absolute_mask(masks[1])


def _masks(
    apid: str,
    card: Mapping[str, Any],
    drivers: Mapping[str, Mapping[str, str]],
    claims: list[dict[str, tuple[int, int]]],
) -> dict[str, int]:
    """Return the domains that each kind would have if no later kind took them."""
    queues = parse_absolute_mask(card["queues"])
    found = {"unbound": queues}
    for kind, driver in (("host", "cex4queue"), ("free", "vfio_ap")):
        found[kind] = parse_absolute_mask(drivers.get(driver, {}).get(apid, "0x0"))
    number = int(apid, 16)
    for kind in ("mdev", "guest"):
        found[kind] = 0
        for claim in claims:
            adapters, domains = claim.get(kind, (0, 0))
            if adapters >> number & 1:
                found[kind] |= domains
    found["deconf"] = parse_absolute_mask(card["deconfigured"]) if card["config"] else queues
    found["chkstop"] = queues if card["chkstop"] else parse_absolute_mask(card["checkstopped"])
    return {kind: mask & queues for kind, mask in found.items()}


def _counts(masks: Mapping[str, int]) -> dict[str, int]:
    found, taken = {}, 0
    for kind in reversed(KINDS):
        found[kind] = (masks[kind] & ~taken).bit_count()
        taken |= masks[kind]
    return found
