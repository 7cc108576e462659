"""Reaching a Ray cluster, and counting what it has.

- An actor that fits nowhere stays pending for ever without an exception: count before asking.
- ``ray.init`` on a dead address hangs for 30 s (client) or minutes (GCS), on the port of something
  else for a quarter of an hour: `s3search.cluster.ray.reaching` asks first.
- The server of Ray clients forks a process for each, which was dead at once in 1 of 9 connections
  (noticed after 50 s as ConnectionAbortedError): ask again, once.
- "auto" in Ray joins *any* Ray process of this machine, a private one of another user's program
  too, and caches what it found: resolve the address here.
- A driver that joined a cluster as "host:port" is *ended* by Ray (exit status 1, no exception)
  60 s after the head is gone; what must survive has to be in the database by then.
- Ray prints a worker's death on stdout, whatever ``log_to_driver`` says.
- A private Ray listens on every interface, whatever ``_node_ip_address`` says (2.60, asked with
  127.0.0.1: every port of gcs_server, raylet and workers); its token authentication (on by
  default) is what protects it, and that is said.
"""

import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from s3search.cluster.ray.reaching import cause_of, first_sentence, prove
from s3search.cluster.sizes import AskedSizes, Place, Sizes, n_gpus
from s3search.errors import WorkersUnavailable

_RESOURCES_SECONDS = 10.0  # for nodes to join and for a closed pool's actors to go
_OBJECT_STORE_BYTES = 256 * 2**20

_log = logging.getLogger(__name__)


def cores_of_process() -> int:
    """Cores this process may use; a container or SLURM job often has fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def connect(address: str, n_workers: int, *, store_bytes: int = 0) -> bool:
    """Connect this process to Ray; whether it was not yet, so that it is ours to disconnect.

    A private Ray gets room for ``store_bytes`` in its object store, beside what it always has.
    """
    if address in ("local", "auto") and ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # for the user to switch on, not us
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {
            "include_dashboard": False,
            "num_cpus": max(n_workers, cores_of_process()),
            "object_store_memory": _OBJECT_STORE_BYTES + store_bytes,
        }
    else:
        address = _running_cluster() if address == "auto" else address
        prove(address)
    try:
        _init(address, options)
    except Exception as error:  # of Ray's own kinds and of Python's, plain `Exception` too
        raise WorkersUnavailable(cause_of(address, error)) from error
    if address == "local":
        _say_who_gets_in()
    ray._private.worker._worker_logs_enabled = False  # a death would be told on our stdout
    return True


def _init(address: str, options: dict[str, Any]) -> None:
    try:
        ray.init(address=address, **options)
    except ConnectionAbortedError:
        if not address.startswith("ray://"):
            raise
        ray.init(address=address, **options)


def _running_cluster() -> str:
    """The address that "auto" stands for: $RAY_ADDRESS, else what ``ray start`` left here."""
    temporary = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    written = Path(temporary, "ray", "ray_current_cluster")
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "auto", "local"):
        address = written.read_text().strip() if written.exists() else ""
    if not address:
        raise WorkersUnavailable(
            "address='auto': no Ray cluster runs on this machine ($RAY_ADDRESS is not set and "
            f"`ray start` left no {written}); run `ray start --head`, give 'host:6379' or "
            "'ray://host:10001', or use 'local'"
        )
    return address


def _say_who_gets_in() -> None:
    has_token = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"  # which Ray sets itself
    who = (
        "who has its token ($RAY_AUTH_TOKEN or ~/.ray/auth_token)"
        if has_token
        else "everybody who reaches this machine, and runs what they like as you: unset "
        "RAY_AUTH_MODE, or keep its ports behind a firewall"
    )
    _log.warning(
        "Ray was started on this machine; its ports listen on all interfaces and let in %s", who
    )


def resources() -> list[dict[str, float]]:
    """What each living node has, by Ray's names."""
    known = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's
    return [node["Resources"] for node in known if node["Alive"]]


def settled(asked: AskedSizes) -> tuple[Sizes, Place]:
    """The sizes that are asked for, here, and what is there for them; raises `WorkersUnavailable`
    unless ``min_workers`` fit now.
    """
    nodes = resources()
    sizes = asked.on(nodes)
    check_resources(sizes)
    gpus = sizes.gpus_per_worker
    place = Place(n_workers=sizes.n_workers, gpus_per_worker=gpus, n_gpus=n_gpus(nodes))
    return sizes, place


def check_resources(sizes: Sizes) -> None:
    """Raise unless ``min_workers`` fit now: Ray would let an actor that does not wait for ever."""
    least, n_cpus, n_gpus = sizes.min_workers, sizes.n_cpus, sizes.gpus_per_worker
    deadline = time.monotonic() + _RESOURCES_SECONDS
    while True:
        nodes = resources()
        room = sum(sizes.room(node) for node in nodes)
        unit, each = ("GPU", n_gpus) if n_gpus else ("CPU", n_cpus)
        idle = ray.available_resources()  # type: ignore[no-untyped-call]  # Ray's
        free = idle.get(unit, 0.0)
        if room >= least and free >= least * each - 1e-6:
            return
        if time.monotonic() > deadline or (room < least and len(nodes) == 1):
            break
        time.sleep(0.25)
    total = sum(node.get(unit, 0.0) for node in nodes)
    asked = f"{least} workers with {each:g} {unit} each"
    if least < sizes.n_workers:
        asked += f" to begin with (min_workers, of {sizes.n_workers})"
    raise WorkersUnavailable(
        f"asked for {asked}; the Ray cluster has {total:g} {unit}s on {len(nodes)} nodes, "
        f"{free:g} of them free, with room for {room} such workers in all; ask for fewer workers, "
        "begin with fewer (min_workers) where nodes are still to join, set gpus_per_worker "
        "(0 runs on CPUs, 0.5 shares a GPU), or start more nodes"
    )


def living_nodes() -> set[str]:
    """Ids of the nodes that Ray believes to be alive; it notices a death after 14 s."""
    try:
        known = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise lost_connection(error) from error
    return {node["NodeID"] for node in known if node["Alive"]}


def lost_connection(error: Exception) -> WorkersUnavailable:
    """What to raise when the driver cannot speak to its cluster any more."""
    return WorkersUnavailable(
        f"the connection to the Ray cluster was lost ({first_sentence(error)}); when the cluster "
        "is back, run the same command to resume"
    )
