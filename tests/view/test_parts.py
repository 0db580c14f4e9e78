"""The parts of the page without a browser and without a mount."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount as Below

from fakesys.machine.machine import Machine
from fakesys.view import actions, reading, server, streams
from fakesys.view.actions import BadAction
from fakesys.view.guard import Guard
from fakesys.view.reading import WORDS
from fakesys.view.server import Page
from fakesys.view.store import LINES_KEPT, REMOVALS_KEPT, Reader, Store
from fakesys.view.streams import Stream, shown
from fakesys.view.watching import Watcher
from tests.view.plain_mount import CONTROL, KVM, PIPES, TRACE_PIPE, PlainMount, texts_of

UUID = "10000000-0000-4000-8000-000000000001"
HOST, TOKEN = "127.0.0.1:4000", "token"
SECONDS = 20.0


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """What the files say of a machine with a device, a guest and a VM."""
    machine = Machine("6.1", "default")
    control = f"{CONTROL}/ap"
    machine.write("sys/bus/ap/aqmask", "-4\n")
    matrix = "sys/devices/vfio_ap/matrix"
    machine.write(f"{matrix}/mdev_supported_types/vfio_ap-passthrough/create", f"{UUID}\n")
    machine.write(f"{matrix}/{UUID}/assign_adapter", "5\n")
    machine.write(f"{matrix}/{UUID}/assign_domain", "4\n")
    machine.write(f"{control}/new_guest", "first\n")
    machine.write(f"{control}/guests/first/attach", f"{UUID}\n")
    machine.write(f"{CONTROL}/kvm/preset", "linux-boot vcpus=2 name=boots\n")
    return texts_of(machine)


@pytest.fixture
def plain(tmp_path: Path, texts: dict[str, str]) -> Iterator[PlainMount]:
    made = PlainMount(tmp_path / "mnt", texts)
    yield made
    made.close()


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_a_page_is_sent_what_has_changed() -> None:
    store = Store()
    store.replace("a/", {"a/1": 1, "a/2": 2})
    reader = Reader(store)
    assert reader.news() == {"whole": True, "set": {"a/1": 1, "a/2": 2}}
    assert reader.news() == {}
    store.replace("a/", {"a/1": 1, "a/3": 3})
    store.replace("b/", {"b/1": 1})
    assert reader.news() == {"set": {"a/3": 3, "b/1": 1}, "gone": ["a/2"]}
    store.replace("a/", {"a/1": 1, "a/2": 5, "a/3": 3})
    assert reader.news() == {"set": {"a/2": 5}}


def test_a_page_that_falls_behind_gets_the_state_and_no_backlog() -> None:
    store = Store()
    reader = Reader(store)
    store.replace("a/", {"a/x": 0})
    reader.news()
    for number in range(10_000):
        store.replace("a/", {"a/x": number})
        store.append("log", [[str(number)]])
    news = reader.news()
    assert news["set"] == {"a/x": 9999}
    assert len(news["lines"]["log"]) == LINES_KEPT
    assert news["lines"]["log"][-1] == ["9999"]
    assert news["missed"] == {"log": 10_000 - LINES_KEPT}
    assert reader.news() == {}


def test_a_page_that_missed_what_went_begins_again() -> None:
    store = Store()
    reader = Reader(store)
    store.replace("a/", {"a/stays": 1, "a/goes": 1})
    reader.news()
    for number in range(REMOVALS_KEPT + 10):
        store.replace("b/", {f"b/{number}": 1})
    store.replace("a/", {"a/stays": 1})
    for number in range(REMOVALS_KEPT + 10):
        store.replace("b/", {f"b/{number}": 1})
    news = reader.news()
    assert news["whole"] is True
    assert set(news["set"]) == {"a/stays", f"b/{REMOVALS_KEPT + 9}"}
    assert "gone" not in news
    assert len(store.removed) <= REMOVALS_KEPT + 1


def test_another_machine_begins_all_lines_again() -> None:
    store = Store()
    reader = Reader(store)
    store.append("log", [["old"]])
    assert reader.news()["lines"] == {"log": [["old"]]}
    store.forget_lines()
    assert reader.news() == {"whole": True}
    store.append("log", [["new"]])
    assert reader.news()["lines"] == {"log": [["new"]]}


def test_texts_for_the_page() -> None:
    assert shown(b"a\tb\x00\x1b[0m\n") == "a\\tb\\x00\\x1b[0m"
    assert shown(b"\xff") == "\\xff"
    assert shown("ü\u202e".encode()) == "ü\\u202e"
    assert len(shown(b"x" * 10_000)) == streams.LONGEST_TEXT + 1


def test_uevents_in_pieces(plain: PlainMount) -> None:
    stream = Stream(plain.root / PIPES[0], streams.uevents, b"\n\n")
    assert stream.read() == []
    plain.say(PIPES[0], b"ACTION=add\nDEVPATH=/x\nSEQNUM=1\n\nACTION=re")
    assert stream.read() == [["add", "/x", "SEQNUM=1"]]
    plain.say(PIPES[0], b"move\nDEVPATH=/y\n\nnonsense\n\n")
    assert stream.read() == [["remove", "/y", ""]]
    stream.close()


def test_lines_of_writers() -> None:
    line = {"time": 1.5, "pid": 7, "uid": 0, "comm": "<b>", "call": "write", "path": "a\nb"}
    line |= {"text": "-4\n", "size": 3, "result": "ok", "why": ""}
    made = {**line, "call": "mkdir", "result": "EEXIST", "why": "it exists"}
    found = list(streams.writes([json.dumps(one).encode() for one in (line, made, {"lost": 3})]))
    assert found == [
        ["1.500", "<b>[7] uid 0", "ok", "a\\nb", "-4", ""],
        ["1.500", "<b>[7] uid 0", "EEXIST", "a\\nb", "(mkdir)", "it exists"],
        ["", "", "", "", "", "3 writes left out: too many at once"],
    ]


def test_the_ap_part(plain: PlainMount) -> None:
    found = reading.ap(plain.root)
    assert found["ap/card/05"]["type"].startswith("CEX")
    assert found[f"ap/mdev/{UUID}"]["guest"] == "first"
    assert found["ap/guest/first"]["mdev"] == UUID
    assert found["ap/masks"]["aqmask"].startswith("0xf7")
    (plain.root / CONTROL / "ap/state").unlink()
    assert reading.ap(plain.root) == {}


def test_the_kvm_part(plain: PlainMount) -> None:
    plain.put(f"{CONTROL}/kvm/vms/boots/memslots", "0 0x0 0x1000 - private+0x0\n")
    found = reading.kvm(plain.root)
    vm = found["kvm/vm/boots"]
    assert [vcpu[0] for vcpu in vm["vcpus"]] == ["vcpu0", "vcpu1"]
    # The default of kvm_amd.avic is off in this kernel.
    reasons = [[name, WORDS[name]] for name in ("DISABLED", "ABSENT")]
    assert (vm["apicv"], vm["reasons"]) == ("suspended", reasons)
    assert vm["memslots"] == ["0 0x0 0x1000 - private+0x0"]
    assert found["kvm/counters"]
    # A VM that goes while it is read, and one that says why.
    folder = plain.root / CONTROL / "kvm/vms"
    (folder / "gone").mkdir()
    state = folder / "boots/state"
    lines = [line for line in state.read_text().splitlines() if not line.startswith("inhibits ")]
    state.write_text("\n".join([*lines, "inhibits 0x1\n"]).replace("SUSPENDED", "-"))
    (folder / "boots/shadow_pages").write_text("0x1 4 x 2 y direct\n0x2 4 x 2 y direct\nshort\n")
    again = reading.kvm(plain.root)
    assert set(again) == {"kvm/vm/boots", "kvm/counters"}
    assert again["kvm/vm/boots"]["apicv"] == "inhibited"
    assert again["kvm/vm/boots"]["reasons"] == [["DISABLED", WORDS["DISABLED"]]]
    assert again["kvm/vm/boots"]["pages"] == [["4", "2", "direct", 2]]
    (plain.root / KVM / "nonsense").write_text("no number")
    assert "nonsense" not in reading.kvm(plain.root)["kvm/counters"]
    (plain.root / CONTROL / "kvm/apicv_profile").unlink()
    assert reading.kvm(plain.root) == {}


def test_every_reason_has_words() -> None:
    """Of every kernel."""
    from fakesys.machine.kernels.apicv import APICV_KERNELS

    for kernel in APICV_KERNELS.values():
        assert {reason.value for reason in kernel.policy.numbers} <= set(WORDS)


def test_what_the_buttons_write(plain: PlainMount) -> None:
    plain.put(f"{CONTROL}/ap/guests/first/attach", "")
    plain.put(f"{CONTROL}/ap/guests/first/detach", "")
    for words, path, text in (
        ({"action": "pull", "adapter": "05"}, "ap/del_card", "0x05"),
        (
            {"action": "plug", "adapter": "7", "type": "CEX6", "mode": "cca"},
            "ap/new_card",
            "0x7 CEX6 cca",
        ),
        ({"action": "guest", "guest": "two"}, "ap/new_guest", "two"),
        ({"action": "attach", "guest": "first", "mdev": UUID}, "ap/guests/first/attach", UUID),
        ({"action": "detach", "guest": "first"}, "ap/guests/first/detach", "1"),
        ({"action": "advance", "seconds": "2.5"}, "clock/advance", "2.5"),
    ):
        plain.put(f"{CONTROL}/{path}", "")
        assert actions.act(plain.root, words) == "ok"
        assert plain.text(path) == text


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"action": "reset"},
        {"action": "pull"},
        {"action": "pull", "adapter": 5},
        {"action": "pull", "adapter": "5\n1"},
        {"action": "plug", "adapter": "5", "type": "CEX9", "mode": "cca"},
        {"action": "attach", "guest": "../../clock", "mdev": UUID},
        {"action": "detach", "guest": ".."},
        {"action": "detach", "guest": "a\0"},
        {"action": "advance", "seconds": "1e9"},
    ],
)
def test_what_no_button_makes(plain: PlainMount, words: dict[str, Any]) -> None:
    with pytest.raises(BadAction):
        actions.act(plain.root, words)


def test_a_refused_button(plain: PlainMount) -> None:
    words = {"action": "detach", "guest": "none"}
    assert actions.act(plain.root, words) == "ENOENT: No such file or directory"
    plain.put(f"{CONTROL}/last_error", "1.0 a/b ENOENT the <reason>\n")
    assert actions.act(plain.root, words) == "ENOENT: the <reason>"
    (plain.root / CONTROL / "last_error").unlink()
    assert actions.act(plain.root, words) == "ENOENT: No such file or directory"


def test_the_files_of_a_queue(plain: PlainMount) -> None:
    folder = "sys/devices/ap/card05/05.0004"
    plain.put(f"{folder}/status", "ok\n")
    (plain.root / folder / "driver").symlink_to("../../../../bus/ap/drivers/vfio_ap")
    found = actions.queue(plain.root, "05.0004")
    assert found == {"path": folder, "driver": "vfio_ap", "status": "ok"}
    assert actions.queue(plain.root, "06.0004") == {"path": "sys/devices/ap/card06/06.0004"}
    for name in ("05.4", "../x", "05.0004\n"):
        with pytest.raises(BadAction):
            actions.queue(plain.root, name)


class Asked:
    """A page and its guard, asked without a server."""

    def __init__(self, plain: PlainMount, *, control: bool = False) -> None:
        self.store = Store()
        self.watcher = Watcher(plain.root, self.store)
        self.page = Page(plain.root, self.store, self.watcher, control=control)
        routes = [Below(f"/{TOKEN}", routes=self.page.routes())]
        self.app = Guard(Starlette(routes=routes), TOKEN, frozenset({HOST}))

    def __call__(
        self,
        path: str,
        headers: tuple[tuple[str, str], ...] = (("Host", HOST),),
        *,
        method: str = "GET",
        body: bytes = b"",
        kind: str = "http",
    ) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers of the answer; 0 if there is none."""
        scope = {
            "type": kind, "method": method, "path": path, "raw_path": path.encode(),
            "query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        }  # fmt: skip
        sent: list[Any] = []

        bodies = [body]

        async def receive() -> dict[str, object]:
            if not bodies:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        if not sent:
            return 0, b"", {}
        answer = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:]), answer


def test_the_guard(plain: PlainMount) -> None:
    ask = Asked(plain)
    own = ("Host", HOST)
    status, body, headers = ask(f"/{TOKEN}/")
    assert (status, body) == (200, (server.STATIC / "index.html").read_bytes())
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    for path, extra, why in (
        ("/", (own,), b"open the address"),
        ("", (own,), b"open the address"),
        ("/other/", (own,), b"open the address"),
        (f"/{TOKEN}/", (), b"one Host"),
        (f"/{TOKEN}/", (own, own), b"one Host"),
        (f"/{TOKEN}/", (("Host", "evil"),), b"not the host"),
        (f"/{TOKEN}/", (own, ("Origin", "http://evil")), b"another page"),
        (f"/{TOKEN}/", (own, ("Origin", f"https://{HOST}")), b"another page"),
        (f"/{TOKEN}/", (own, ("Sec-Fetch-Site", "same-site")), b"another page"),
    ):
        status, body, headers = ask(path, extra)
        assert status == 403
        assert why in body
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert ask(f"/{TOKEN}/", (own, ("Origin", f"http://{HOST}")))[0] == 200
    assert ask(f"/{TOKEN}/", kind="websocket") == (0, b"", {})


def test_requests_for_buttons(plain: PlainMount) -> None:
    own, typed = ("Host", HOST), ("Content-Type", "application/json")
    path = f"/{TOKEN}/control"
    assert Asked(plain)(path, (own, typed), method="POST", body=b"{}")[0] == 403
    ask = Asked(plain, control=True)
    good = json.dumps({"action": "pull", "adapter": "5"}).encode()
    status, body, _ = ask(path, (own, typed), method="POST", body=good)
    assert (status, json.loads(body)) == (200, {"result": "ok"})
    for headers, body, expected in (
        ((own,), good, 415),
        ((own, typed), b" " * 5000, 413),
        ((own, typed), b"[]", 400),
        ((own, typed), b"{", 400),
        ((own, typed), b"\xff", 400),
        ((own, typed), b"[" * 4000, 400),
        ((own, typed), b'{"action": "none"}', 400),
    ):
        assert ask(path, headers, method="POST", body=body)[0] == expected, body[:20]


def test_the_file_of_a_queue_by_its_address(plain: PlainMount) -> None:
    ask = Asked(plain)
    status, body, _ = ask(f"/{TOKEN}/queue/05.0004")
    assert (status, json.loads(body)["path"]) == (200, "sys/devices/ap/card05/05.0004")
    assert ask(f"/{TOKEN}/queue/nonsense")[0] == 404


def test_messages_to_a_page(plain: PlainMount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PACE", 0.001)
    monkeypatch.setattr(server, "KEEP_ALIVE", 0.002)
    ask = Asked(plain, control=True)
    ask.store.replace("a/", {"a/<b>": "line\nbreak"})
    rounds = iter(range(10))
    ask.page.ending = lambda: next(rounds, None) is None
    status, body, headers = ask(f"/{TOKEN}/events")
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    first, second, *rest = [part for part in body.decode().split("\n\n") if part]
    assert json.loads(first.removeprefix("data: ")) == {"whole": True, "control": True}
    assert json.loads(second.removeprefix("data: "))["set"] == {"a/<b>": "line\nbreak"}
    assert set(rest) == {":"}


def test_the_watcher_reads_and_follows(plain: PlainMount) -> None:
    store = Store()
    watcher = Watcher(plain.root, store, trace=True)
    watcher.start()
    try:
        wait_for(lambda: "ap/card/05" in store.values and "kvm/vm/boots" in store.values)
        assert store.values["mount/profile"][1] == "6.1"
        assert watcher.trouble() == ""
        for path, text, name in (
            (PIPES[1], b"a line\n", "log"),
            (PIPES[2], b'{"lost":1}\n', "writes"),
            (TRACE_PIPE, b"an event\n", "trace"),
        ):
            plain.say(path, text)
            wait_for(partial(store.lines.get, name))
        # Each line lets it look again.
        plain.change_state(lambda state: state["bus"]["cards"].pop("05"))
        plain.say(PIPES[1], b"another\n")
        wait_for(lambda: "ap/card/05" not in store.values)
    finally:
        watcher.stop()


def test_the_watcher_says_what_is_wrong(plain: PlainMount, tmp_path: Path) -> None:
    store = Store()
    watcher = Watcher(plain.root, store)
    away = tmp_path / "away"
    plain.root.rename(away)
    watcher.start()
    try:
        wait_for(lambda: "The mount is gone" in watcher.trouble())
        away.rename(plain.root)
        wait_for(lambda: "ap/card/05" in store.values and not watcher.trouble())
        good = plain.text("ap/state")
        plain.put(f"{CONTROL}/ap/state", "no JSON")
        wait_for(lambda: "does not understand" in watcher.trouble())
        plain.put(f"{CONTROL}/ap/state", good)
        wait_for(lambda: not watcher.trouble())
        watcher._beat -= 60
    finally:
        watcher.stop()


def test_a_stream_of_the_owner_only(plain: PlainMount, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user sees the page without the writes."""
    real = os.open

    def refuse(path: Path, *rest: int) -> int:
        if str(path).endswith("/writers"):
            raise PermissionError
        return real(path, *rest)

    monkeypatch.setattr(os, "open", refuse)
    store = Store()
    watcher = Watcher(plain.root, store)
    watcher.start()
    try:
        plain.say(PIPES[1], b"a line\n")
        wait_for(lambda: store.lines.get("log"))
        assert watcher.trouble() == ""
    finally:
        watcher.stop()
