"""Options of commands whose work is done by a pool."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from fakesys.pool.pool import Pool

F = TypeVar("F", bound=Callable[..., Any])


def pool_options(command: F) -> F:
    """Add `--jobs` and `--cluster`, and give the command a `pool` in their place.

    A cluster that is not there, and a task that ends every worker, become messages.
    """

    @click.option(
        "-j",
        "--jobs",
        type=click.IntRange(0, 1024),
        help="Processes; 0: all in this one. Default: as many as it may use processors.",
    )
    @click.option(
        "--cluster", metavar="ADDRESS", help="Of a Dask scheduler, such as tcp://host:8786."
    )
    # The modules of a pool are imported when it is used.
    @wraps(command)
    def with_pool(*words: Any, jobs: int | None, cluster: str | None, **options: Any) -> Any:
        from fakesys.pool.work import NoCluster, OtherVersion, TaskLost

        try:
            return command(*words, pool=_pool(jobs, cluster), **options)
        except (NoCluster, OtherVersion, TaskLost) as error:
            raise click.ClickException(str(error)) from None

    return with_pool  # type: ignore[return-value]


def _pool(jobs: int | None, cluster: str | None) -> Pool:
    from fakesys.pool.pool import Pool

    if cluster is not None and jobs is not None:
        raise click.UsageError("--jobs counts for nothing with --cluster")
    return Pool(jobs, cluster)
