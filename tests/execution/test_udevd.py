"""`fakesys exec --net` beside a udevd that the command runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.execution.helpers import shell

UDEVD = Path("/lib/systemd/systemd-udevd")
SCRIPT = """
PATH=$PATH:/sbin:/usr/sbin
{start}
udevadm monitor --udev --property > /run/events & monitor=$!
for i in $(seq 300); do ! grep -q UDEV /run/events || break; sleep 0.02; done
sleep 0.3
echo 0 > /sys/bus/ap/devices/05.0004/online
for i in $(seq {rounds}); do ! grep -q ^ACTION /run/events || break; sleep 0.02; done
sleep 0.5
kill $monitor
grep -c ^ACTION=change /run/events || true
[ ! -S /run/udev/control ] || kill $udevd
"""
# In the foreground of a shell in the background, so that its number is known.
START = f"{UDEVD} > /dev/null 2>&1 & udevd=$!; until [ -S /run/udev/control ]; do sleep 0.02; done"


@pytest.mark.skipif(shutil.which("udevadm") is None, reason="udevadm is not installed")
@pytest.mark.parametrize(
    ("options", "start", "count"),
    [
        (("--net",), ":", "1"),
        (("--net", "--no-udev"), ":", "0"),
        (("--net",), START, "1"),
    ],
    ids=["alone", "no-udev", "udevd"],
)
def test_one_event_of_udev_for_each_change(
    options: tuple[str, ...], start: str, count: str
) -> None:
    if start == START and not UDEVD.exists():
        pytest.skip("udevd is not installed")
    rounds = 300 if count == "1" else 25
    said = shell(SCRIPT.format(start=start, rounds=rounds), options=options, scenario="default")
    assert said.split() == [count]
