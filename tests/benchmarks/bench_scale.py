"""What many GPUs would give: ``python -m tests.benchmarks.bench_scale [--full] [--processor]
[--storage URL]``.

The real driver, search and database with virtual workers (`tests.support.simulated`): evaluations
of 30 s each, 5 % of them failing, 20 % of the workers preempted an hour. Printed for each pool:
the share of their loaded time that workers were busy, over the whole study and until its last
evaluation was handed out, evaluations a minute, the driver's milliseconds per evaluation, and what
the database holds in the end against what was proposed.

Without --full: 8 and 64 workers; with it 1,000 alone, 60 evaluations each, which takes a quarter
of an hour.  ``--processor`` counts the driver's processor seconds instead of the time that passed:
on a machine that does other things, and in a database in this process (SQLite).
"""

import argparse
import functools
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from s3search.evaluation.evaluator import Evaluator
from s3search.run.launching import launch_on, space_of
from s3search.study.database.store import open_study
from tests.support.simulated import SimulatedPool, Weather
from tests.support.studies import evaluations, study_config

_WEATHER = Weather()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One row of the table."""

    n_workers: int
    each: int  # evaluations
    batch: int  # for each worker
    algorithm: str


_SMALL = (
    *(Pool(n_workers=n, each=40, batch=b, algorithm="evolution") for n in (8, 64) for b in (2, 4)),
    *(Pool(n_workers=n, each=40, batch=b, algorithm="s3") for n in (8, 64) for b in (2, 8)),
)
_FULL = (Pool(n_workers=1000, each=60, batch=4, algorithm="evolution"),)


def simulate(row: Pool, clock: Callable[[], float], storage: str | None) -> None:
    """Runs one study on virtual workers and prints its row."""
    with tempfile.TemporaryDirectory() as folder:
        config = study_config(
            Path(folder),
            f"search.algorithm={row.algorithm}",
            f"search.evaluations={row.n_workers * row.each}",
            f"search.batch={row.batch * row.n_workers}",
            "search.n_images=1000",
            "search.baselines=false",
            "validation.n_images=1000",
            *(() if storage is None else (f"storage.url={storage}",)),
        )
        pool = SimulatedPool(
            functools.partial(Evaluator, config.evaluator_spec),
            n_workers=row.n_workers,
            weather=_WEATHER,
            seed=0,
            driver_clock=clock,
        )
        began = time.perf_counter()
        launch_on(pool, config, space_of(config), lambda _: None)
        real = time.perf_counter() - began
        with open_study(config.storage.url, config.study.name) as store:
            proposed = Counter(each.schedule_id for each in store.proposed())
        rows = evaluations(config.storage.url)
        measured = Counter(schedule for rung, schedule, *_ in rows if rung in ("search", "race"))
    twice = sum(count > 1 for count in measured.values())
    lost = len(set(proposed) - set(measured))
    shares = (100 * pool.busy_share(until) for until in (pool.clock, pool.last_begun))
    cells = (
        f"{row.n_workers:7}  {row.algorithm:9}  {row.batch:10}  {len(measured):11}  {lost:4}",
        f"{twice:5}  {pool.n_preempted:9}  {next(shares):6.1f}  {next(shares):9.1f}",
        f"{60 * len(measured) / pool.clock:9.1f}",
        f"{1000 * pool.driver_seconds / len(measured):9.1f}  {real:6.0f}",
    )
    print("  ".join(cells), flush=True)


def main(*, full: bool = False, processor: bool = False, storage: str | None = None) -> None:
    """Prints the table."""
    print(
        "workers  algorithm  batch each  evaluations  lost  twice  preempted  busy %  until end  "
        "evals/min  driver ms  real s"
    )
    for row in _FULL if full else _SMALL:
        simulate(row, time.process_time if processor else time.perf_counter, storage)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--processor", action="store_true")
    parser.add_argument("--storage", metavar="URL")
    main(**vars(parser.parse_args()))
