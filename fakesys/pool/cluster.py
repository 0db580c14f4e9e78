"""Tasks on a Dask cluster. Nothing else imports Dask."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from fakesys.pool.work import NoCluster, Order, TaskLost, do

# Seconds until a scheduler that does not answer counts as absent.
CONNECTING = 20
# The models and most programs expect a process of their own; a Dask worker may have many threads.
_one_at_a_time = threading.Lock()


def run(
    address: str, order: Order, tasks: Sequence[Mapping[str, Any]]
) -> Generator[tuple[int, Any], None, None]:
    """Do all tasks on a cluster; yield the index and result of each as it ends.

    Raises NoCluster, TaskLost, and what the function raises. Tasks that have not begun are
    withdrawn when the caller ends earlier.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise NoCluster(f"needs the extra: pip install 'fakesys[cluster]' ({error})") from None
    try:
        client = Client(address, timeout=CONNECTING, set_as_default=False)
    except (OSError, ValueError) as error:
        raise NoCluster(f"no scheduler at {address}: {error}") from None
    with client:
        name = f"fakesys-{uuid.uuid4()}"
        # A task like the others, so that a worker that needs it and lost it gets it again.
        common = client.submit(_common, order, key=f"{name}-order", pure=False)
        futures = {
            client.submit(
                do_alone, common, dict(task), key=f"{name}-{index}", retries=0, pure=False
            ): index
            for index, task in enumerate(tasks)
        }
        try:
            ended = as_completed(
                list(futures), loop=client.loop, with_results=True, raise_errors=False
            )
            for future, result in ended:
                index = futures.pop(future)
                if future.status == "error":
                    raise _reason(index, future.exception())
                yield index, result
                # Its worker need not keep the result any longer.
                del future
        finally:
            client.cancel([common, *futures], force=True)


def _reason(index: int, error: BaseException) -> BaseException:
    from distributed import KilledWorker

    return TaskLost(index) if isinstance(error, KilledWorker) else error


def _common(order: Order) -> Order:
    return order


def do_alone(order: Order, task: Mapping[str, Any]) -> Any:
    """Do a task; no other one at the same time in this process."""
    with _one_at_a_time:
        return do(order, task)
