"""System calls for namespaces."""

from __future__ import annotations

import subprocess
import sys

import pytest

# unshare(CLONE_NEWUSER) is refused with EINVAL while there is a second thread.
SCRIPT = """
import threading, time
from fakesys.execution.base.syscalls import CLONE_NEWUSER, unshare
threading.Thread(target=time.sleep, args=(0.3,)).start()
unshare(CLONE_NEWUSER)
print("entered")
"""


def test_a_thread_that_ends_does_not_refuse_a_user_namespace() -> None:
    if subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system has no user namespaces")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("entered\n", "")
