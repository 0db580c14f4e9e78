"""The reference page in the package is what the declarations say."""

from __future__ import annotations

from importlib import resources

from fakesys.machine.reference.differences import differences
from fakesys.machine.reference.files import folders
from fakesys.machine.reference.page import markdown, plain
from fakesys.machine.reference.tracepoints import events
from fakesys.machine.tracing import TRACEPOINTS
from fakesys.tree.attr import Attr
from tests.test_layers import PACKAGE


def test_the_committed_page_is_up_to_date() -> None:
    page = (resources.files("fakesys") / "docs" / "abi.md").read_text()
    assert page == markdown(), "run `make abi` and read what changed"


def test_every_file_is_described_and_has_a_sane_mode() -> None:
    for folder in folders():
        for entry in folder.entries.values():
            if isinstance(entry.row, Attr):
                assert entry.row.doc.endswith("."), f"{folder.path}/{entry.row.name}"
                assert entry.row.mode & ~0o666 == 0, f"{folder.path}/{entry.row.name}"


def test_no_profile_has_two_files_of_one_name() -> None:
    for folder in folders():
        seen = set()
        for (name, _), entry in folder.entries.items():
            if isinstance(entry.row, Attr) and entry.row.present is None:
                for profile in entry.profiles:
                    assert (name, profile) not in seen, f"{folder.path}/{name} in {profile}"
                    seen.add((name, profile))


def test_the_plain_text_names_every_file() -> None:
    text = plain()
    assert "sys/kernel/debug/fakesys/last_error  0444  profiles: all" in text
    assert "    EINVAL: " in text


def test_every_tracepoint_is_described() -> None:
    found = events()
    names = {f"{cls.system}:{cls.event}" for cls in TRACEPOINTS}
    assert names <= found.keys()
    for name, event in found.items():
        assert event.doc.endswith((".", "?")), name
        assert event.forms, name


def test_a_tracepoint_tells_what_it_records_in_which_kernels() -> None:
    old, new = events()["kvm:kvm_age_page"].forms, events()["kvm:kvm_apicv_inhibit_changed"].forms
    assert [form.kernels for form in old] == ["In mmu 5.1 to 5.4-stable"]
    assert [form.kernels for form in new] == ["In apicv 6.1", "In apicv 6.12", "In apicv 6.18, 7.x"]
    assert new[0].fields == ("int reason", "bool set", "unsigned long inhibits")
    assert "..." in new[2].print_fmt


def test_the_remarks_of_docstrings_are_collected() -> None:
    found = {remark.place: remark for remark in differences()}
    polls = found["subsystems/ap_bus/state.py:BusState.poll"]
    assert polls.like == "ap_bus.c:ap_wait, ap_tasklet_fn (v6.1)"
    assert polls.text == "What a scan, a bind or a request begins is over at its end."
    written = sum(path.read_text().count("Differs: ") for path in (PACKAGE).rglob("*.py"))
    assert len(found) >= 7
    assert len(differences()) <= written
