"""Pictures and files of the validated schedules, as artifacts of their trials.

Optuna writes the list of a trial's artifacts only while the trial runs; who is validated is known
when all trials are finished.  Optuna dashboard also reads lists that hang on the study, keyed by
trial, and there ours go.  An artifact's id follows from study, schedule and kind, so that
publishing again replaces it, and files that are there are not drawn again.
"""

import base64
import io
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import optuna
from PIL import Image
from torch import Tensor

from s3search.cluster.asking import Pool, images_by
from s3search.errors import EvaluationFailed, InvalidConfig, S3SearchError, StudyConflict
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.record import ImagesRequest
from s3search.files import write_bytes, write_text
from s3search.schedules.schedule import Schedule
from s3search.show.dashboard.storage import open_storage
from s3search.show.pictures import draw_schedule, no_pictures
from s3search.show.report.samples import image_grid
from s3search.study.database.engine import parsed_url
from s3search.study.file.config import StudyConfig
from s3search.study.optuna.storage import closed_after

_NAMESPACE = uuid.UUID("5f0a3c64-0f53-4d5c-9a53-8e1f6a3f7d21")
_KEY = "dashboard:artifacts:{trial}:{artifact}"  # as optuna-dashboard 0.21 looks for it
_LISTED = re.compile(r"dashboard:artifacts:(\d+):")
_NARROW = 320  # pixels; a narrower grid is shown in larger squares
_OURS = re.compile(r"(schedule|samples)-[0-9a-f]{8}\.\w+")


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture."""

    content: bytes
    mimetype: str  # image/...


class ArtifactFolder:
    """Optuna's artifact store on a folder; what is not there is a plain 404 in the dashboard."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The file of this id."""
        try:
            return (self._folder / artifact_id).open("rb")
        except OSError as error:
            import bottle  # type: ignore[import-untyped]  # noqa: PLC0415  # the dashboard's own

            raise bottle.HTTPError(404, "This file is not in the folder of artifacts.") from error

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Keeps a file that somebody uploads to the dashboard."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self._folder / artifact_id, content_body.read())

    def remove(self, artifact_id: str) -> None:
        """Deletes the file, if it is there."""
        (self._folder / artifact_id).unlink(missing_ok=True)


def artifacts_folder(url: str, named: str | Path | None = None) -> Path | None:
    """Where a database's artifacts lie: the folder that was named, else beside an SQLite file,
    else nowhere.
    """
    if named is not None:
        return Path(named)
    parsed = parsed_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, ":memory:")
    return Path(f"{parsed.database}.artifacts") if is_file else None


def attach(
    study: optuna.Study,
    schedules: Sequence[Schedule],
    samples: Mapping[str, Picture],
    folder: Path,
) -> int:
    """Writes drawing, JSON and samples (by schedule id, else those that are there) of these
    schedules and lists them at their trials; how many artifacts these are.

    Raises `InvalidConfig` for a folder that cannot be written.
    """
    trials = _trials_of(study)
    listed = study._storage.get_study_system_attrs(study._study_id)
    n = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for schedule in schedules:
            if schedule.id not in trials:
                continue
            there = samples_of(folder, [study.study_name], schedule)
            shown = samples.get(schedule.id) or next(iter(there), None)
            for name, mimetype, write in _files(schedule, shown):
                artifact = _artifact_id(study.study_name, schedule.id, name)
                write(folder / artifact)
                key = _KEY.format(trial=trials[schedule.id], artifact=artifact)
                meta = _meta(artifact, name, mimetype)
                if listed.get(key) != meta:
                    study._storage.set_study_system_attr(study._study_id, key, meta)
                n += 1
        _unlist_misplaced(study, listed)
    except OSError as error:
        raise InvalidConfig(
            f"artifacts: cannot write into {folder} ({error.strerror}); name another folder"
        ) from error
    return n


def grids_made_here(
    config: StudyConfig, schedules: Sequence[Schedule], n_images: int
) -> dict[str, Picture]:
    """By schedule id, images from the same held-out noise, nothing where they have no picture;
    loads the study's model here.
    """
    if n_images == 0:
        return {}
    seed = config.validation_noise_seed
    try:
        evaluator = Evaluator(replace(config.evaluator_spec, second=None))
        if no_pictures(evaluator.image_shape) is not None:
            return {}
        return {
            schedule.id: _picture(schedule, evaluator.images(schedule, n_images, seed))
            for schedule in schedules
        }
    except S3SearchError:
        raise
    except Exception as error:  # the study's own code may raise anything
        kind = type(error).__name__
        raise EvaluationFailed(
            f"samples: the study's model failed with {kind}: {error}; without --samples the rest "
            "is published"
        ) from error


def grids_of_workers(
    pool: Pool, config: StudyConfig, schedules: Sequence[Schedule], n_images: int
) -> dict[str, Picture]:
    """By schedule id, images from the same held-out noise, made by a pool's workers; a schedule
    that fails has none, nor has what has no picture.
    """
    seed = config.validation_noise_seed
    requests = [
        ImagesRequest(schedule=schedule, n_images=n_images, noise_seed=seed)
        for schedule in schedules
    ]
    return {
        schedule.id: _picture(schedule, images)
        for schedule, images in images_by(pool, requests)
        if isinstance(images, Tensor) and no_pictures(images.shape[1:]) is None
    }


def carry_files(url: str, target: str, study_name: str) -> int:
    """Copies the files of a study's artifacts to the folder of the database that it is copied to;
    how many.  None where a database has no folder of its own: then the folder is shared or moved
    by hand.

    Raises `InvalidConfig` for a folder that cannot be written.
    """
    here, there = artifacts_folder(url), artifacts_folder(target)
    if here is None or there is None or not here.is_dir():
        return 0
    try:
        with closed_after(open_storage(url, writable=False)) as storage:
            study_id = storage.get_study_id_from_name(study_name)
            listed = storage.get_study_system_attrs(study_id)
    except (KeyError, StudyConflict):  # killed before it had a trial
        return 0
    ids = [key.rpartition(":")[2] for key in listed if _LISTED.match(key)]
    known = [artifact for artifact in ids if (here / artifact).is_file()]
    try:
        there.mkdir(parents=True, exist_ok=True)
        for artifact in known:
            write_bytes(there / artifact, (here / artifact).read_bytes())
    except OSError as error:
        raise InvalidConfig(
            f"artifacts: cannot copy from {here} to {there} ({error.strerror})"
        ) from error
    return len(known)


def keep_samples(folder: Path, study: str, schedule: Schedule, samples: Picture) -> Path:
    """Writes a grid of samples where `samples_of` finds it; the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _artifact_id(study, schedule.id, _samples_name(schedule, samples.mimetype))
    write_bytes(path, samples.content)
    return path


def samples_of(folder: Path | None, studies: Iterable[str], schedule: Schedule) -> list[Picture]:
    """The grids of samples that studies keep of a schedule."""
    if folder is None:
        return []
    found = []
    for study in studies:
        for mimetype in ("image/png", "image/jpeg"):
            path = folder / _artifact_id(study, schedule.id, _samples_name(schedule, mimetype))
            if path.is_file():
                found.append(Picture(path.read_bytes(), mimetype))
    return found


def _picture(schedule: Schedule, images: Tensor) -> Picture:
    made = image_grid(schedule.id[:8], images)
    mimetype, _, encoded = made.source.removeprefix("data:").partition(";base64,")
    content = base64.b64decode(encoded)
    if made.is_pixelated and made.width < _NARROW:  # a card of the dashboard would blur it
        times = -(-_NARROW // made.width)
        with Image.open(io.BytesIO(content)) as small:
            size = (times * made.width, times * made.height)
            buffer = io.BytesIO()
            small.resize(size, Image.Resampling.NEAREST).save(buffer, "PNG", optimize=True)
        content = buffer.getvalue()
    return Picture(content, mimetype)


def _artifact_id(study: str, schedule_id: str, name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{study}/{schedule_id}/{name}"))


def _samples_name(schedule: Schedule, mimetype: str) -> str:
    return f"samples-{schedule.id[:8]}.{mimetype.rpartition('/')[2]}"


def _files(
    schedule: Schedule, samples: Picture | None
) -> Iterator[tuple[str, str, Callable[[Path], None]]]:
    """(name, media type, what writes it) of what a schedule gets."""
    short, text = schedule.id[:8], json.dumps(schedule.to_dict(), indent=1)
    yield f"schedule-{short}.png", "image/png", lambda path: _draw_once(schedule, path)
    yield f"schedule-{short}.json", "application/json", lambda path: write_text(path, text)
    if samples is not None:
        name = _samples_name(schedule, samples.mimetype)
        yield name, samples.mimetype, lambda path: write_bytes(path, samples.content)


def _draw_once(schedule: Schedule, path: Path) -> None:
    """The drawing depends on the schedule alone."""
    if not path.is_file():
        draw_schedule(schedule, path)


def _trials_of(study: optuna.Study) -> dict[str, int]:
    """Optuna's id of the first trial of each schedule."""
    trials: dict[str, int] = {}
    for trial in study.get_trials(deepcopy=False):
        trials.setdefault(trial.user_attrs.get("schedule_id", ""), trial._trial_id)
    return trials


def _unlist_misplaced(study: optuna.Study, listed: Mapping[str, str]) -> None:
    """Forgets artifacts of ours at trials of other schedules: a copied study has new trial ids
    and the old lists.
    """
    schedules = {t._trial_id: t.user_attrs.get("schedule_id") for t in study.get_trials(False)}
    for key, text in listed.items():
        trial = _LISTED.match(key)
        meta = json.loads(text) if trial is not None else None
        if trial is None or meta is None or not _OURS.fullmatch(meta["filename"]):
            continue
        schedule_id = schedules.get(int(trial[1])) or ""
        own = _artifact_id(study.study_name, schedule_id, meta["filename"])
        if meta["artifact_id"] != own:
            study._storage.set_study_system_attr(study._study_id, key, json.dumps(None))


def _meta(artifact: str, name: str, mimetype: str) -> str:
    meta = {"artifact_id": artifact, "filename": name, "mimetype": mimetype, "encoding": None}
    return json.dumps(meta)
