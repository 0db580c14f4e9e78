"""Every recording of the real AP drivers is answered equally, step by step."""

from __future__ import annotations

import pytest

from tests.replay_ap.compare import Passed, same
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
        ("zap 05.0004", "rapq 1 zapq 2", "rapq 2 zapq 2"),
        ("ls class", "bdi/ misc/ vfio/", "misc/"),
        ("ls module", "ap/ cmf/ vfio_ap/", "ap/ cmf/"),
    ],
)
def test_a_comparison_sees_a_difference(operation: str, recorded: str, other: str) -> None:
    step = Step("", operation, "0", recorded)
    assert same(step, "0", recorded)
    assert not same(step, "0", other)
    assert not same(step, "EINVAL", recorded)


def test_a_snapshot_after_a_reset_has_to_show_a_state_of_the_queue() -> None:
    parts = ("interrupt:Off.;reset:In progress.;", "interrupt:On.;reset:None.;")
    step = Step("", "snap", "0", f"bus|05.0004 driver {parts[0]}|06.0004 driver {parts[1]}")
    found = f"bus|05.0004 driver {parts[1]}|06.0004 driver {parts[1]}"
    assert same(step, "0", found, Passed("05.0004", parts))
    assert not same(step, "0", found)
    assert not same(step, "0", found, Passed("05.0004", parts[1:]))
    assert not same(step, "0", found, Passed("06.0004", parts))
