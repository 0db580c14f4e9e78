"""Every recording of the real AP drivers is answered equally, step by step."""

from __future__ import annotations

import pytest

from tests.replay_ap.compare import same
from tests.replay_ap.recordings import ORACLE, Recording, Step, recordings
from tests.replay_ap.replay import differences

ALL = tuple(recordings())


@pytest.mark.parametrize("recording", ALL, ids=[recording.id for recording in ALL])
def test_each_step_is_answered_as_recorded(recording: Recording) -> None:
    found = list(differences(recording))
    assert not found, "\n".join(map(str, found[:5]))


def test_all_recordings_are_there() -> None:
    steps = dict.fromkeys(("6.1", "6.12"), 0)
    for recording in ALL:
        steps[recording.kernel] += len(recording.steps)
    assert steps == {"6.1": 10832, "6.12": 6365}, ORACLE


@pytest.mark.parametrize(
    ("operation", "recorded", "other"),
    [
        ("r bus/ap/apmask", "0x0\\n", "0x1\\n"),
        ("ue", "add@/a SUBSYSTEM=ap\\n", "add@/b SUBSYSTEM=ap\\n"),
        ("log", "a line\\n", ""),
        ("snap", "apmask:0x0;", "apmask:0x1;"),
        ("r devices/ap/card05/serialnr", "93AADAU5\\n", "\\n"),
    ],
)
def test_a_comparison_sees_a_difference(operation: str, recorded: str, other: str) -> None:
    step = Step("", operation, "0", recorded)
    assert same(step, "0", recorded, "")
    assert not same(step, "0", other, "")
    assert not same(step, "EINVAL", recorded, "")
