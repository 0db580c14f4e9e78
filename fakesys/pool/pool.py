"""One pool for everything that consists of many independent tasks."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec import Struct

from fakesys.pool.work import Order, do, order


class Pool(Struct, frozen=True):
    """Where tasks run: in `jobs` processes of this machine, or on the cluster of a scheduler.

    `jobs`: None for as many as this process may use processors; 0 for one task after the other in
    this process. `cluster`: such as `tcp://host:8786`; then `jobs` counts for nothing.
    """

    jobs: int | None = None
    cluster: str | None = None

    def run(
        self,
        work: str,
        tasks: Sequence[Mapping[str, Any]],
        on_done: Callable[[int, Any], None] | None = None,
        files: Iterable[Path] = (),
    ) -> Generator[tuple[int, Any], None, None]:
        """Do all tasks with the function `module:name`; yield index and result of each as it ends.

        `on_done` is told of each before it is yielded. `files` go along: the function then gets, as
        a second argument, a folder of its own with them. Close the iterator, or let an exception
        end it, and no process is left. Raises TaskLost, NoCluster, and what the function raises.
        """
        wanted = order(work, files)
        with closing(self._results(wanted, tasks)) as results:
            for index, result in results:
                if on_done is not None:
                    on_done(index, result)
                yield index, result

    def ordered(
        self,
        work: str,
        tasks: Sequence[Mapping[str, Any]],
        on_done: Callable[[int, Any], None] | None = None,
    ) -> list[Any]:
        """Do all tasks; return their results in the order of the tasks."""
        with closing(self.run(work, tasks, on_done)) as ended:
            results = dict(ended)
        return [results[index] for index in range(len(tasks))]

    def _results(
        self, wanted: Order, tasks: Sequence[Mapping[str, Any]]
    ) -> Generator[tuple[int, Any], None, None]:
        if self.cluster is not None:
            from fakesys.pool import cluster

            return cluster.run(self.cluster, wanted, tasks)
        if self.jobs == 0:
            return ((index, do(wanted, task)) for index, task in enumerate(tasks))
        from fakesys.pool import local

        return local.run(self.jobs or processors(), wanted, tasks)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
