"""From a study file to a finished study: what `launch`, `demo` and `evaluate` share."""

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from s3search.cluster import open_pool
from s3search.cluster.asking import Pool, described
from s3search.errors import InvalidConfig
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.live import LiveObjects
from s3search.evaluation.record import Description
from s3search.evaluation.spec import EvaluatorSpec
from s3search.run.baselines import stock_solvers
from s3search.run.checking import checked
from s3search.run.driver import Driver, Meanwhile, check_unchanged
from s3search.run.forecast import forecast_of, timed
from s3search.run.prepare import Prepared, prepare
from s3search.run.targets import aimed
from s3search.search.space import SpaceConfig, load_space
from s3search.search.trial import Trial
from s3search.study.database.lease import check_free
from s3search.study.database.store import StudyStore, create_or_resume, stored_study
from s3search.study.extensions import extension_of, extension_row
from s3search.study.file.config import StudyConfig
from s3search.study.results.forecast import CostForecast
from s3search.study.results.progress import RUNGS, WARNINGS, Report
from s3search.study.results.watching import spend_of


def launch(
    config: StudyConfig,
    report: Report,
    *,
    takeover: bool = False,
    meanwhile: Meanwhile | None = None,
    afterwards: Callable[[Pool], None] | None = None,
    live: LiveObjects | None = None,
) -> None:
    """Runs the study to its end, creating or resuming it; nothing is written before all input is
    proven good.  ``meanwhile`` has the idle workers between two turns of the search, and
    ``afterwards`` once the study is done; ``live`` are the objects that the study says it
    searches.

    Raises `StudyConflict` if another driver runs it, unless this one is to take it over.
    """
    _check_budget(config)
    space = space_of(config)
    if not takeover:
        check_free(config.storage.url, config.study.name)
    with workers(config, live) as pool:
        launch_on(pool, config, space, report, takeover=takeover, meanwhile=meanwhile)
        if afterwards is not None:
            afterwards(pool)


def launch_on(
    pool: Pool,
    config: StudyConfig,
    space: SpaceConfig,
    report: Report,
    *,
    takeover: bool = False,
    meanwhile: Meanwhile | None = None,
) -> None:
    """Runs the study to its end on workers that have loaded what the study file names."""
    description = described(pool, layers=space.cost is not None)
    space = aimed(config, space, description)
    extension = extension_of(config, space)
    start = prepare(config, space, description, extension)
    found = checked(config, description.process, pool)
    content = {**space.model_dump(mode="json"), "statistics": start.description.statistics}
    row = extension_row(extension) if extension is not None and extension.is_new else None
    with create_or_resume(config, content, takeover=takeover, extension=row) as store:
        if found.warnings:
            store.add_note(WARNINGS, {"messages": list(found.warnings)})
        if found.rungs:
            store.add_note(RUNGS, found.note)
        Driver(store, pool, start, report, meanwhile).run()


def dry_run(config: StudyConfig, live: LiveObjects | None = None) -> CostForecast:
    """What the study would cost: its workers are opened and make a few images, so that the
    forecast has seconds; nothing is written.

    >>> dry_run(load_config("study.toml")).minutes
    """
    _check_budget(config)
    space, live = space_of(config), live or LiveObjects()
    with live.borrowed(), workers(config, live) as pool:
        description = described(pool, layers=space.cost is not None)
        space = aimed(config, space, description)
        start = prepare(config, space, description, extension_of(config, space))
        settled, spent = _as_stored(config, start.description)
        return timed(forecast_of(settled, start, pool, spent=spent), settled, start, pool)


def _check_budget(config: StudyConfig) -> None:
    if config.search.evaluations == 0 and not config.search.seeds:
        raise InvalidConfig(
            "search.evaluations: 0 searches nothing, and the study would be done at once; ask for "
            "1 at least, or name schedules to measure in search.seeds"
        )


def _as_stored(config: StudyConfig, description: Description) -> tuple[StudyConfig, int]:
    """The study with the size that its validation has, and the network calls made so far; raises
    `StudyConflict` where these were made with something else.
    """
    with stored_study(config.storage.url, config.study.name) as store:
        if store is None:
            return config, 0
        check_unchanged(store, description)
        spent = sum(each.network_calls for each in spend_of(store).values())
        return config.settled(store.config), spent


def validate_schedulers(store: StudyStore, pool: Pool, report: Report) -> dict[str, str]:
    """Validates the stock solvers beside the study's own schedules, for all its numbers of calls;
    why some are not among them, by name.

    Raises `StudyConflict` while a driver runs the study.
    """
    store.hold()
    description = described(pool)
    config = store.config
    own, process, many = description.own_sampler, description.process, len(config.space.nfe) > 1
    found: list[Trial] = []
    missing: dict[str, str] = {}
    for nfe in config.space.nfe:
        said = nfe if many else None
        stock, without = stock_solvers(own, process, nfe, said, noise=True)
        found += stock
        missing |= without
    start = Prepared(description=description)
    Driver(store, pool, start, report).validate_also(found)
    return missing


def space_of(config: StudyConfig) -> SpaceConfig:
    """The preset with the study file's changes; raises `InvalidConfig`."""
    table = config.space
    return load_space(table.preset, {**table.options, "nfe": table.nfe})


@contextmanager
def workers(config: StudyConfig, live: LiveObjects | None = None) -> Iterator[Pool]:
    """The pool that the study file asks for, every worker with its evaluator."""
    make_worker = functools.partial(Evaluator, _spec(config, live or LiveObjects()))
    cluster = config.cluster
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with open_pool(
        cluster.address,
        make_worker,
        cluster.workers,
        cluster.gpus_per_worker,
        min_workers=cluster.min_workers,
        task_seconds=cluster.task_seconds,
    ) as pool:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray sets its own, which exits with 15
        yield pool


def _spec(config: StudyConfig, live: LiveObjects) -> EvaluatorSpec:
    """What workers load; in this process a live model stays where it is, unless GPUs are asked
    for.
    """
    spec = replace(config.evaluator_spec, live=live)
    stays = config.cluster.address == "inline" and config.cluster.gpus_per_worker in (0, "auto")
    return replace(spec, device=str(live.device)) if stays and live.device is not None else spec
