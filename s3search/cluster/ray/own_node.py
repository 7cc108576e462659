"""The processes of a private Ray, which this process has started: the end of one is seen here.

Without its raylet Ray's calls go on for a while, then wait for ever: workers that live on answer,
and none is started again.
"""

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray

from s3search.errors import WorkersUnavailable

LOOK_SECONDS = 2.0  # between two looks, at most
_NEEDED = ("raylet", "gcs_server")  # without the others, which show and log, it goes on


def check_own_node(workers: Iterable[str]) -> None:
    """Raises `WorkersUnavailable` where a process that a private Ray cannot do without has ended,
    and ends its ``workers`` ("host/pid"), which nobody else does soon; nothing for a Ray that this
    process did not start.
    """
    node: Any = ray._private.worker._global_node
    dead = [] if node is None else node.dead_processes()
    ended = {name: process for name, process in dead if name in _NEEDED}
    if not ended:
        return
    _end(workers)
    name, process = next(iter(ended.items()))
    code = process.poll()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    raise WorkersUnavailable(
        f"the {name} of the private Ray (process {process.pid}) {how}; look for an out-of-memory "
        "kill (dmesg), and ask for fewer workers if that is it. What was measured is kept: run "
        "the same command to resume"
    )


def _end(workers: Iterable[str]) -> None:
    for worker in workers:
        pid = worker.rpartition("/")[2]
        with contextlib.suppress(OSError):  # it has ended
            if pid.isdecimal() and b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)
