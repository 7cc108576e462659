"""Copies and prunes that are killed at random moments: `python -m tests.benchmarks.kill_upkeep N`.

Each kill is a SIGKILL of a process of its own.  Afterwards the study is there whole or not at all,
in our tables and in Optuna's, with its vetoes; and the same command does what is left.
"""

import argparse
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb.models import BaseModel

from s3search.run.launching import launch
from s3search.study import vetoes
from s3search.study.database.store import open_study, study_names
from s3search.study.database.tables import METADATA
from s3search.study.database.upkeep import copy_studies, prune
from tests.support.studies import study_config

Found = dict[str, Any]


def rows_of(url: str) -> Found:
    """How many rows every table has, ours and Optuna's, and the vetoes of each study."""
    tables = [*METADATA.sorted_tables, *BaseModel.metadata.sorted_tables]
    own = [t for t in tables if t.name not in {"version_info", "s3search_schedules"}]
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            there = set(sa.inspect(connection).get_table_names())
            counts = {
                t.name: connection.execute(sa.select(sa.func.count()).select_from(t)).scalar_one()
                for t in own
                if t.name in there
            }
    finally:
        engine.dispose()
    found: Found = {name: n for name, n in counts.items() if n}
    if "s3search_studies" in there:
        for study in study_names(url):
            with open_study(url, study) as store:
                found[f"vetoes of {study}"] = sorted(store.vetoes())
    return found


def forked(work: Callable[[], object]) -> int:
    """Begins the work in a process of its own; its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def killed(work: Callable[[], object], seconds: float) -> None:
    """Does the work in a process of its own, which is killed after so many seconds."""
    child = forked(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def kill_copies_and_prunes(source: str, target: str, name: str, n: int, seed: int) -> Found:
    """Kills ``n`` copies and as many prunes; how often each left what was there before, and what
    was to be there.  Raises `AssertionError` for anything else.
    """
    chance = random.Random(seed)

    def copy() -> None:
        copy_studies(source, target, [name], lambda _: None)

    def remove() -> None:
        prune(target, [name])

    seconds, states = {}, []
    for work in (copy, remove):
        began = time.monotonic()
        work()
        seconds[work], states = time.monotonic() - began, [*states, rows_of(target)]
    whole, absent = states
    assert absent == {}, absent
    done = {"copy": 0, "prune": 0}
    for _ in range(n):
        for what, work, before, after in (
            ("copy", copy, absent, whole),
            ("prune", remove, whole, absent),
        ):
            killed(work, chance.uniform(0.0, 1.2 * seconds[work]))
            found = rows_of(target)
            assert found in (before, after), (what, found, whole)
            done[what] += found == after
            if found == before:
                work()
            assert rows_of(target) == after
    return {"kills": 2 * n, "done before the kill": done}


def main() -> None:
    """Kills as often as asked, on a study of its own or of a database that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, help="copies to kill, and prunes")
    parser.add_argument("--source", help="database with the study; else a small one is made")
    parser.add_argument("--target", help="an empty database; else an SQLite file")
    parser.add_argument("--study", default="t")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        source = asked.source or _made(Path(folder))
        target = asked.target or f"sqlite:///{folder}/target.db"
        found = kill_copies_and_prunes(source, target, asked.study, asked.n, asked.seed)
    print(json.dumps(found))


def _made(folder: Path) -> str:
    config = study_config(folder)
    child = os.fork()  # what loads a model starts threads, and what has threads forks no more
    if child == 0:
        launch(config, lambda _: None)
        vetoes.veto(config.storage.url, "t", "2", "grey")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    return config.storage.url


if __name__ == "__main__":
    main()
