"""The blocks of the tracing guide run as they stand."""

from __future__ import annotations

import re
import subprocess
from importlib.resources import files
from pathlib import Path

from tests.mounts import mounted

GUIDE = (files("fakesys") / "docs" / "tracing.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_guide_works_as_it_is_written(tmp_path: Path) -> None:
    assert len(BLOCKS) >= 9
    with mounted(tmp_path, "--profile", "6.1", scenario="default") as mount:
        script = "set -e\n" + "".join(BLOCKS).replace("mountpoint", str(mount.root))
        done = subprocess.run(
            ["bash"], input=script, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert mount.bugs() == 0
    said = done.stdout
    for expected in (
        "kvm_page_fault: vcpu 0 rip 0x1005 address 0x0000000000400000",
        "nosuch == 1\n       ^\nparse_error: Field not found\n",
        "address 0x0000000000601000",
        "traceoff:count=0 if fault_address == 0x742000\n",
        "{ error_code: 100000006 } hitcount:          2  vcpu_id:          0\n",
        "tracing_mark_write: a note from the shell\n",
    ):
        assert expected in said, said
    assert done.stderr.count("Invalid argument") == 1
