"""What a pool adds to a task: ``python tests/benchmarks/bench_pools.py`` (10 ms tasks).

Overhead is (wall time x workers - the tasks' own time) / tasks: the part of a worker slot that a
task costs beyond its work, with the driver's loop (submit while there is room, collect) included.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from s3search.cluster import Task, open_pool

TASK_SECONDS = 0.01


def make_sleeper() -> Callable[[float], float]:
    def sleep(seconds: float) -> float:
        started = time.perf_counter()
        time.sleep(seconds)
        return time.perf_counter() - started

    return sleep


def run(pool: Any, n_tasks: int) -> tuple[float, float]:
    """(wall seconds, seconds inside the tasks)"""
    started, inside, n_sent = time.perf_counter(), 0.0, 0
    while n_sent < n_tasks or pool.n_pending:
        while n_sent < n_tasks and pool.has_room:
            pool.submit(Task(id=f"{started}/{n_sent}", request=TASK_SECONDS))
            n_sent += 1
        inside += sum(outcome.reply for outcome in pool.collect())
    return time.perf_counter() - started, inside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=500)
    n_tasks = parser.parse_args().tasks
    sys.stdout.write("pool      workers  start s  first replies s  overhead ms/task  close s\n")
    for address, n_workers in [("inline", 1), ("local", 1), ("local", 2)]:
        t0 = time.perf_counter()
        pool: Any = open_pool(address, make_sleeper, n_workers, 0)
        t1 = time.perf_counter()
        run(pool, 4 * n_workers)
        t2 = time.perf_counter()
        wall, inside = run(pool, n_tasks)
        overhead = 1000 * (wall * n_workers - inside) / n_tasks
        t3 = time.perf_counter()
        pool.close()
        t4 = time.perf_counter()
        sys.stdout.write(
            f"{address:8}  {n_workers:7}  {t1 - t0:7.2f}  {t2 - t1:15.2f}  {overhead:16.3f}  "
            f"{t4 - t3:7.2f}\n"
        )


if __name__ == "__main__":
    main()
