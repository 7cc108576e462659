"""A small study of the plug-in model, and everything its database holds of it."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from s3search.run.launching import launch
from s3search.study.database.engine import connect_arguments
from s3search.study.database.store import open_study
from s3search.study.database.tables import EVALUATIONS, PROPOSALS, STUDIES
from s3search.study.file.config import StudyConfig, load_config
from s3search.study.optuna.tables import NUMBER_ATTRIBUTE
from s3search.study.results.export import best_schedule

EVIL_NAME = "<script>alert(1)</script> | $a & [b](javascript:c) 'd'"
STUDY = """\
[study]
name = "t"
[model]
loader = "tests.support.plugins:gaussian"
[space]
nfe = [3]
[metric]
features = "tests.support.plugins:pixels"
[reference]
images = "tests.support.plugins:images"
[search]
algorithm = "evolution"
batch = 4
evaluations = 6
n_images = 30
[validation]
n_images = 60
finalists = 2
[storage]
url = "sqlite:///{folder}/study.db"
[cluster]
address = "inline"
workers = 1
"""


FEWER = "validation.baselines=false"
"""An override where nobody compares what was found with what is published: a dozen measurements
and their drawings fewer.
"""

_FOLDER = TemporaryDirectory(prefix="s3search-studies-")
_SEARCHED: dict[tuple[str, ...], Path] = {}


def study_file(folder: Path) -> Path:
    """A study file in ``folder``, with its database beside it."""
    path = folder / "study.toml"
    path.write_text(STUDY.format(folder=folder))
    return path


def study_config(folder: Path, *overrides: str) -> StudyConfig:
    """The study of `study_file` with overrides as on the command line."""
    return load_config(study_file(folder), overrides)


def searched_study(folder: Path, *overrides: str) -> StudyConfig:
    """A finished study with its database in ``folder``: searched where this process has not done
    so with these overrides, copied where it has.
    """
    config = study_config(folder, *overrides)
    if overrides not in _SEARCHED:
        own = Path(_FOLDER.name) / str(len(_SEARCHED))
        own.mkdir()
        launch(study_config(own, *overrides), lambda _: None)
        _SEARCHED[overrides] = own
    own = _SEARCHED[overrides]
    shutil.copytree(own, folder, ignore=shutil.ignore_patterns("study.toml"), dirs_exist_ok=True)
    return config


def undisturbed(folder: Path, *overrides: str) -> dict[str, Any]:
    """What the study holds when nothing happens to it; its database is in ``folder``."""
    own = folder / "undisturbed"
    own.mkdir()
    return content(searched_study(own, *overrides))


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal but for rounding: a worker process may add numbers up in another order."""
    assert found["proposals"] == expected["proposals"]
    assert found["state"] == expected["state"] == "done"
    assert [row[:5] for row in found["evaluations"]] == [r[:5] for r in expected["evaluations"]]
    for row, other in zip(found["evaluations"], expected["evaluations"], strict=True):
        assert row[5] == pytest.approx(other[5], rel=1e-6)
    assert [t[:2] for t in found["trials"]] == [t[:2] for t in expected["trials"]]
    assert found["best"].keys() == expected["best"].keys()
    for nfe, best in found["best"].items():
        assert best[0] == expected["best"][nfe][0]
        assert best[1:] == pytest.approx(expected["best"][nfe][1:], rel=1e-6)


def content(config: StudyConfig) -> dict[str, Any]:
    """What a study's database says, read with SQL where our own reading could hide a doublet."""
    url, name = config.storage.url, config.study.name
    with open_study(url, name) as store:
        state = store.state
        best = {}
        if state == "done":
            for nfe in config.space.nfe:
                schedule, scored = best_schedule(store, nfe)
                best[nfe] = (schedule.id, scored.value, scored.optimism)
    return {
        "proposals": proposals(url, name),
        "evaluations": evaluations(url),
        "trials": trials(url, name),
        "state": state,
        "best": best,
    }


def proposals(url: str, name: str = "t") -> list[tuple[int, str, str, tuple[str, ...]]]:
    """(number, schedule_id, origin, parents) of every row of a study, sorted."""
    columns = ("number", "schedule_id", "origin", "parents")
    query = (
        sa.select(*(PROPOSALS.c[column] for column in columns))
        .join(STUDIES, STUDIES.c.id == PROPOSALS.c.study_id)
        .where(STUDIES.c.name == name)
        .order_by(PROPOSALS.c.number)
    )
    engine = sa.create_engine(url, **connect_arguments(url))
    try:
        with engine.connect() as connection:
            rows = connection.execute(query)
            return [(*row[:3], tuple(json.loads(row[3]))) for row in rows]
    finally:
        engine.dispose()


def second_times(config: StudyConfig) -> dict[str, float]:
    """The time of the second network call of every schedule of a study, by its id."""
    with open_study(config.storage.url, config.study.name) as store:
        return {trial.schedule.id: trial.schedule.times[1] for trial in store.trials()}


def evaluations(url: str) -> list[tuple[Any, ...]]:
    """(rung, schedule, images, noise seed, state, value) of every row, sorted."""
    columns = ("rung", "schedule_id", "n_images", "noise_seed", "state", "value")
    engine = sa.create_engine(url, **connect_arguments(url))
    try:
        with engine.connect() as connection:
            rows = connection.execute(sa.select(*(EVALUATIONS.c[name] for name in columns)))
            return sorted(tuple(row) for row in rows)
    finally:
        engine.dispose()


def trials(url: str, name: str = "t") -> list[tuple[int, str, list[float] | None]]:
    """(proposal's number, state, values) of every Optuna trial, sorted."""
    storage = optuna.storages.RDBStorage(url, engine_kwargs=connect_arguments(url))
    try:
        found = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
    finally:
        storage.remove_session()
        storage.engine.dispose()
    return sorted((t.user_attrs[NUMBER_ATTRIBUTE], t.state.name, t.values) for t in found)
