"""A small study of the plug-in model, and everything its database holds of it."""

from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa

from s3search.study.config import StudyConfig, load_config
from s3search.study.database import connect_arguments
from s3search.study.export import best_schedule
from s3search.study.mirror import NUMBER_ATTRIBUTE
from s3search.study.store import open_study
from s3search.study.tables import EVALUATIONS

STUDY = """\
[study]
name = "t"
[model]
loader = "tests.plugins:gaussian"
[space]
nfe = [3]
[metric]
features = "tests.plugins:pixels"
[reference]
images = "tests.plugins:images"
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


def study_file(folder: Path) -> Path:
    """A study file in ``folder``, with its database beside it."""
    path = folder / "study.toml"
    path.write_text(STUDY.format(folder=folder))
    return path


def study_config(folder: Path, *overrides: str) -> StudyConfig:
    """The study of `study_file` with overrides as on the command line."""
    return load_config(study_file(folder), overrides)


def content(config: StudyConfig) -> dict[str, Any]:
    """What a study's database says, read with SQL where our own reading could hide a doublet."""
    url, name = config.storage.url, config.study.name
    with open_study(url, name) as store:
        proposals = [(p.number, p.schedule.id, p.origin, p.parents) for p in store.proposals()]
        state = store.state
        best = {}
        if state == "done":
            for nfe in config.space.nfe:
                schedule, scored = best_schedule(store, nfe)
                best[nfe] = (schedule.id, scored.value, scored.optimism)
    return {
        "proposals": proposals,
        "evaluations": evaluations(url),
        "trials": trials(url, name),
        "state": state,
        "best": best,
    }


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
        found = optuna.load_study(study_name=name, storage=storage).get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()
    return sorted((t.user_attrs[NUMBER_ATTRIBUTE], t.state.name, t.values) for t in found)
