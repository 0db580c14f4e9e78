"""Tasks on a Dask cluster: a scheduler and workers that are processes of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from fakesys.pool import cluster as dask
from fakesys.pool.pool import Pool
from fakesys.pool.work import NoCluster
from tests.long import LONG
from tests.pool.test_local import BOUND, JOBS, until

if not LONG:
    pytest.skip("only with FAKESYS_LONG=1: a scheduler and two workers", allow_module_level=True)
pytest.importorskip("distributed", reason="needs the extra: pip install 'fakesys[cluster]'")


class Cluster(NamedTuple):
    address: str
    workers: list[subprocess.Popen[bytes]]


@contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]]
    quiet = subprocess.DEVNULL
    running = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(BOUND)
        finally:
            running.kill()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    common = ["--host", "127.0.0.1", "--no-dashboard"]
    with ExitStack() as stack:
        stack.enter_context(process("scheduler", *common, "--port", f"{port}"))
        until(lambda: answers(port))
        options = [*common, "--no-nanny", "--nthreads", "2"]
        workers = [stack.enter_context(process("worker", address, *options)) for _ in range(2)]
        yield Cluster(address, workers)


def test_results_are_those_of_local_workers_and_files_go_along(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = tmp_path / "program.sh"
    program.write_text("#!/bin/sh\necho said $1\n")
    program.chmod(0o755)
    tasks = [{"word": f"{number}"} for number in range(10)]
    pool = Pool(cluster=cluster.address)
    results = dict(pool.run(f"{JOBS}:of_program", tasks, files=[program]))
    assert results == {n: f"['program.sh'] said {n}\n" for n in range(10)}
    with pytest.raises(ValueError, match="number 1"):
        pool.ordered(f"{JOBS}:wrong", [{"number": 1}])


def test_a_worker_that_is_killed_loses_no_task(cluster: Cluster, tmp_path: Path) -> None:
    """Also of those that it had done, whose results it keeps."""
    count = 300
    tasks = [{"number": number, "seconds": 0.005} for number in range(count)]
    results: dict[int, object] = {}
    for index, result in Pool(cluster=cluster.address).run(f"{JOBS}:slow", tasks):
        results[index] = result
        if len(results) == count // 4:
            os.kill(cluster.workers[0].pid, signal.SIGKILL)
    assert results == {n: n * n for n in range(count)}


def test_no_scheduler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "CONNECTING", 1)
    with pytest.raises(NoCluster, match="no scheduler at tcp://127"):
        Pool(cluster=f"tcp://127.0.0.1:{free_port()}").ordered(f"{JOBS}:squared", [{}])
