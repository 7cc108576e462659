"""Databases that go away: what is tried again, for how long, and that nothing is done twice."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError

from s3search.run.launching import launch
from s3search.study.database.retries import is_passing, persist, ridden_out
from s3search.study.results.progress import Progress
from tests.conftest import MortalServer
from tests.support.cut_network import CutNetwork
from tests.support.studies import content, searched_study, study_config


def _ignore(_: Progress) -> None:
    pass


def _refused() -> sa.exc.OperationalError:
    return sa.exc.OperationalError(None, None, Exception("connection refused\nat host"))


class Clock:
    """Time that passes only while someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def _failing(errors: Iterator[Exception]) -> str:
    for error in errors:
        raise error
    return "done"


def test_a_call_is_made_again_until_the_database_answers(caplog: pytest.LogCaptureFixture) -> None:
    clock, errors = Clock(), iter([_refused() for _ in range(5)])
    assert persist(lambda: _failing(errors), sleep=clock.sleep, clock=clock) == "done"
    assert 0.5 * 3.1 <= clock.now <= 3.1  # 0.1 + 0.2 + 0.4 + 0.8 + 1.6, less a share of each
    first, last = (record.getMessage() for record in caplog.records)
    assert (
        first == "the database does not answer (connection refused); trying again for up to 120 s"
    )
    assert last.startswith("the database answers again after")


def test_the_patience_has_an_end() -> None:
    clock, tries = Clock(), []

    def fail() -> None:
        tries.append(clock.now)
        raise _refused()

    with pytest.raises(sa.exc.OperationalError, match="connection refused"):
        persist(fail, patience=60.0, sleep=clock.sleep, clock=clock)
    assert 50.0 < clock.now <= 60.0
    assert len(tries) > 12


def test_a_call_within_a_call_does_not_wait_by_itself() -> None:
    errors = iter([_refused()])
    n_outer = 0

    @ridden_out
    def inner() -> str:
        return _failing(errors)

    @ridden_out
    def outer() -> str:
        nonlocal n_outer
        n_outer += 1
        return inner()

    assert outer() == "done"
    assert n_outer == 2


def _from(cause: Exception) -> StorageInternalError:
    error = StorageInternalError("Optuna's")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_refused(), True),
        (_from(_refused()), True),
        (_from(sa.exc.PendingRollbackError("cut off")), True),
        (sa.exc.InterfaceError(None, None, Exception("connection closed")), True),
        (sa.exc.DBAPIError(None, None, Exception("gone"), connection_invalidated=True), True),
        (sa.exc.IntegrityError(None, None, Exception("twice")), False),
        (sa.exc.ProgrammingError(None, None, Exception("no such table")), False),
        (_from(sa.exc.IntegrityError(None, None, Exception("twice"))), False),
        (sa.exc.OperationalError(None, None, sqlite3.OperationalError("is locked")), True),
        (sa.exc.OperationalError(None, None, sqlite3.OperationalError("disk is full")), False),
        (ValueError("ours"), False),
    ],
)
def test_only_the_databases_own_absence_is_waited_for(error: Exception, expected: bool) -> None:
    assert is_passing(error) is expected


def test_a_search_whose_commits_lose_their_answers_counts_nothing_twice(
    mortal_server: MortalServer, tmp_path: Path
) -> None:
    (tmp_path / "undisturbed").mkdir()
    calm = searched_study(tmp_path / "undisturbed")
    with CutNetwork(mortal_server.socket, cut_every=3) as network:
        url = f"postgresql+psycopg://postgres@127.0.0.1:{network.port}/postgres"
        config = study_config(tmp_path, f"storage.url='{url}'")
        launch(config, lambda _: network.begin_to_cut())
        n_cuts = network.n_cuts
        direct = study_config(tmp_path, f"storage.url='{mortal_server.url}'")
        assert content(direct) == content(calm)
    assert n_cuts > 10
