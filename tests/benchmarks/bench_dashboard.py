"""Seconds until the dashboard answers for a study with many trials: ``python -m
tests.benchmarks.bench_dashboard [trials] [folder]``.

A small study is run and published, and a searched trial is copied, with other ids and values, in
our tables and in Optuna's.  Then it is set back to searching: the first look at its page, and how
long after a result the page, which asks every two seconds, shows it.  With a folder the database
stays there, to be looked at in a browser.
"""

import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from wsgiref.types import WSGIApplication

import numpy as np
import sqlalchemy as sa

from s3search.run.launching import launch
from s3search.show.dashboard import Access, application
from s3search.show.dashboard.publish import publish
from s3search.study.database.tables import EVALUATIONS, STUDIES
from tests.benchmarks.bench_report import grow
from tests.show.dashboard.client import ask
from tests.support.studies import study_config

_POLL = 2.0  # seconds, as the page's script waits
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


def _seconds_until_shown(served: WSGIApplication, url: str) -> float:
    """From a result that is the best so far until the page's script has it, asking just before."""
    ask(served, "/live/t")
    engine = sa.create_engine(url)
    began = time.perf_counter()
    with engine.begin() as connection:
        first = sa.select(sa.func.min(EVALUATIONS.c.value)).scalar_subquery()
        newest = sa.select(sa.func.max(EVALUATIONS.c.id)).scalar_subquery()
        change = EVALUATIONS.update().where(EVALUATIONS.c.id == newest)
        connection.execute(change.values(value=first / 2))
        connection.execute(STUDIES.update().values(updated_at=datetime.now(UTC)))
        (best,) = connection.execute(sa.select(first)).scalars()
    engine.dispose()
    while f"{best:.4g}" not in ask(served, "/live/t").json["parts"]["best"]["html"]:
        time.sleep(_POLL)
    return time.perf_counter() - began


def _live(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(STUDIES.update().values(state="searching"))
    engine.dispose()
    with application(url, Access()) as served:
        print("searching:", _seconds(served, "/studies/t"))
        print("searching:", _seconds(served, "/live/t"))
        shown = [_seconds_until_shown(served, url) for _ in range(5)]
        print("from a result to the page:", ", ".join(f"{each:.1f}" for each in shown), "s")


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
        _live(config.storage.url)


if __name__ == "__main__":
    main(*(int(word) if word.isdigit() else word for word in sys.argv[1:]))
