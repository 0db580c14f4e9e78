"""The bus, waiters, devices and journals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from fakesys.core.devices import Devices, parse_synthetic
from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.core.events import Bus, Changed, LogLine, Uevent, UeventBatch
from fakesys.core.journal import PACKED, LineLog, UeventLog, render_uevent
from fakesys.core.kernel import Kernel

UUID = "12345678-9abc-def0-1234-56789ABCDEF0"


def test_a_refusal_has_errno_name_and_reason() -> None:
    error = KernelError(98, "05.0004 is taken")
    assert (error.errno, error.name, error.why) == (98, "EADDRINUSE", "05.0004 is taken")
    assert str(error) == "EADDRINUSE: 05.0004 is taken"
    assert KernelError(5000, "odd").name == "5000"


def test_blocked_carries_what_will_wake_it() -> None:
    waiters = Waiters()
    assert Blocked(waiters).waiters is waiters


def test_watchers_hear_their_own_type_in_order() -> None:
    bus, heard = Bus(), list[str]()
    bus.subscribe(LogLine, lambda event: heard.append(f"a {event.text}"))
    stop = bus.subscribe(LogLine, lambda event: heard.append(f"b {event.text}"))
    bus.emit(LogLine("1"))
    bus.emit(Changed((None,)))
    stop()
    bus.emit(LogLine("2"))
    assert heard == ["a 1", "b 1", "a 2"]


def test_wanted_follows_the_watchers() -> None:
    bus = Bus()
    stop = bus.subscribe(LogLine, lambda _event: None)
    assert LogLine in bus.wanted
    stop()
    assert LogLine not in bus.wanted


def test_waiters_wake_once_and_can_be_discarded() -> None:
    waiters, woken = Waiters(), list[str]()
    waiters.wake()
    waiters.add("a", lambda: woken.append("a"))
    waiters.add("b", lambda: woken.append("b"))
    waiters.discard("b")
    waiters.discard("unknown")
    assert len(waiters) == 1
    waiters.wake()
    waiters.wake()
    assert woken == ["a"]


def test_a_woken_waiter_may_wait_again() -> None:
    waiters, woken = Waiters(), list[int]()

    def again() -> None:
        woken.append(1)
        waiters.add("again", again)

    again()
    waiters.wake()
    waiters.wake()
    assert len(woken) == 3


class Toy:
    """A device for the driver core."""

    devpath = "/devices/toy"
    subsystem = "toys"

    def uevent_env(self) -> Mapping[str, str]:
        return {"DRIVER": "toy"}

    def listed_in(self) -> tuple[object, ...]:
        return ("parent",)


@pytest.mark.parametrize("action", ["add", "remove", "bind", "unbind"])
def test_devices_tell_the_tree_first_and_then_send_the_uevent(action: str) -> None:
    bus, heard, toy = Bus(), list[object](), Toy()
    bus.subscribe(Changed, heard.append)
    bus.subscribe(Uevent, heard.append)
    devices = Devices(bus)
    {"add": devices.add, "remove": devices.remove, "bind": devices.bind, "unbind": devices.unbind}[
        action
    ](toy)
    assert heard == [
        Changed((toy, "parent")),
        Uevent(action, "/devices/toy", "toys", {"DRIVER": "toy"}),
    ]


def test_change_puts_its_fields_before_those_of_the_device() -> None:
    bus, heard = Bus(), list[Uevent]()
    bus.subscribe(Uevent, heard.append)
    Devices(bus).change(Toy(), {"ONLINE": "1"})
    assert list(heard[0].env) == ["ONLINE", "DRIVER"]


@pytest.mark.parametrize(
    ("text", "action", "env"),
    [
        ("add", "add", {"SYNTH_UUID": "0"}),
        ("change\n", "change", {"SYNTH_UUID": "0"}),
        (f"bind {UUID}", "bind", {"SYNTH_UUID": UUID}),
        (
            f"move {UUID} A=1 Bc=d2\n",
            "move",
            {"SYNTH_UUID": UUID, "SYNTH_ARG_A": "1", "SYNTH_ARG_Bc": "d2"},
        ),
    ],
)
def test_synthetic_uevents(text: str, action: str, env: dict[str, str]) -> None:
    assert parse_synthetic(text) == (action, env)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "ADD", "added", " add", "add ", "add x", f"add {UUID}x", "add\n\n"]
    + [f"add {UUID.replace('-', '_')}"]
    + [f"add {UUID} {pair}" for pair in ("A", "A=", "=1", "A_B=1", "A=1-2", "A=1  B=2")],
)
def test_synthetic_uevents_refuse(text: str) -> None:
    with pytest.raises(KernelError, match="EINVAL"):
        parse_synthetic(text)


def uevents(count: int, start: int = 0) -> Iterator[Uevent]:
    for index in range(start, start + count):
        yield Uevent("add", f"/devices/{index}", "toys")


def numbers(log: UeventLog, since: int = 0) -> list[tuple[int, str]]:
    return [(number, event.devpath) for number, event in log.since(since)]


def test_uevents_are_numbered_from_1_and_batches_stay_unmade() -> None:
    bus, log, made = Bus(), UeventLog(), list[int]()
    log.listen(bus)

    def make() -> Iterator[Uevent]:
        made.append(1)
        return uevents(3, start=1)

    bus.emit(Uevent("add", "/devices/0", "toys"))
    bus.emit(UeventBatch(3, make))
    bus.emit(UeventBatch(0, make))
    assert (log.last, made) == (4, [])
    assert numbers(log) == [(n + 1, f"/devices/{n}") for n in range(4)]
    assert numbers(log, since=2) == [(3, "/devices/2"), (4, "/devices/3")]
    assert numbers(log, since=4) == []


def test_the_oldest_uevents_are_dropped_also_within_a_batch() -> None:
    bus, log = Bus(), UeventLog(capacity=4)
    log.listen(bus)
    bus.emit(UeventBatch(3, lambda: uevents(3)))
    for event in uevents(3, start=3):
        bus.emit(event)
    assert log.first == 3
    assert numbers(log) == [(n, f"/devices/{n - 1}") for n in (3, 4, 5, 6)]
    for event in uevents(5, start=6):
        bus.emit(event)
    assert numbers(log)[0] == (8, "/devices/7")
    log.clear()
    assert (numbers(log), log.last) == ([], 11)


def test_log_lines_are_numbered_and_dropped() -> None:
    kernel, log = Kernel(), LineLog(capacity=2)
    log.listen(kernel.bus)
    for text in "abc":
        kernel.log(text)
    assert list(log.since(0)) == [(2, "b"), (3, "c")]
    assert list(log.since(2)) == [(3, "c")]


def test_packed_uevents_are_read_as_they_were() -> None:
    bus, log = Bus(), UeventLog(capacity=3 * PACKED)
    log.listen(bus)
    sent = [
        Uevent("change", f"/devices/{n}", "toys", {"NAME": "ä\n\0", "N": str(n)})
        for n in range(5 * PACKED + 7)
    ]
    for event in sent[: PACKED + 3]:
        bus.emit(event)
    reader = log.since(PACKED - 1)
    bus.emit(UeventBatch(2, lambda: sent[PACKED + 3 : PACKED + 5]))
    for event in sent[PACKED + 5 :]:
        bus.emit(event)
    # A reader that began before goes on with what was there.
    assert [event for _, event in reader] == sent[PACKED - 1 : PACKED + 3]
    first = len(sent) - 3 * PACKED + 1
    assert log.first == first
    assert list(log.since(0)) == list(enumerate(sent[first - 1 :], first))
    assert list(log.since(len(sent) - 300)) == list(enumerate(sent[-300:], len(sent) - 299))
    # Fewer objects than events: the older ones are packed.
    assert len(log.kept()) < 2 * PACKED
    log.clear()
    for event in sent[:PACKED]:
        bus.emit(event)
    assert [event for _, event in log.since(0)] == sent[:PACKED]


def test_small_batches_are_packed_like_single_uevents() -> None:
    bus, log, made = Bus(), UeventLog(), list[int]()
    log.listen(bus)

    def small(start: int) -> UeventBatch:
        def make() -> Iterator[Uevent]:
            made.append(start)
            return uevents(3, start)

        return UeventBatch(3, make)

    for start in range(0, 1000, 4):
        bus.emit(small(start))
        bus.emit(Uevent("add", f"/devices/{start + 3}", "toys"))
    assert len(log.kept()) < PACKED // 2 + 1000 // PACKED
    packed = len(made)
    assert numbers(log) == [(n + 1, f"/devices/{n}") for n in range(1000)]
    # Only those that were not packed yet are made for a reader.
    assert len(made) - packed == 250 - packed
    # A large batch is its own packed form.
    bus.emit(UeventBatch(PACKED + 1, lambda: uevents(PACKED + 1, start=1000)))
    for event in uevents(2 * PACKED, start=1001 + PACKED):
        bus.emit(event)
    assert PACKED + 1 in [chunk.count for chunk in log.kept() if isinstance(chunk, UeventBatch)]
    assert numbers(log, since=998) == [
        (n + 1, f"/devices/{n}") for n in range(998, 1001 + 3 * PACKED)
    ]


def test_packed_lines_are_read_as_they_were_with_their_times() -> None:
    kernel, log = Kernel(), LineLog(capacity=2 * PACKED)
    clock = iter(range(0, 10**9, 1000))
    log.listen(kernel.bus, lambda: next(clock))
    texts = [f"toys {n}: ä\t\0" for n in range(4 * PACKED + 9)]
    for text in texts[: PACKED + 1]:
        kernel.log(text)
    reader = log.since(PACKED - 1)
    for text in texts[PACKED + 1 :]:
        kernel.log(text)
    assert list(reader) == [(PACKED, texts[PACKED - 1]), (PACKED + 1, texts[PACKED])]
    first = len(texts) - 2 * PACKED + 1
    assert list(log.since(0)) == list(enumerate(texts[first - 1 :], first))
    assert list(log.since(len(texts) - 3)) == list(enumerate(texts[-3:], len(texts) - 2))
    assert log.times() == tuple(1000 * (n - 1) for n in range(first, len(texts) + 1))
    assert [log.time_of(n) for n in (first - 1, first, len(texts), len(texts) + 1)] == [
        0,
        1000 * (first - 1),
        1000 * (len(texts) - 1),
        0,
    ]
    other = LineLog(capacity=2 * PACKED)
    other.replace(log.last, log.kept(), log.times())
    assert (other.kept(), other.times(), other.first) == (log.kept(), log.times(), log.first)


@pytest.mark.parametrize("log", [UeventLog(), LineLog()])
def test_journals_wake_their_readers(log: UeventLog | LineLog) -> None:
    bus, woken = Bus(), list[int]()
    log.listen(bus)
    log.waiters.add("reader", lambda: woken.append(1))
    bus.emit(Uevent("add", "/devices/0", "toys"))
    bus.emit(LogLine("line"))
    assert woken == [1]


def test_an_uevent_prints_as_lines_and_a_blank_one() -> None:
    event = Uevent("change", "/devices/ap", "", {"CONFIG": "1"})
    assert render_uevent(7, event) == ("ACTION=change\nDEVPATH=/devices/ap\nCONFIG=1\nSEQNUM=7\n\n")


def test_the_same_seed_gives_the_same_chance() -> None:
    draws: Callable[[int], list[float]] = lambda seed: [Kernel(seed).random.random()]  # noqa: E731
    assert draws(3) == draws(3) != draws(4)
