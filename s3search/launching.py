"""From a study file to a finished study: what `launch`, `demo` and `evaluate` share."""

import functools
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from s3search.cluster import open_pool
from s3search.driver import Driver, Report, prepare
from s3search.evaluation.evaluator import Evaluator
from s3search.search.space import SearchSpace, load_space
from s3search.study.config import StudyConfig
from s3search.study.store import create_or_resume
from s3search.study_lab import Pool


def launch(config: StudyConfig, report: Report) -> None:
    """Runs the study to its end, creating or resuming it; nothing is written before all input is
    proven good.
    """
    space = space_of(config)
    with workers(config) as pool:
        launch_on(pool, config, space, report)


def launch_on(pool: Pool, config: StudyConfig, space: SearchSpace, report: Report) -> None:
    """The same on workers that are there already and have loaded what the study file names."""
    start = prepare(config, space, pool)
    content = {**space.model_dump(mode="json"), "statistics": start.description.statistics}
    with create_or_resume(config, content) as store:
        Driver(store, pool, start, report).run()


def space_of(config: StudyConfig) -> SearchSpace:
    """The preset with the study file's changes; raises `InvalidConfig`."""
    table = config.space
    return load_space(table.preset, {**table.options, "nfe": table.nfe})


@contextmanager
def workers(config: StudyConfig) -> Iterator[Pool]:
    """The pool that the study file asks for, every worker with its evaluator."""
    make_worker = functools.partial(Evaluator, config.evaluator_spec)
    cluster = config.cluster
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with open_pool(cluster.address, make_worker, cluster.workers, cluster.gpus_per_worker) as pool:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray sets its own, which exits with 15
        yield pool
