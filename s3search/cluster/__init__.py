"""Where evaluations run: a pool of workers behind one interface, opened by its address."""

import re
from collections.abc import Callable

from s3search.cluster.pool import (
    InlinePool,
    Outcome,
    Reply,
    Request,
    Task,
    WorkerPool,
)
from s3search.cluster.sizes import AskedSizes, Auto
from s3search.errors import Failure, InvalidConfig

__all__ = ["Failure", "InlinePool", "Outcome", "Task", "WorkerPool", "check_address", "open_pool"]

_HOST_AND_PORT = re.compile(r"(ray://)?([\w.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}")


def check_address(address: str) -> str:
    """The address itself, if it is of a kind that ``open_pool`` knows; no network is touched."""
    if address in ("inline", "local", "auto") or _HOST_AND_PORT.fullmatch(address):
        return address
    raise InvalidConfig(
        f"{address=} is no place to run workers; use 'inline' (this process), 'local' (a private "
        "Ray on this machine), 'auto' (the running cluster of this machine or $RAY_ADDRESS), "
        "'ray://host:10001' (Ray client) or 'host:6379' (a cluster this machine is part of)"
    )


def open_pool(
    address: str,
    make_worker: Callable[[], Callable[[Request], Reply]],
    n_workers: int | Auto,
    gpus_per_worker: float | Auto,
    *,
    min_workers: int | None = None,
    threads_per_worker: int | None = None,
    task_seconds: float | None = None,
) -> WorkerPool[Request, Reply]:
    """The pool that an address names; "inline" has one worker, whatever the sizes say, and "auto"
    is settled by what the cluster has.

    It opens when ``min_workers`` fit (None: all); the others join when there is a place for them.
    A task that runs for more than ``task_seconds`` (None: any time) costs its worker process.
    """
    sizes = AskedSizes(
        n_workers=n_workers, gpus_per_worker=gpus_per_worker, min_workers=min_workers
    )
    if check_address(address) == "inline":
        return InlinePool(make_worker)
    from s3search.cluster.ray.pool import RayPool  # noqa: PLC0415  Ray takes a second

    return RayPool(
        make_worker,
        address=address,
        asked=sizes,
        threads_per_worker=threads_per_worker,
        task_seconds=task_seconds,
    )
