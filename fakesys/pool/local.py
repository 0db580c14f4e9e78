"""Tasks in processes of this machine.

Each worker is an executor of one process, so that a process which dies takes one task with it, and
which one is known.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from types import FrameType
from typing import Any

from fakesys.pool.work import ATTEMPTS, Order, TaskLost, do

# Seconds that a worker has to tidy up after SIGTERM.
TIDYING = 10.0
_PR_SET_PDEATHSIG = 1


class Stopped(BaseException):
    """A worker was told to end; raised in the function that it is in."""


def run(
    jobs: int, order: Order, tasks: Sequence[Mapping[str, Any]]
) -> Generator[tuple[int, Any], None, None]:
    """Do all tasks; yield the index and result of each as it ends. Ends all processes in any case.

    Raises TaskLost, and what the function raises.
    """
    workers = [Worker(order) for _ in range(min(jobs, len(tasks)))]
    try:
        yield from _results(workers, tasks)
    finally:
        for worker in workers:
            worker.terminate()
        deadline = time.monotonic() + TIDYING
        for worker in workers:
            worker.end(deadline)


def _results(
    workers: Sequence[Worker], tasks: Sequence[Mapping[str, Any]]
) -> Generator[tuple[int, Any], None, None]:
    left = iter(enumerate(tasks))
    busy: dict[Future[Any], Worker] = {}
    for worker, (index, task) in zip(workers, left, strict=False):
        busy[worker.begin(index, task)] = worker
    while busy:
        ended, _ = wait(busy, return_when=FIRST_COMPLETED)
        for future in ended:
            worker = busy.pop(future)
            index = worker.index
            try:
                result = future.result()
            except BrokenProcessPool:
                busy[worker.again()] = worker
                continue
            # It goes on before the caller looks at the result.
            for following in left:
                busy[worker.begin(*following)] = worker
                break
            yield index, result


class Worker:
    """A process, replaced by another one when it dies. `index`: of the task that it does."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._start()
        self.index = -1
        self._task: Mapping[str, Any] = {}
        self._attempts = 0

    def _start(self) -> None:
        # Not forked: the caller may have threads, and forked processes inherit its open files.
        spawn = get_context("spawn")
        self._executor = ProcessPoolExecutor(
            1, spawn, initializer=_prepare, initargs=(os.getpid(),)
        )
        self._process: Any = None

    def begin(self, index: int, task: Mapping[str, Any]) -> Future[Any]:
        """Begin a task."""
        self.index, self._task, self._attempts = index, task, 0
        return self._submit()

    def again(self) -> Future[Any]:
        """Begin the same task in another process. Raises TaskLost after too many of them."""
        if self._attempts == ATTEMPTS:
            raise TaskLost(self.index)
        self.end(time.monotonic() + TIDYING)
        self._start()
        return self._submit()

    def _submit(self) -> Future[Any]:
        self._attempts += 1
        future = self._executor.submit(do_or_end, self._order, self._task)
        self._process = next(iter((self._executor._processes or {}).values()), self._process)
        return future

    def terminate(self) -> None:
        """Tell the process to end, and not to begin another task."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._process is not None and self._process.is_alive():
            self._process.terminate()

    def end(self, deadline: float) -> None:
        """Wait for the end of the process until a deadline; then kill it and what it started."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._process is None:
            return
        self._process.join(max(0.0, deadline - time.monotonic()))
        # Its group has its number and may outlive it.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.join(TIDYING)
        self._executor.shutdown(wait=True)


class _Busy:
    """Of a worker: whether it does a task at this moment."""

    now = False


def do_or_end(order: Order, task: Mapping[str, Any]) -> Any:
    """Do a task; if told to end meanwhile, end the process and what the task started."""
    try:
        _Busy.now = True
        return do(order, task)
    except Stopped:
        os.killpg(0, signal.SIGKILL)
        raise
    finally:
        _Busy.now = False


def _prepare(parent: int) -> None:
    """Make a worker end with its parent, apart from the terminal, and by SIGTERM tidily."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Once is enough: it is not to interrupt what tidies up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not _Busy.now:
        # There is nothing to tidy up, and nothing that an exception could tell.
        os._exit(0)
    raise Stopped
