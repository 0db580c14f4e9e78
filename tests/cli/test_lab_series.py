"""`fakesys lab ap` and `fakesys lab apicv --patches`: tables of the levels of two series."""

from __future__ import annotations

from click.testing import CliRunner

from fakesys.cli.lab import lab
from fakesys.lab import series


def rows(*command: str) -> dict[str, list[str]]:
    """The first word of each line of the output -> the other words."""
    done = CliRunner().invoke(lab, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    split = (line.split() for line in done.output.splitlines())
    return {words[0]: words[1:] for words in split if len(words) > 5}


def test_the_levels_of_vfio_ap() -> None:
    found = rows("ap")
    assert found["5.3"] == ["6", "EADDRNOTAVAIL", "ok", "0", "2", "2", "0"]
    assert found["v6-03"] == ["0", "ok", "ok", "0", "2", "2", "1"]
    assert found["v6-06"] == ["0", "ok", "ok", "2", "0", "0", "0"]
    assert found["v6-08"] == found["v6"] == ["0", "ok", "EADDRINUSE", "0", "0", "0", "0"]
    assert found["6.12"] == ["0", "ok", "EBUSY", "0", "0", "0", "0"]
    assert set(series.AP_LEVELS) <= found.keys()


def test_the_levels_of_avic() -> None:
    found = rows("apicv", "--patches", "--vcpus", "2")
    assert set(series.APICV_LEVELS) <= found.keys()
    assert found["v3-10"][3:7] == ["at=49", "why=extint", "98", "0"]
    assert found["v3-16"] == ["done", "153", "16", "done", "153", "16", "done", "153", "16",
                              "done", "89", "16"]  # fmt: skip
    assert series.apicv_level("v3-14", 2).without_reinjection.result == "at=2 why=pending_eoi"
