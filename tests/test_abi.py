"""The reference page in the package is what the declarations say."""

from __future__ import annotations

from importlib import resources

from fakesys.machine.reference.page import folders, markdown, plain
from fakesys.tree.attr import Attr


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
