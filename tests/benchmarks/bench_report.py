"""Seconds of a report on a study with many trials: ``python -m tests.benchmarks.bench_report
[trials]``.

A small study is run and a searched row is copied, with other ids and values, until there are as
many trials as asked for; the samples are those of the small model.
"""

import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from s3search.run.launching import launch
from s3search.show.report import write_report
from s3search.study.database.tables import EVALUATIONS, PROPOSALS, SCHEDULES
from tests.support.studies import study_config


def grow(url: str, n: int, first: int = 0) -> None:
    """Adds ``n`` trials to the only study of a database, numbered from ``first`` on."""
    random = np.random.default_rng(0)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        searched = sa.select(EVALUATIONS).where(EVALUATIONS.c.rung == "search")
        newest = searched.order_by(EVALUATIONS.c.id.desc()).limit(1)
        row = dict(connection.execute(newest).mappings().one())
        schedules = sa.select(SCHEDULES).where(SCHEDULES.c.id == row["schedule_id"])
        schedule = dict(connection.execute(schedules).mappings().one())
        worst = float(row["value"])
        ids = [f"{i:032x}" for i in range(first, first + n)]
        evaluations = [
            {
                **row,
                "id": 10_000 + i,
                "schedule_id": schedule_id,
                "value": worst * (1.5 + float(random.exponential())),
                "created_at": row["created_at"] + timedelta(milliseconds=i),
            }
            for i, schedule_id in enumerate(ids, first)
        ]
        proposals = [
            {
                "study_id": row["study_id"],
                "number": 10_000 + i,
                "schedule_id": schedule_id,
                "origin": "mutation",
                "parents": "[]",
                "created_at": row["created_at"],
            }
            for i, schedule_id in enumerate(ids, first)
        ]
        connection.execute(SCHEDULES.insert(), [{**schedule, "id": each} for each in ids])
        connection.execute(EVALUATIONS.insert(), evaluations)
        connection.execute(PROPOSALS.insert(), proposals)
    engine.dispose()


def main(n: int = 10_000) -> None:
    """Prints the seconds and the size of the page."""
    with tempfile.TemporaryDirectory() as folder:
        config = study_config(Path(folder))
        launch(config, lambda _: None)
        grow(config.storage.url, n)
        path = Path(folder) / "report.html"
        began = time.perf_counter()
        written = write_report(config.storage.url, "t", path, n_samples=24)
        seconds = time.perf_counter() - began
        print(f"{n} trials: {seconds:.1f} s, {written.n_bytes / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
