"""Device events as messages of netlink, byte for byte."""

from __future__ import annotations

import struct

from fakesys.execution.netlink import kernel_message, murmur_hash2, parse_stream, udev_message

EVENT = {
    "ACTION": "add",
    "DEVPATH": "/devices/ap/card05",
    "SUBSYSTEM": "ap",
    "DEVTYPE": "ap_card",
    "SEQNUM": "7",
}


def test_the_stream_is_cut_into_events() -> None:
    text = "ACTION=add\nDEVPATH=/a\nMODALIAS=a=b\nSEQNUM=1\n\nACTION=remove\nDEVPATH=/a\n\n"
    assert list(parse_stream(text)) == [
        {"ACTION": "add", "DEVPATH": "/a", "MODALIAS": "a=b", "SEQNUM": "1"},
        {"ACTION": "remove", "DEVPATH": "/a"},
    ]
    assert list(parse_stream("")) == []


def test_a_message_to_the_kernel_has_a_header_and_no_number() -> None:
    message = kernel_message(EVENT)
    size, kind, flags, sequence, sender = struct.unpack_from("=IHHII", message)
    assert size == len(message)
    assert (kind, flags, sequence, sender) == (0x10, 1, 0, 0)
    assert message[16:].split(b"\0") == [
        b"add@/devices/ap/card05",
        b"ACTION=add",
        b"DEVPATH=/devices/ap/card05",
        b"SUBSYSTEM=ap",
        b"DEVTYPE=ap_card",
        b"",
    ]


def test_a_message_of_udev_says_where_its_properties_are() -> None:
    message = udev_message(EVENT)
    assert message[:8] == b"libudev\0"
    assert message[8:12] == bytes.fromhex("feedcafe")
    header, offset, length = struct.unpack_from("=III", message, 12)
    subsystem, devtype, *tags = struct.unpack_from(">IIII", message, 24)
    assert header == offset == 40
    assert message[offset:] == b"".join(f"{k}={v}\0".encode() for k, v in EVENT.items())
    assert length == len(message) - offset
    assert (subsystem, devtype) == (murmur_hash2(b"ap"), murmur_hash2(b"ap_card"))
    assert tags == [0, 0]


def test_a_device_without_type_has_no_hash_of_it() -> None:
    event = {key: value for key, value in EVENT.items() if key != "DEVTYPE"}
    assert struct.unpack_from(">I", udev_message(event), 28) == (0,)


def test_the_hash_depends_on_every_byte_and_the_length() -> None:
    """Its values are proven by a libudev that filters with them: tests/tools/test_udevadm.py."""
    words = [b"", b"a", b"ap", b"app", b"mdev", b"mdev0", b"matrix", b"ap_queue", b"ap_queuf"]
    assert len({murmur_hash2(word) for word in words}) == len(words)
    assert all(0 <= murmur_hash2(word) < 1 << 32 for word in words)
    assert murmur_hash2(b"") == 0
