"""Tasks in processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fakesys.pool import work
from fakesys.pool.pool import Pool
from fakesys.pool.work import OtherVersion, TaskLost

JOBS = "tests.pool.jobs"
BOUND = 30


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("jobs", [0, 1, 2, 4])
def test_results_do_not_depend_on_the_number_of_workers(jobs: int) -> None:
    tasks = [{"number": number} for number in range(9)]
    told: list[int] = []
    results = Pool(jobs).ordered(f"{JOBS}:squared", tasks, lambda index, _: told.append(index))
    assert results == [{"of": n, "is": n * n} for n in range(9)]
    assert sorted(told) == list(range(9))


def test_no_task_is_no_work() -> None:
    assert Pool().ordered(f"{JOBS}:squared", []) == []


def test_a_worker_that_dies_loses_no_task(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    tasks = [{"number": number, "deadly": 3, "mark": mark} for number in range(6)]
    assert Pool(2).ordered(f"{JOBS}:deadly_once", tasks) == list(range(6))
    assert os.path.exists(mark)


def test_a_task_that_ends_each_worker_is_named() -> None:
    with pytest.raises(TaskLost, match=r"task 0: 3 workers") as lost:
        Pool(1).ordered(f"{JOBS}:deadly", [{}])
    assert lost.value.index == 0


def test_what_a_function_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="number 0"):
        Pool(1).ordered(f"{JOBS}:wrong", [{"number": 0}])


def test_files_go_along_and_each_task_has_its_own(tmp_path: Path) -> None:
    program = tmp_path / "program.sh"
    program.write_text("#!/bin/sh\necho said $1\n")
    program.chmod(0o755)
    tasks = [{"word": "one"}, {"word": "two"}]
    results = dict(Pool(1).run(f"{JOBS}:of_program", tasks, files=[program]))
    assert results == {n: f"['program.sh'] said {t['word']}\n" for n, t in enumerate(tasks)}


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    paths = [tmp_path / "a", tmp_path / "other" / "a"]
    for path in paths:
        path.touch()
    assert [file.name for file in work.order("", [paths[0], paths[0]]).files] == ["a"]
    with pytest.raises(ValueError, match="same name"):
        work.order(f"{JOBS}:squared", paths)


def test_a_worker_of_another_version_refuses() -> None:
    with pytest.raises(OtherVersion, match=r"not 0\.0"):
        work.do(work.Order(f"{JOBS}:squared", (), "0.0"), {"number": 1})


PROGRAM = """
import sys
from fakesys.pool.pool import Pool

if __name__ == "__main__":
    Pool(2).ordered("tests.pool.jobs:endless", [{"folder": sys.argv[1]}] * 2)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_program(tmp_path: Path, number: signal.Signals) -> None:
    """Neither after Ctrl-C nor after a death that leaves no time for anything."""
    script, folder = tmp_path / "script.py", tmp_path / "told"
    script.write_text(PROGRAM)
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(folder)]
    program = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    found: list[psutil.Process] = []
    try:
        until(lambda: len(pids(folder)) == 2)
        found = psutil.Process(program.pid).children(recursive=True)
        assert len(found) >= 4
        program.send_signal(number)
        until(lambda: not any(alive(process) for process in found))
        program.communicate(timeout=BOUND)
        assert program.returncode != 0
        assert (folder / "tidied").exists()
    finally:
        for process in [*found, psutil.Process()][:-1]:
            if alive(process):
                process.kill()
        program.kill()
        program.communicate()


def pids(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.isdigit()]


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
