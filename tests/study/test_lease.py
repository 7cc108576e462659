"""One driver per study, on SQLite and PostgreSQL: who is refused, who takes over, who stops."""

import math
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from s3search.errors import LeaseLost, StudyConflict
from s3search.processes import edm
from s3search.run.launching import launch
from s3search.schedules.published import ddim
from s3search.search.questions import Measure, Measurement, Rung
from s3search.search.trial import Trial, searched
from s3search.study.database import engine, lease
from s3search.study.database.engine import connect_arguments
from s3search.study.database.lease import EXPIRED_SECONDS, check_free
from s3search.study.database.owners import is_gone, new_owner
from s3search.study.database.store import StudyStore, create_or_resume, open_study, study_names
from s3search.study.database.tables import LEASES, NOTES
from s3search.study.database.upkeep import prune
from s3search.study.results.progress import Progress
from tests.study import first_launches
from tests.study.drivers import hold, pause_within
from tests.support.forked import Forked
from tests.support.studies import study_config, trials


def _ignore(_: Progress) -> None:
    pass


def _rows(url: str, table: sa.Table) -> list[dict[str, Any]]:
    own = sa.create_engine(url, **connect_arguments(url))
    with own.connect() as connection:
        rows = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
    own.dispose()
    return rows


def _change_lease(url: str, **values: Any) -> None:
    own = sa.create_engine(url, **connect_arguments(url))
    with own.begin() as connection:
        assert connection.execute(LEASES.update().values(**values)).rowcount == 1
    own.dispose()


def _measured() -> tuple[int, Trial, Measurement]:
    trial = Trial.of(ddim(edm(), nfe=3), searched("mutation"), number=0)
    question = Measure(trial=trial, rung=Rung.SEARCH, n_images=30, noise_seed=1)
    return 0, trial, Measurement(question=question, error="no", seconds=0.1, worker="here/1")


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[StudyStore]:
    """A study that this process drives."""
    config = study_config(tmp_path, f"storage.url='{url}'")
    with suppress(LeaseLost), create_or_resume(config, {}) as opened:
        yield opened


def _second(store: StudyStore, *, takeover: bool = False) -> StudyStore:
    second = open_study(store.config.storage.url, "t")
    try:
        second.hold(takeover=takeover)
    except BaseException:
        second.close()
        raise
    return second


def test_a_second_driver_is_told_who_runs_the_study_and_what_would_do(store: StudyStore) -> None:
    expected = (
        rf"study 't' in .* is being run by another driver \(host .*, process {os.getpid()}, "
        r"since 20..-..-.. ..:..:.. UTC, last renewed \d+ s ago\).*--takeover"
    )
    with pytest.raises(StudyConflict, match=expected):
        _second(store)
    with pytest.raises(StudyConflict, match=expected):
        check_free(store.config.storage.url, "t")
    store.add_note("still", {"driving": True})


def test_a_refused_driver_changes_nothing(url: str, store: StudyStore, tmp_path: Path) -> None:
    larger = study_config(tmp_path, f"storage.url='{url}'", "search.evaluations=99")
    with pytest.raises(StudyConflict, match="another driver"):
        create_or_resume(larger, {})
    with pytest.raises(StudyConflict, match="another driver"):
        launch(larger, _ignore)
    with open_study(url, "t") as stored:
        assert stored.config.search.evaluations == 6


def test_a_closed_study_is_free(url: str, store: StudyStore) -> None:
    assert len(_rows(url, LEASES)) == 1
    store.close()
    assert _rows(url, LEASES) == []
    check_free(url, "t")
    _second(store).close()


@pytest.mark.parametrize("how", ["asked", "expired"])
def test_who_lost_its_lease_writes_no_row_more(
    url: str, store: StudyStore, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "s3search.study.optuna.mirror._SECONDS", math.inf
    )  # trials wait on slow machines
    store.mirror.open()
    store.add_note("first", {})
    if how == "expired":
        old = _rows(url, LEASES)[0]["renewed_at"] - timedelta(seconds=EXPIRED_SECONDS + 5)
        _change_lease(url, renewed_at=old, machine="elsewhere")
    waiting = store.mirror
    waiting.add(*_measured())
    with _second(store, takeover=how == "asked") as second:
        for write in (
            lambda: store.add_note("second", {}),
            lambda: store.set_state("done"),
            lambda: store.set_config(store.config, store.space),
            waiting.flush,
        ):
            with pytest.raises(LeaseLost, match=r"taken over by another driver \(host"):
                write()
        second.add_note("third", {})
        assert [row["kind"] for row in _rows(url, NOTES)] == ["first", "third"]
    with pytest.raises(LeaseLost, match="taken over by another driver and ended"):
        store.set_state("done")
    with pytest.raises(LeaseLost):  # one trial still waits
        store.close()
    assert trials(url) == []


def test_who_lost_its_lease_does_not_take_it_away_when_it_closes(
    url: str, store: StudyStore
) -> None:
    with _second(store, takeover=True) as second:
        store.close()
        second.add_note("still", {})
        assert len(_rows(url, LEASES)) == 1


def test_a_silent_driver_elsewhere_keeps_its_study_until_the_lease_expires(
    url: str, store: StudyStore
) -> None:
    now = _rows(url, LEASES)[0]["renewed_at"]
    renewed = now - timedelta(seconds=EXPIRED_SECONDS - 20)
    # a process id that is used by nobody here says nothing about another machine
    _change_lease(url, machine="elsewhere", host="node7", pid=2**22 + 1, renewed_at=renewed)
    with pytest.raises(StudyConflict, match=r"host node7, process 4194305, .*renewed 4\d s ago"):
        _second(store)


@pytest.mark.parametrize("reused", [False, True])
def test_the_study_of_a_process_that_is_gone_is_taken_at_once(
    url: str, store: StudyStore, caplog: pytest.LogCaptureFixture, reused: bool
) -> None:
    store.close()
    process = Forked(hold, url)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(StudyConflict, match=f"process {process.pid},"):
        _second(store)
    process.kill()
    process.communicate()
    if reused:  # its id now belongs to a process that started at another time
        _change_lease(url, pid=os.getpid())
    check_free(url, "t")
    _second(store).close()
    assert "taken over from another driver, whose process is gone" in caplog.text


def test_a_study_that_is_driven_is_not_pruned_and_a_dead_drivers_is(
    url: str, store: StudyStore
) -> None:
    with pytest.raises(StudyConflict, match="another driver"):
        prune(url, ["t"])
    assert study_names(url) == ["t"]
    _change_lease(url, process_start="another", host="here")  # this id, but not this process
    assert prune(url, ["t"]).studies == ("t",)
    assert _rows(url, LEASES) == []
    with pytest.raises(LeaseLost):
        store.set_state("done")


def test_a_process_is_not_gone_on_another_machine_nor_while_it_runs() -> None:
    own = new_owner()
    assert not is_gone(own)
    assert own.token != new_owner().token


def test_a_study_that_was_taken_over_ends_as_if_one_driver_had_run_it(
    url: str, tmp_path: Path
) -> None:
    config = study_config(tmp_path, f"storage.url='{url}'")
    taken: list[StudyStore] = []

    def take(_: Progress) -> None:
        if not taken:
            taken.append(open_study(url, "t"))
            taken[0].hold(takeover=True)

    with pytest.raises(LeaseLost):
        launch(config, take)
    with open_study(url, "t") as stored:
        assert stored.state == "searching"
    taken[0].close()
    launch(config, _ignore)
    numbers = [number for number, _, _ in trials(url)]
    assert numbers == sorted(set(numbers))
    assert _rows(url, LEASES) == []


def test_a_clock_that_jumps_makes_no_driver_of_this_machine_silent(store: StudyStore) -> None:
    url = store.config.storage.url
    (row,) = _rows(url, LEASES)
    _change_lease(url, renewed_at=row["renewed_at"] - timedelta(seconds=100 * EXPIRED_SECONDS))
    with pytest.raises(StudyConflict, match="is being run by another driver"):
        _second(store)
    with pytest.raises(StudyConflict, match="is being run by another driver"):
        check_free(url, "t")


def test_a_file_that_was_replaced_under_a_driver_is_noticed(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    file = tmp_path / "study.db"
    with create_or_resume(config, {}) as store:
        store.add_note("before", {})
        file.rename(tmp_path / "away.db")
        with pytest.raises(LeaseLost, match="the file was deleted or replaced while this driver"):
            store.add_note("after", {})
        assert not file.exists()  # and no empty one was made


def test_a_renewal_makes_no_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    with suppress(LeaseLost), create_or_resume(study_config(tmp_path), {}) as store:
        shutil.copy(tmp_path / "study.db", tmp_path / "copy.db")
        (tmp_path / "copy.db").rename(tmp_path / "study.db")  # another file of the same content
        assert store._lease is not None
        store._lease._thread.join(20.0)
        assert not store._lease._thread.is_alive()
    assert "its file was deleted or replaced; the driver stops" in caplog.text


@pytest.fixture
def server_url(postgres_server: Any) -> str:
    """An empty database of PostgreSQL: SQLite has no server that ends a paused transaction."""
    name = f"t{uuid.uuid4().hex[:12]}"
    postgres_server.psql(f"create database {name};")
    base = str(postgres_server.get_uri(database=name))
    return base.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
def paused(server_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Forked]:
    """A driver that is paused within a transaction; its limits are the parameter."""
    url = server_url
    create_or_resume(study_config(tmp_path, f"storage.url='{url}'"), {}).close()
    process = Forked(pause_within, url, *request.param)
    assert process.stdout.readline() == "within\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("paused", [(1, 2)], indirect=True)
def test_a_takeover_does_not_wait_for_a_paused_transaction(
    server_url: str, paused: Forked
) -> None:
    with open_study(server_url, "t") as taken:
        taken.hold(takeover=True)
        assert _rows(server_url, LEASES)[0]["pid"] == os.getpid()
    assert paused.poll() is None


@pytest.mark.parametrize("paused", [(0, 0)], indirect=True)  # as of an earlier release: no limit
def test_a_takeover_says_what_holds_the_lock(
    server_url: str, paused: Forked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_LOCK_SECONDS", 1)
    with (
        pytest.raises(StudyConflict, match=r"locked by another connection.*pg_terminate_backend"),
        open_study(server_url, "t") as taken,
    ):
        taken.hold(takeover=True)
    assert paused.poll() is None


@pytest.mark.parametrize("names", ["different", "same"])
def test_of_drivers_that_come_at_one_moment_one_makes_the_tables(url: str, names: str) -> None:
    process = Forked(first_launches.launch_at_once, url, 6, names == "same")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
