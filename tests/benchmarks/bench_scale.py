"""What many GPUs would give: ``python -m tests.benchmarks.bench_scale [--full]``.

The real driver, search and database with virtual workers (`tests.simulated`): evaluations of 30 s
each, 5 % of them failing, 20 % of the workers preempted an hour.  Printed for each pool: the share
of their loaded time that workers were busy, evaluations a minute, the driver's seconds per
evaluation, and what the database holds in the end against what was proposed.

Without --full: 8 and 64 workers; with it also 1,000, which takes a quarter of an hour.
"""

import argparse
import functools
import tempfile
import time
from collections import Counter
from pathlib import Path

from s3search.evaluation.evaluator import Evaluator
from s3search.launching import launch_on, space_of
from s3search.study.store import open_study
from tests.simulated import SimulatedPool, Weather
from tests.studies import evaluations, study_config

_WEATHER = Weather()


def simulate(n_workers: int, evaluations_each: int, batch_each: int, algorithm: str) -> None:
    """Runs one study on virtual workers and prints its row."""
    n = n_workers * evaluations_each
    with tempfile.TemporaryDirectory() as folder:
        config = study_config(
            Path(folder),
            f"search.algorithm={algorithm}",
            f"search.evaluations={n}",
            f"search.batch={batch_each * n_workers}",
            "search.n_images=1000",
            "search.baselines=false",
            "validation.n_images=1000",
        )
        make_worker = functools.partial(Evaluator, config.evaluator_spec)
        pool = SimulatedPool(make_worker, n_workers=n_workers, weather=_WEATHER, seed=0)
        began = time.perf_counter()
        launch_on(pool, config, space_of(config), lambda _: None)
        real = time.perf_counter() - began
        pool.settle()
        with open_study(config.storage.url, config.study.name) as store:
            proposed = Counter(p.schedule.id for p in store.proposals())
        rows = evaluations(config.storage.url)
        measured = Counter(schedule for rung, schedule, *_ in rows if rung in ("search", "race"))
    twice = sum(count > 1 for count in measured.values())
    lost = len(set(proposed) - set(measured))
    cells = (
        f"{n_workers:7}  {algorithm:9}  {batch_each:10}  {len(measured):11}  {lost:4}  {twice:5}",
        f"{pool.n_preempted:9}  {100 * pool.busy_seconds / pool.up_seconds:6.1f}",
        f"{60 * len(measured) / pool.clock:9.1f}",
        f"{1000 * pool.driver_seconds / len(measured):9.1f}  {real:6.0f}",
    )
    print("  ".join(cells), flush=True)


def main(*, full: bool = False) -> None:
    """Prints the table."""
    print(
        "workers  algorithm  batch each  evaluations  lost  twice  preempted  busy %  "
        "evals/min  driver ms  real s"
    )
    for n_workers in (8, 64, 1000) if full else (8, 64):
        for batch_each in (2, 4):
            simulate(n_workers, 40, batch_each, "evolution")
    for n_workers in (8, 64):
        for batch_each in (2, 8):
            simulate(n_workers, 40, batch_each, "s3")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    main(full=parser.parse_args().full)
