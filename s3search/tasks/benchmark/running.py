"""Runs the studies of a benchmark that are not done; a killed benchmark goes on where it was.

What a launch took is a note in its study: whether it came to its end, its wall seconds, those of
the workers, and those of the driver.  With the one worker in this process the driver's are what
the worker leaves of the wall seconds; with others they are the processor seconds of this process.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from s3search.cluster.asking import Pool
from s3search.errors import InvalidConfig, StudyConflict
from s3search.run.launching import launch_on, space_of, workers
from s3search.study.database.store import StudyStore, open_study, study_names
from s3search.study.file.config import StudyConfig
from s3search.study.results.progress import Progress
from s3search.tasks.benchmark.plan import BenchmarkPlan, BenchmarkRun
from s3search.tasks.benchmark.results import NOTE, Row, is_finished, launches, rows_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One measurement of a benchmark, made now or before."""

    number: int  # from 1
    total: int
    row: Row
    is_new: bool


def run(plan: BenchmarkPlan, report: Callable[[Made], None]) -> None:
    """Makes every measurement of the plan that its folder does not hold; the workers are made
    once, for all.
    """
    wanted = list(plan.measurements())
    configs = [plan.config(each) for each in wanted]  # raises for anything wrong before any work
    pool: Pool | None = None
    with ExitStack() as stack:
        for i, (each, config) in enumerate(zip(wanted, configs, strict=True)):
            space, is_new = space_of(config), not _is_done(each, config)
            if is_new:
                pool = pool or stack.enter_context(workers(config))
                with _noted(each, config), _explained(plan.folder):
                    launch_on(pool, config, space, _quiet)
            report(Made(number=i + 1, total=len(wanted), row=_row(each, config), is_new=is_new))


def _is_done(measurement: BenchmarkRun, config: StudyConfig) -> bool:
    budget = measurement.budget
    with _opened(config) as store:
        if store is None:
            return False
        if any(n["budget"] == budget and is_finished(n, config) for n in launches(store)):
            return True
        n_proposals = len(store.trials())
    if budget is not None and measurement.method.is_resumed and n_proposals > budget:
        raise InvalidConfig(
            f"--budget: {measurement.method.label} has gone on to {n_proposals} evaluations in "
            f"this folder, asked for {budget} now; only larger budgets can be added, with as many "
            "held-out images: use another folder (-o)"
        )
    return False


@contextmanager
def _noted(measurement: BenchmarkRun, config: StudyConfig) -> Iterator[None]:
    """Leaves a note of a launch, however it ends, in the study that it made."""
    before = _worker_seconds(config)
    began, processor = time.monotonic(), time.process_time()
    finished = False
    try:
        yield
        finished = True
    finally:
        wall, own = time.monotonic() - began, time.process_time() - processor
        with _opened(config) as store:
            if store is not None:
                worked = store.seconds_spent() - before
                is_inline = config.cluster.address == "inline"
                content = {
                    "method": measurement.method.label,
                    "budget": measurement.budget,
                    "finished": finished,
                    "held_out_images": config.held_out_images,
                    "wall_seconds": wall,
                    "worker_seconds": worked,
                    "driver_seconds": max(0.0, wall - worked) if is_inline else own,
                }
                store.add_note(NOTE, content)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """A study of the folder that was something else needs another folder here, not a name."""
    try:
        yield
    except StudyConflict as error:
        raise StudyConflict(
            f"{folder} holds another benchmark, or one that is running now ({error}); "
            "use another folder (-o)"
        ) from error


@contextmanager
def _opened(config: StudyConfig) -> Iterator[StudyStore | None]:
    """The study as it is, None before its first launch."""
    url, name = config.storage.url, config.study.name
    if not Path(url.removeprefix("sqlite:///")).exists() or name not in study_names(url):
        yield None
        return
    with open_study(url, name) as store:
        yield store


def _worker_seconds(config: StudyConfig) -> float:
    with _opened(config) as store:
        return 0.0 if store is None else store.seconds_spent()


def _row(measurement: BenchmarkRun, config: StudyConfig) -> Row:
    with open_study(config.storage.url, config.study.name) as store:
        return next(row for row in rows_of(store) if row.budget == measurement.budget)


def _quiet(_: Progress) -> None: ...
