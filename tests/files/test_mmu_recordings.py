"""Every recording of a real KVM, replayed through the files: nothing may differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.replay_kvm.__main__ import main
from tests.replay_kvm.machines import in_process
from tests.replay_kvm.recordings import ORACLE, load
from tests.replay_kvm.replay import Replay

RECORDINGS = load(ORACLE)


def test_there_are_32_recordings() -> None:
    assert len(RECORDINGS.scenarios) == 32
    assert sum(len(scenario["steps"]) for scenario in RECORDINGS.scenarios) == 448


@pytest.mark.parametrize("name", [entry["scenario"] for entry in RECORDINGS.scenarios])
def test_recording(name: str) -> None:
    with in_process() as (files, events):
        verdict = Replay(files, events, RECORDINGS.aliases).run(RECORDINGS.named(name))
    assert verdict.differences == []
    assert verdict.steps == verdict.sp_events == verdict.all_events == verdict.results > 0
    assert verdict.counters == verdict.steps


def changed(folder: Path, name: str, change: dict[str, Any]) -> None:
    """A folder with one recording in which some steps say something else."""
    scenario = json.loads(json.dumps(RECORDINGS.named(name)))
    for number, keys in change.items():
        scenario["steps"][int(number)].update(keys)
    (folder / "one.json").write_text(json.dumps(scenario))
    (folder / "aliases.json").write_text(json.dumps(RECORDINGS.aliases))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_takes_any_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(tmp_path, "slot-errors", {})
    status, out, err = run(capsys, str(tmp_path))
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "1 of 1 equal"


def test_what_differs_is_shown_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(
        tmp_path,
        "slot-errors",
        {"1": {"events": ["nothing: of the kind"]}, "3": {"result": {"errno": "EPERM"}}},
    )
    status, out, _ = run(capsys, str(tmp_path))
    assert status == 1
    assert "DIFFERS" in out
    assert "slot-errors[1] create_vm: events, item 0 of 1 and of 1" in out
    assert "    recorded {'errno': 'EPERM'}\n    here     {'errno': 'EEXIST'}" in out
    assert out.splitlines()[-1] == "0 of 1 equal"


def test_other_counters_are_a_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(tmp_path, "touch-one", {"0": {"counters": {"vm": {"mmu_cache_miss": "+1"}}}})
    status, out, _ = run(capsys, str(tmp_path))
    assert status == 1
    assert "touch-one[0] mem: counters" in out


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no recordings in it"),
        ({"other.json": "[]"}, "no recordings in it"),
        ({"a.json": "{"}, "a.json: Expecting property name"),
        ({"a.json": '{"scenario": "a"}'}, "a.json: 'steps' is no list"),
        ({"a.json": '{"scenario": "a", "steps": [1]}'}, "a.json: step 0: None is none of mem,"),
        (
            {"a.json": '{"scenario": "a", "steps": [{"op": "dance"}]}'},
            "a.json: step 0: 'dance' is none of mem,",
        ),
        (
            {"a.json": '{"scenario": "a", "steps": [{"op": "mem", "args": {"size": 1}}]}'},
            "a.json: step 0: mem without name",
        ),
        ({"a.json": '{"scenario": "a", "steps": []}', "aliases.json": "[]"}, "no JSON object"),
    ],
)
def test_an_unusable_folder_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    status, out, err = run(capsys, str(tmp_path))
    assert (status, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith(f"replay_kvm: {tmp_path}")
    assert message in line


def test_other_wrong_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, str(tmp_path / "nowhere"))[0] == 2
    assert "no recording 'x'" in run(capsys, str(ORACLE), "--only", "x")[2]
    status, _, err = run(capsys, str(ORACLE), "--only", "touch-one", "--mount", str(tmp_path))
    assert status == 1
    assert "No such file or directory" in err
    assert run(capsys, "--colour")[0] == 2
