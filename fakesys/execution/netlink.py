"""Send uevents as messages on netlink, so that libudev hears of simulated devices.

Only ever in a private network namespace: in the host's, its udevd would act on them.
Like lib/kobject_uevent.c:uevent_net_rcv_skb (v6.1) and libudev's monitor wire format.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping
from errno import ECONNREFUSED
from pathlib import Path

NETLINK_KOBJECT_UEVENT = 15
UDEV_GROUP = 2
# udevd binds a socket to it as soon as it starts.
UDEV_CONTROL = "/run/udev/control"
NLMSG_HEADER = struct.Struct("=IHHII")
NLM_F_REQUEST = 1
# Smaller types are for control messages of netlink itself.
NLMSG_MIN_TYPE = 0x10
UDEV_PREFIX = b"libudev\0"
UDEV_MAGIC = 0xFEED_CAFE
# Magic and hashes are big-endian, sizes have the byte order of the host.
UDEV_HEADER_SIZE = 40

Fields = Mapping[str, str]


def parse_stream(text: str) -> Iterable[dict[str, str]]:
    """Yield the events in a piece of `uevents`: lines `KEY=value`, and an empty one after each."""
    for block in text.split("\n\n"):
        if block.strip():
            yield dict(line.split("=", 1) for line in block.strip().split("\n"))


def kernel_message(fields: Fields) -> bytes:
    """Return the message for which the kernel broadcasts this event as its own, with its SEQNUM."""
    lines = [f"{fields['ACTION']}@{fields['DEVPATH']}"]
    lines += [f"{key}={value}" for key, value in fields.items() if key != "SEQNUM"]
    body = b"".join(line.encode() + b"\0" for line in lines)
    size = NLMSG_HEADER.size + len(body)
    return NLMSG_HEADER.pack(size, NLMSG_MIN_TYPE, NLM_F_REQUEST, 0, 0) + body


def udev_message(fields: Fields) -> bytes:
    """Return the event as udevd sends it to its listeners after its rules were applied."""
    body = b"".join(f"{key}={value}".encode() + b"\0" for key, value in fields.items())
    devtype = fields.get("DEVTYPE")
    sizes = struct.pack("=III", UDEV_HEADER_SIZE, UDEV_HEADER_SIZE, len(body))
    hashes = struct.pack(
        ">IIII",
        murmur_hash2(fields.get("SUBSYSTEM", "").encode()),
        0 if devtype is None else murmur_hash2(devtype.encode()),
        # The Bloom filter of tags: no tags.
        0,
        0,
    )
    return UDEV_PREFIX + struct.pack(">I", UDEV_MAGIC) + sizes + hashes + body


def murmur_hash2(data: bytes) -> int:
    """Return the MurmurHash2 of 32 bits with seed 0, by which libudev filters messages."""
    multiplier, mask = 0x5BD1_E995, 0xFFFF_FFFF
    value = len(data)
    whole = len(data) & ~3
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        mixed = word * multiplier & mask
        mixed = (mixed ^ mixed >> 24) * multiplier & mask
        value = (value * multiplier & mask) ^ mixed
    if rest := data[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return value ^ value >> 15


def udevd_runs() -> bool:
    """Return whether a udevd listens on its control socket, in the network of this process."""
    lines = Path("/proc/self/net/unix").read_text(errors="replace").splitlines()
    return any(line.endswith(f" {UDEV_CONTROL}") for line in lines)


class Sender:
    """Sends events in the network namespace of this process. Raises OSError.

    `for_udevd`: also send what udevd sends, unless one runs in this network and does so itself.
    """

    def __init__(self, *, for_udevd: bool = True) -> None:
        self._for_udevd = for_udevd
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT
        )
        self._socket.bind((0, 0))

    def send(self, fields: Fields) -> None:
        """Send to the listeners of the kernel, then to those of udev, like a real machine."""
        self._socket.sendto(kernel_message(fields), (0, 0))
        if not self._for_udevd or udevd_runs():
            return
        try:
            self._socket.sendto(udev_message(fields), (0, UDEV_GROUP))
        except OSError as error:
            # No process listens.
            if error.errno != ECONNREFUSED:
                raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
