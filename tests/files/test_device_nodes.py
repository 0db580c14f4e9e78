"""class/misc, class/zcrypt, class/vfio and their devices."""

from __future__ import annotations

import itertools
import json
import os

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.tree.node import File
from tests.files.ap import (
    BUS,
    CONTROL,
    U1,
    U2,
    every_kernel,
    exists,
    free_all,
    link,
    machine_of,
    new_mdev,
    refusal,
    refused,
    uevents,
)
from tests.saved.files import sealed
from tests.whole_machine import differences

F = "sys/kernel/debug/fakesys"
M = f"{F}/modules"
CLASS = "sys/class/zcrypt"
NODES = "sys/devices/virtual/zcrypt"
PKEY = "sys/devices/virtual/misc/pkey"
CARD5 = "sys/devices/ap/card05"
ZEROS = "0x" + "0" * 64 + "\n"


@every_kernel
def test_misc_devices(kernel: str) -> None:
    machine = machine_of(kernel)
    assert sorted(machine.listdir("sys/class/misc")) == ["pkey", "vfio", "z90crypt"]
    device = "sys/devices/virtual/misc/vfio"
    assert sorted(machine.listdir(device)) == ["dev", "subsystem", "uevent"]
    assert machine.read(f"{device}/dev") == "10:196\n"
    assert machine.read(f"{device}/uevent") == (
        "MAJOR=10\nMINOR=196\nDEVNAME=vfio/vfio\nDEVMODE=0666\n"
    )
    assert link(machine, "sys/class/misc/vfio") == "../../devices/virtual/misc/vfio"
    assert link(machine, f"{device}/subsystem") == "../../../../class/misc"
    assert "DEVMODE" not in machine.read("sys/devices/virtual/misc/z90crypt/uevent")
    machine.write(f"{device}/uevent", "change")
    assert uevents(machine)[-1].startswith("change /devices/virtual/misc/vfio SUBSYSTEM=misc")
    assert refused(machine, f"{device}/uevent", "x") == "EINVAL"


@every_kernel
def test_misc_devices_belong_to_modules(kernel: str) -> None:
    machine = machine_of(kernel)
    count = len(uevents(machine))
    for name in ("pkey", "zcrypt_cex4", "vfio_ap"):
        machine.write(f"{M}/unload", name)
    assert machine.listdir("sys/class/misc") == []
    for path in (CLASS, "sys/class/vfio", "sys/class/vfio-dev", "sys/bus/mdev",
                 "sys/class/mdev_bus", "sys/devices/virtual/misc/pkey"):  # fmt: skip
        assert not exists(machine, path)
    told = [event.split(" SUBSYSTEM")[0] for event in uevents(machine)[count:]]
    assert told.index("remove /devices/virtual/misc/z90crypt") < told.index("remove /class/zcrypt")
    for name in ("pkey", "zcrypt_cex4", "vfio_ap"):
        machine.write(f"{M}/load", name)
    told = [event.split(" SUBSYSTEM")[0] for event in uevents(machine)]
    wanted = ["add /class/zcrypt", "add /devices/virtual/misc/z90crypt", "add /module/zcrypt",
              "add /devices/virtual/misc/pkey", "add /module/pkey"]  # fmt: skip
    places = [len(told) - 1 - told[::-1].index(event) for event in wanted]
    assert places == sorted(places)
    assert "add /bus/mdev" in told
    assert len(machine.listdir("sys/class/misc")) == 3


@every_kernel
def test_a_node_of_zcrypt(kernel: str) -> None:
    machine = machine_of(kernel)
    assert sorted(machine.listdir(CLASS)) == ["create", "destroy"]
    assert machine.fs.resolve(f"{CLASS}/create").mode & 0o777 == 0o600
    assert not exists(machine, NODES)
    machine.write(f"{CLASS}/create", "my_node\n")
    assert uevents(machine)[-1] == (
        "add /devices/virtual/zcrypt/my_node SUBSYSTEM=zcrypt MAJOR=252 MINOR=0 DEVNAME=my_node"
    )
    assert link(machine, f"{CLASS}/my_node") == "../../devices/virtual/zcrypt/my_node"
    node = f"{NODES}/my_node"
    assert sorted(machine.listdir(node)) == [
        "admask", "apmask", "aqmask", "dev", "ioctlmask", "subsystem", "uevent",
    ]  # fmt: skip
    assert machine.read(f"{node}/dev") == "252:0\n"
    for name in ("ioctlmask", "apmask", "aqmask", "admask"):
        assert machine.read(f"{node}/{name}") == ZEROS
        machine.write(f"{node}/{name}", "+0,+255")
        assert machine.read(f"{node}/{name}") == "0x8" + "0" * 62 + "1\n"
        machine.write(f"{node}/{name}", "0xf")
        assert machine.read(f"{node}/{name}") == "0xf" + "0" * 63 + "\n"
        assert refused(machine, f"{node}/{name}", "0x-") == "EINVAL"
    machine.write(f"{CLASS}/destroy", " my_node ")
    assert uevents(machine)[-1].startswith("remove /devices/virtual/zcrypt/my_node ")
    assert not exists(machine, node)
    assert refused(machine, f"{CLASS}/destroy", "my_node") == "ENOENT"
    with pytest.raises(KernelError, match="EIO"):
        machine.read(f"{CLASS}/create")


def test_names_of_nodes() -> None:
    machine = machine_of("6.1")
    create, destroy = f"{CLASS}/create", f"{CLASS}/destroy"
    machine.write(create, " \t" + "x" * 40 + "\n")
    assert exists(machine, f"{NODES}/{'x' * 31}")
    assert refused(machine, create, "x" * 31) == "EEXIST"
    machine.write(create, "\n")
    machine.write(create, "zcrypt_3")
    assert sorted(machine.listdir(NODES)) == ["x" * 31, "zcrypt_1", "zcrypt_3"]
    # The next number is 3, and its name is taken.
    assert refused(machine, create, "\n") == "EEXIST"
    machine.write(create, "a/b c")
    assert exists(machine, f"{NODES}/a!b c")
    assert "DEVNAME=a/b c" in uevents(machine)[-1]
    assert refused(machine, create, "a/b c") == "EEXIST"
    assert refused(machine, destroy, "a/b c") == "ENOENT"
    machine.write(destroy, "a!b c")
    for name in (".", ".."):
        assert refused(machine, create, name) == "EINVAL"
    machine.write(create, "gr\u00fcn".encode().decode("latin-1"))
    assert exists(machine, f"{NODES}/gr\u00fcn")
    assert "DEVNAME=gr\u00c3\u00bcn" in uevents(machine)[-1]


def test_there_are_256_nodes() -> None:
    machine = machine_of("6.1")
    for _ in range(256):
        machine.write(f"{CLASS}/create", "\n")
    assert refused(machine, f"{CLASS}/create", "\n") == "ENOSPC"
    assert refused(machine, f"{CLASS}/create", "zcrypt_7") == "EEXIST"
    machine.write(f"{CLASS}/destroy", "zcrypt_7")
    machine.write(f"{CLASS}/create", "again")
    assert machine.read(f"{NODES}/again/dev") == "252:7\n"
    # Removing the module takes them all.
    machine.write(f"{M}/unload", "zcrypt_cex4")
    machine.write(f"{M}/unload", "pkey")
    assert not exists(machine, NODES)
    machine.write(f"{M}/load", "zcrypt")
    assert sorted(machine.listdir(CLASS)) == ["create", "destroy"]


SIZES = {"protkey": 80, "ccadata": 64, "ccacipher": 136, "ep11": 320}


ENDS = ("128", "192", "256", "128_xts", "256_xts")
LATER_KEYS = {"aes_xts_128": 80, "aes_xts_256": 112, "hmac_512": 112, "hmac_1024": 176}


@every_kernel
def test_keys(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CONTROL}/new_card", "7 CEX7 cca")
    machine.write(f"{CONTROL}/new_card", "8 CEX8 ep11")
    sizes = SIZES | ({"ep11": 336} if kernel != "v6" else {})
    for family, size in sizes.items():
        folder = f"{PKEY}/{family}"
        more = LATER_KEYS if (kernel, family) == ("6.12", "protkey") else {}
        names = [f"{family}_aes_{end}" for end in ENDS]
        assert machine.listdir(folder) == names + [f"{family}_{name}" for name in more]
        for name in names:
            text = machine.read(f"{folder}/{name}")
            assert len(text) == size * (1 + name.endswith("xts"))
            assert machine.fs.resolve(f"{folder}/{name}").size == len(text)
            machine.clock.advance(0.001)
            assert machine.read(f"{folder}/{name}") != text
    token = machine.read(f"{PKEY}/protkey/protkey_aes_256").encode("latin-1")
    assert token[:16] == b"\0\0\0\0\1\0\0\0" + b"\0\0\0\3" + b"\0\0\0\x40"


def test_keys_that_no_processor_of_these_machines_makes() -> None:
    machine = machine_of("6.12")
    for name, size in LATER_KEYS.items():
        path = f"{PKEY}/protkey/protkey_{name}"
        assert machine.fs.resolve(path).size == size
        assert refusal(machine, path) == "ENODEV"
    text = machine.read("sys/kernel/debug/s390dbf/pkey/sprintf")
    assert text.count("pckmo_clr2protkey pckmo functions not available\n") == 8


def key_files(machine: Machine) -> list[str]:
    """The paths of all files of keys."""
    return [
        f"{PKEY}/{family}/{name}"
        for family in SIZES
        for name in machine.listdir(f"{PKEY}/{family}")
    ]


@every_kernel
def test_keys_are_read_whole(kernel: str) -> None:
    machine = machine_of(kernel)
    before = machine.read(f"{CARD5}/request_count")
    for path in key_files(machine):
        node = machine.fs.resolve(path)
        assert isinstance(node, File)
        file = machine.fs.open(node, os.O_RDONLY)
        for offset, size in ((0, node.size - 1), (0, 1), (1, 4096), (node.size - 1, 1)):
            with pytest.raises(KernelError, match="EINVAL"):
                machine.fs.read(node, file, offset, size)
        for offset in (node.size, 4096):
            assert machine.fs.read(node, file, offset, 4096) == b""
        file.release()
    assert machine.read(f"{CARD5}/request_count") == before
    assert len(machine.read(f"{PKEY}/ccadata/ccadata_aes_128_xts")) == 128


@every_kernel
def test_keys_need_a_card(kernel: str) -> None:
    machine = machine_of(kernel)
    for card in machine.listdir("sys/bus/ap/devices"):
        if card.startswith("card"):
            machine.write(f"sys/devices/ap/{card}/online", "0")
    for path in key_files(machine):
        made = "protkey_aes_1" in path or "protkey_aes_2" in path
        assert refusal(machine, path) == ("" if made else "ENODEV"), path


def requests(machine: Machine, *cards: str) -> list[int]:
    """The requests of cards so far."""
    return [int(machine.read(f"sys/devices/ap/card{card}/request_count")) for card in cards]


def added(machine: Machine, path: str, *cards: str) -> list[int]:
    """The requests that a read of a key makes; it may fail."""
    before = requests(machine, *cards)
    refusal(machine, f"{PKEY}/{path}")
    return [now - then for now, then in zip(requests(machine, *cards), before, strict=True)]


def test_a_key_is_a_request_to_the_fastest_card() -> None:
    """Like zcrypt_ccamisc.c:cca_genseckey, zcrypt_api.c:_zcrypt_send_cprb (v6.1)."""
    machine = machine_of("6.1")
    assert added(machine, "ccadata/ccadata_aes_128", "05") == [1]
    assert added(machine, "ccadata/ccadata_aes_128_xts", "05") == [2]
    machine.write(f"{CONTROL}/new_card", "3 CEX4 cca")
    machine.write(f"{CONTROL}/new_card", "7 CEX6 cca")
    machine.write(f"{CONTROL}/new_card", "8 CEX6 cca")
    # Of two cards that are as fast, one with fewer requests takes it if its queue had fewer, too.
    for taken in (2, 2, 0, 0):
        path, cards = "ccadata/ccadata_aes_128_xts", ("03", "05", "07", "08")
        assert added(machine, path, *cards) == [0, 0, taken, 2 - taken]
    machine.write("sys/devices/ap/card07/online", "0")
    assert added(machine, "ccadata/ccadata_aes_256", "03", "05", "07", "08") == [0, 0, 0, 1]


def test_a_cipher_key_is_made_by_a_queue_of_a_list() -> None:
    """Like zcrypt_ccamisc.c:cca_findcard2, cca_gencipherkey (v6.1): two questions per queue."""
    machine = machine_of("6.1")
    machine.write(f"{CONTROL}/new_card", "7 CEX6 cca")
    # 4 queues of each card are asked, those of card 5 in vain.
    assert added(machine, "ccacipher/ccacipher_aes_128", "05", "07") == [8, 9]
    # The answers are remembered.
    assert added(machine, "ccacipher/ccacipher_aes_128", "05", "07") == [0, 1]
    assert added(machine, "ccacipher/ccacipher_aes_256_xts", "05", "07") == [0, 2]
    machine.write("sys/devices/ap/card07/07.0004/online", "0")
    before = machine.read("sys/devices/ap/card07/07.0047/request_count")
    assert added(machine, "ccacipher/ccacipher_aes_128", "07") == [1]
    after = machine.read("sys/devices/ap/card07/07.0047/request_count")
    assert int(after) == int(before) + 1


def test_an_ep11_key_is_made_by_a_queue_of_a_list() -> None:
    machine = machine_of("6.1")
    machine.write(f"{CONTROL}/new_card", "8 CEX7 ep11")
    # The card is asked once; card 4 is too old.
    assert added(machine, "ep11/ep11_aes_128", "04", "08") == [0, 2]
    assert added(machine, "ep11/ep11_aes_128_xts", "04", "08") == [0, 2]


def test_handlers_of_keys_ask_each_time() -> None:
    """Like pkey_cca.c:cca_gen_key, pkey_ep11.c:ep11_gen_key (v6.12)."""
    machine = machine_of("6.12")
    assert added(machine, "ccadata/ccadata_aes_128", "05") == [9]
    assert added(machine, "ccadata/ccadata_aes_128_xts", "05") == [18]
    # No card is new enough, which is found out twice.
    assert added(machine, "ccacipher/ccacipher_aes_128", "05") == [16]
    machine.write(f"{CONTROL}/new_card", "8 CEX7 ep11")
    assert added(machine, "ep11/ep11_aes_128", "08") == [2]
    assert added(machine, "ep11/ep11_aes_128_xts", "08") == [2]


def zcrypt_errors(machine: Machine) -> list[str]:
    """The last words of what zcrypt has told of errors."""
    lines = machine.read("sys/kernel/debug/s390dbf/zcrypt/sprintf").splitlines()
    return [line.partition("  ")[2] for line in lines]


@every_kernel
def test_keys_need_a_master_key(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CONTROL}/new_card", "7 CEX7 cca")
    machine.write(f"{CONTROL}/new_card", "8 CEX8 ep11")
    for domain in ("0004", "0047", "00ab", "00ff"):
        for kind in ("AES", "WK"):
            machine.write(f"{CONTROL}/master_keys", f"0x{domain} {kind} clear current")
    handlers = kernel == "6.12"
    answers = {
        # An older kernel asks any card, which refuses.
        "ccadata": "ENODEV" if handlers else "EIO",
        "ccacipher": "ENODEV",
        "ep11": "EIO",
    }
    for family, answer in answers.items():
        for end in ENDS:
            assert refusal(machine, f"{PKEY}/{family}/{family}_aes_{end}") == answer
    told = zcrypt_errors(machine)
    refused_key = "cca_genseckey secure key generate failure, card response 12/764"
    assert (refused_key in told) == (not handlers)
    assert "_ep11_genaeskey return value 0x80010009 != 0" in told


def test_the_last_refusal_of_a_list_counts() -> None:
    machine = machine_of("6.1")
    machine.write(f"{CONTROL}/new_card", "7 CEX6 cca")
    machine.read(f"{PKEY}/ccacipher/ccacipher_aes_128")
    # What is remembered is not true any more.
    for domain in ("0004", "0047", "00ab", "00ff"):
        machine.write(f"{CONTROL}/master_keys", f"0x{domain} AES clear current")
    for end in ENDS:
        assert refusal(machine, f"{PKEY}/ccacipher/ccacipher_aes_{end}") == "EIO"
    assert zcrypt_errors(machine)[-1] == (
        "cca_gencipherkey cipher key generate failure, card response 12/764"
    )
    machine.write("sys/devices/ap/card07/config", "0")
    assert refusal(machine, f"{PKEY}/ccacipher/ccacipher_aes_128") == "ENODEV"
    assert zcrypt_errors(machine)[-1] == (
        "cca_gencipherkey zcrypt_send_cprb (cardnr=7 domain=255) failed, rc=-19"
    )


def test_half_of_a_double_key() -> None:
    """A cipher key of two halves is one where the card fails in between; what is left is no key."""
    machine = machine_of("6.1")
    machine.write(f"{CONTROL}/new_card", "7 CEX6 cca")
    path = f"{PKEY}/ccacipher/ccacipher_aes_128_xts"
    assert len(machine.read(path)) == 272
    bus = machine.subsystems.ap.system.bus
    send, count = bus.zcrypt.send, itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bus.zcrypt, "send", lambda *at: None if next(count) else send(*at))
        node = machine.fs.resolve(path)
        file = machine.fs.open(node, os.O_RDONLY)
        assert len(file.read(0, 4096, nonblock=False)) == 136
        file.release()


@every_kernel
def test_keys_need_a_card_of_the_host(kernel: str) -> None:
    machine = machine_of(kernel)

    def can(family: str) -> bool:
        try:
            machine.read(f"{PKEY}/{family}/{family}_aes_128")
        except KernelError as error:
            assert error.name == "ENODEV"
            return False
        return True

    # The cards of the default machine are too old for the others.
    assert [can(family) for family in SIZES] == [True, True, False, False]
    machine.write(f"{BUS}/apmask", "-5")
    assert not can("ccadata")
    machine.write(f"{BUS}/apmask", "+5")
    assert can("ccadata")
    machine.write("sys/devices/ap/card05/online", "0")
    assert not can("ccadata")


@every_kernel
def test_vfio_groups(kernel: str) -> None:
    """Names, numbers and order of the events are those of the recordings of 6.1 and 6.12."""
    machine = machine_of(kernel)
    free_all(machine)
    assert machine.listdir("sys/class/vfio") == []
    assert not exists(machine, "sys/devices/virtual/vfio")
    count = len(uevents(machine))
    new_mdev(machine, U1)
    told = [event.split(" SUBSYSTEM=")[0] for event in uevents(machine)[count:]]
    assert told[:2] == [f"add /devices/vfio_ap/matrix/{U1}", "add /devices/virtual/vfio/0"]
    assert "add /devices/virtual/vfio/0 SUBSYSTEM=vfio MAJOR=253 MINOR=0 DEVNAME=vfio/0" in (
        uevents(machine)
    )
    new_mdev(machine, U2)
    assert machine.listdir("sys/class/vfio") == ["0", "1"]
    assert link(machine, "sys/class/vfio/1") == "../../devices/virtual/vfio/1"
    node = "sys/devices/virtual/vfio/1"
    assert sorted(machine.listdir(node)) == ["dev", "subsystem", "uevent"]
    assert machine.read(f"{node}/dev") == "253:1\n"
    assert machine.read(f"{node}/uevent") == "MAJOR=253\nMINOR=1\nDEVNAME=vfio/1\n"
    assert link(machine, f"{node}/subsystem") == "../../../../class/vfio"
    count = len(uevents(machine))
    machine.write(f"sys/bus/mdev/devices/{U1}/remove", "1")
    told = [event.split(" SUBSYSTEM=")[0] for event in uevents(machine)[count:]]
    assert told[-3:] == [
        "remove /devices/virtual/vfio/0",
        f"unbind /devices/vfio_ap/matrix/{U1}",
        f"remove /devices/vfio_ap/matrix/{U1}",
    ]
    assert machine.listdir("sys/class/vfio") == ["1"]
    assert not exists(machine, "sys/class/vfio/0")
    assert not exists(machine, "sys/devices/virtual/vfio/nothing")


@every_kernel
def test_a_snapshot_keeps_nodes(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CLASS}/create", "one")
    machine.write(f"{CLASS}/create", "two")
    machine.write(f"{CLASS}/destroy", "one")
    machine.write(f"{NODES}/two/apmask", "+5")
    machine.write(f"{M}/remove", "pkey")
    copy = Machine("seed", "empty")
    copy.load(machine.save())
    assert differences(machine, copy) == []
    assert copy.read(f"{NODES}/two/dev") == "252:1\n"
    copy.write(f"{M}/load", "pkey")
    machine.write(f"{M}/load", "pkey")
    assert differences(machine, copy) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "x" * 32, "a\x00"])
def test_a_node_of_a_snapshot_has_a_proper_name(name: str) -> None:
    machine = machine_of("6.1")
    machine.write(f"{CLASS}/create", "one")
    found = json.loads(machine.save())
    found["models"]["ap"]["nodes"]["zcrypt"][0]["name"] = name
    with pytest.raises(KernelError, match="EINVAL"):
        machine.load(sealed(found))
    assert exists(machine, f"{NODES}/one")


def test_nodes_of_a_snapshot_are_all_different() -> None:
    machine = machine_of("6.1")
    for name in ("one", "two"):
        machine.write(f"{CLASS}/create", name)
    for key in ("name", "minor"):
        found = json.loads(machine.save())
        nodes = found["models"]["ap"]["nodes"]["zcrypt"]
        nodes[1][key] = nodes[0][key]
        with pytest.raises(KernelError, match="EINVAL"):
            machine.load(sealed(found))
    found = json.loads(machine.save())
    found["models"]["modules"]["loaded"] = ["vfio", "mdev", "vfio_ap", "kvm", "kvm_amd"]
    with pytest.raises(KernelError, match="EINVAL"):
        machine.load(sealed(found))
