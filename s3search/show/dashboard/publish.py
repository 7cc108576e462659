"""Makes a finished study worth looking at in Optuna dashboard: note, graphs, artifacts.

All of it hangs on the Optuna study, where the dashboard looks for it; what is published again
replaces what was there.  It is written in one transaction, after the files of the artifacts: a
kill leaves what was there, or all of it.
"""

import contextlib
import importlib.util
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from s3search.cluster.asking import Pool
from s3search.errors import InvalidConfig, S3SearchError, StudyConflict
from s3search.schedules.schedule import Schedule
from s3search.show.dashboard.artifacts import (
    Picture,
    artifacts_folder,
    attach,
    grids_made_here,
    grids_of_workers,
    keep_samples,
    samples_of,
)
from s3search.show.dashboard.cards import cards_of
from s3search.show.dashboard.choices import choices_of
from s3search.show.dashboard.note import merged, note_text
from s3search.show.dashboard.storage import open_storage
from s3search.show.report.data import collect
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig
from s3search.study.optuna.marks import write_marks
from s3search.study.optuna.storage import closed_after
from s3search.study.results.exported import remarks_of
from s3search.study.results.frame import evaluations_frame, validated

SAMPLES = 12
"""Images of each validated schedule that a launch has its workers make."""

_FIRST_AFTER = 3.0  # seconds: a search that is through by then has its samples at the end
_PAUSE = 50  # times as long as making samples took, so that they take 2 % of the time at most

_Grids = Callable[[StudyConfig, Sequence[Schedule]], dict[str, Picture]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a study now shows."""

    study: str
    cards: tuple[str, ...]  # their ids
    artifacts: int
    folder: Path | None  # of the artifacts; None where there is none


def publish(
    url: str, name: str, *, artifacts: str | Path | None = None, n_samples: int = 0
) -> Published:
    """Writes note and cards of a study that has validated schedules, and the artifacts of these
    schedules into the folder named or the database's own (`artifacts_folder`).

    Samples load the study's model in this process.

    Raises `StudyConflict` for a study that is not there or has none yet, and `InvalidConfig`
    without optuna-dashboard.
    """
    if not _is_installed():
        raise InvalidConfig(
            "what the dashboard shows is written with optuna-dashboard; "
            "pip install 'optuna-dashboard==0.21.*'"
        )
    folder = artifacts_folder(url, artifacts)
    return _publish(
        url, name, folder, lambda config, them: grids_made_here(config, them, n_samples)
    )


def publish_launched(config: StudyConfig, pool: Pool) -> None:
    """Publishes a study at the end of its launch, whose workers make the samples that are missing.

    The launch succeeded whatever happens here: nothing is published without optuna-dashboard or
    without a validated schedule, and a failure is a warning.
    """
    if not _is_installed():
        return
    url, name = config.storage.url, config.study.name
    folder = artifacts_folder(url, config.storage.artifacts)

    def grids(config: StudyConfig, schedules: Sequence[Schedule]) -> dict[str, Picture]:
        missing = [each for each in schedules if not samples_of(folder, [name], each)]
        try:
            return grids_of_workers(pool, config, missing, SAMPLES)
        except S3SearchError as error:
            _warn(f"samples of its schedules: {error}")
            return {}

    try:
        _publish(url, name, folder, grids)
    except StudyConflict:
        return
    except (S3SearchError, OSError) as error:
        _warn(f"all of it: {error}")


def samples_meanwhile(
    config: StudyConfig, *, first_after: float = _FIRST_AFTER
) -> Callable[[Pool, Sequence[Schedule]], None]:
    """What has idle workers make samples of the best schedules so far, now and then, for the
    study's page; without them the search goes on.
    """
    url, name = config.storage.url, config.study.name
    folder = artifacts_folder(url, config.storage.artifacts)
    due = time.monotonic() + first_after
    made: dict[str, Path] = {}  # of the best so far, by schedule id

    def make(pool: Pool, schedules: Sequence[Schedule]) -> None:
        nonlocal due
        began = time.monotonic()
        if folder is None or began < due:
            return
        missing = [each for each in schedules if not samples_of(folder, [name], each)]
        with contextlib.suppress(OSError):
            grids = grids_of_workers(pool, config, missing, SAMPLES)
            for each in missing:
                if each.id in grids:
                    made[each.id] = keep_samples(folder, name, each, grids[each.id])
            for schedule_id in made.keys() - {each.id for each in schedules}:
                made.pop(schedule_id).unlink(missing_ok=True)
        now = time.monotonic()
        due = now + _PAUSE * (now - began)

    return make


def _publish(url: str, name: str, folder: Path | None, grids: _Grids) -> Published:
    with open_study(url, name) as store:
        frame = evaluations_frame(store)
        collected = collect(store, frame)
        choices = [choices_of(store, frame, nfe) for nfe in collected.best]
        scored = [] if folder is None else validated(frame, store.config)
        schedules = [store.schedule(each.schedule_id) for each in scored]
        config = store.config
        marks = remarks_of(store, frame)
        store.mirror.flush()
    samples = grids(config, schedules) if schedules else {}
    cards = cards_of(collected, [each for each in choices if each is not None])
    with closed_after(open_storage(url, writable=True)) as storage:
        study = optuna.load_study(study_name=name, storage=storage)
        with storage.at_once(lambda connection: write_marks(connection, name, marks)):
            n = 0 if folder is None else attach(study, schedules, samples, folder)
            _write(study, note_text(collected), cards)
    return Published(study=name, cards=tuple(cards), artifacts=n, folder=folder)


def _warn(what: str) -> None:
    warnings.warn(
        f"the study is complete, but the dashboard does not show {what}; "
        "`s3search publish` does, with `--samples` these too",
        stacklevel=3,
    )


def _is_installed() -> bool:
    return importlib.util.find_spec("optuna_dashboard") is not None


def _write(study: optuna.Study, text: str, cards: dict[str, object]) -> None:
    import optuna_dashboard as shown  # type: ignore[import-untyped]  # noqa: PLC0415  # an extra

    shown.save_note(study, merged(text, shown.get_note(study)))
    for name, figure in cards.items():
        shown.save_plotly_graph_object(study, figure, graph_object_id=name)
