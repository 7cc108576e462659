"""What the two functions of the front door do: a study in this call, its end as a value."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3search.cluster.asking import described, measured_by
from s3search.errors import EvaluationFailed, InvalidConfig, InvalidSchedule
from s3search.evaluation.limits import MOST_IMAGES
from s3search.evaluation.record import statistics_problem
from s3search.run.found import Evaluation, SearchResult
from s3search.run.keywords import SearchKeywords, study_of
from s3search.run.launching import launch, workers
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Rung, measure
from s3search.show.dashboard.publish import publish_launched, samples_meanwhile
from s3search.show.terminal.progress import shown
from s3search.study.database.engine import redacted
from s3search.study.database.store import open_study
from s3search.study.file.config import StorageTable, StudyConfig

EVALUATE = (
    *("schedule", "model", "reference", "features", "metric", "n_images", "seed", "process"),
    *("sample_shape", "statistics", "cluster", "workers"),
)
"""The keywords of `s3search.evaluate`."""


def search_for(asked: SearchKeywords) -> SearchResult:
    """Runs the study that is asked for to its end, or goes on with it; see `s3search.search`."""
    config, live = study_of(asked)
    is_kept = asked.is_study or asked.storage is not None
    with _database(config, is_kept=is_kept) as config, live.borrowed():
        try:
            with shown(asked.progress) as report:
                launch(
                    config,
                    report,
                    takeover=asked.takeover,
                    meanwhile=samples_meanwhile(config) if is_kept else None,
                    afterwards=lambda pool: publish_launched(config, pool) if is_kept else None,
                    live=live,
                )
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(_how_to_go_on(config, is_kept=is_kept)) from stop
        with open_study(config.storage.url, config.study.name) as store:
            return SearchResult.of(store, is_kept=is_kept)


def evaluate_for(
    schedule: Schedule | str | Path, asked: SearchKeywords, *, n_images: int, seed: int
) -> Evaluation:
    """Measures one schedule outside any study; see `s3search.evaluate`."""
    named = schedule if isinstance(schedule, str | Path) else "schedule"
    loaded = schedule if isinstance(schedule, Schedule) else Schedule.load(schedule)
    limits = (("n_images", n_images, 2, MOST_IMAGES), ("seed", seed, 0, 2**63))
    for key, value, least, most in limits:
        if not isinstance(value, int) or not least <= value <= most:
            between = f"from {least} to {most:,}"
            raise InvalidConfig(f"{key}: needs a whole number {between}, found {value!r}")
    config, live = study_of(asked, EVALUATE)
    question = measure(loaded, rung=Rung.USER, n_images=n_images, noise_seed=seed)
    with live.borrowed(), workers(config, live) as pool:
        description = described(pool)
        if not loaded.process.same_levels(description.process):
            raise InvalidSchedule(
                f"{named}: process: this is a schedule for {loaded.process!r}, the model has "
                f"{description.process!r}"
            )
        problem = statistics_problem(loaded, description.ems)
        if problem is not None:
            raise InvalidSchedule(f"{named}: {problem}")
        (measured,) = measured_by(pool, [question])
    if measured.estimate is None:
        raise EvaluationFailed(str(measured.error))
    return Evaluation.of(measured)


@contextmanager
def _database(config: StudyConfig, *, is_kept: bool) -> Iterator[StudyConfig]:
    """The study with its database; one that is not kept is gone afterwards."""
    if is_kept:
        yield config
        return
    with tempfile.TemporaryDirectory(prefix="s3search-", ignore_cleanup_errors=True) as folder:
        storage = StorageTable(url=f"sqlite:///{Path(folder, 'study.db')}")
        yield config.model_copy(update={"storage": storage})


def _how_to_go_on(config: StudyConfig, *, is_kept: bool) -> str:
    if not is_kept:
        return (
            "interrupted; nothing was kept, since there is no storage: give "
            'storage="sqlite:///s3search.db" and a name to go on after an interruption'
        )
    return (
        f"interrupted; what was measured is saved in {redacted(config.storage.url)}: call "
        f"s3search.search again with this storage and name={config.study.name!r} to go on"
    )
