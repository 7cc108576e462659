"""Seconds until the dashboard answers for a study with many trials: ``python -m
tests.benchmarks.bench_dashboard [trials] [folder]``.

A small study is run and published, and a searched trial is copied, with other ids and values, in
our tables and in Optuna's.  With a folder the database stays there, to be looked at in a browser.
"""

import sys
import tempfile
import time
from pathlib import Path
from wsgiref.types import WSGIApplication

import numpy as np
import sqlalchemy as sa

from s3search.run.launching import launch
from s3search.show.dashboard import Access, application
from s3search.show.dashboard.publish import publish
from tests.benchmarks.bench_report import grow
from tests.show.dashboard.client import ask
from tests.support.studies import study_config

_PATHS = ("/studies", "/studies/t", "/api/studies/1", "/api/studies/1?after=10000")


def grow_trials(url: str, n: int) -> None:
    """Adds ``n`` Optuna trials to the only study of a database."""
    random = np.random.default_rng(0)
    engine = sa.create_engine(url)
    metadata = sa.MetaData()
    metadata.reflect(engine)
    trials = metadata.tables["trials"]
    with engine.begin() as connection:
        last = sa.select(trials).order_by(trials.c.trial_id.desc()).limit(1)
        trial = dict(connection.execute(last).mappings().one())
        ids = [trial["trial_id"] + 1 + i for i in range(n)]
        rows = [
            {**trial, "trial_id": trial_id, "number": trial["number"] + 1 + i}
            for i, trial_id in enumerate(ids)
        ]
        connection.execute(trials.insert(), rows)
        for name in ("trial_values", "trial_params", "trial_user_attributes"):
            table = metadata.tables[name]
            (key,) = table.primary_key.columns.keys()
            own = sa.select(table).where(table.c.trial_id == trial["trial_id"])
            for found in connection.execute(own).mappings().all():
                copies = [{**found, "trial_id": trial_id} for trial_id in ids]
                for copy in copies:
                    del copy[key]
                    if name == "trial_values" and copy["objective"] == 0:
                        copy["value"] *= 1.5 + random.exponential()
                connection.execute(table.insert(), copies)
    engine.dispose()


def _seconds(served: WSGIApplication, path: str) -> str:
    began = time.perf_counter()
    found = ask(served, path)
    seconds = time.perf_counter() - began
    return f"{path}: {found.status}, {seconds:.1f} s, {len(found.body) / 1e6:.1f} MB"


def main(n: int = 10_000, folder: str | None = None) -> None:
    """Prints the seconds of each page, first cold, then warm."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(folder or temporary)
        config = study_config(place)
        launch(config, lambda _: None)
        publish(config.storage.url, "t")
        grow(config.storage.url, n)
        grow_trials(config.storage.url, n)
        with application(config.storage.url, Access()) as served:
            for path in (*_PATHS, *_PATHS):
                print(_seconds(served, path))


if __name__ == "__main__":
    main(*(int(word) if word.isdigit() else word for word in sys.argv[1:]))
