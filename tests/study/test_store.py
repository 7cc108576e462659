"""The study database, on SQLite and PostgreSQL: nothing twice, nothing lost."""

import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from s3search.errors import InvalidConfig, StudyConflict
from s3search.processes import edm
from s3search.schedules.published.baselines import published_solvers
from s3search.schedules.schedule import Schedule
from s3search.search.direction import Direction
from s3search.search.questions import (
    Answer,
    Measure,
    Measurement,
    Polish,
    PolishResult,
    RealImages,
    Rung,
    Score,
)
from s3search.search.trial import Origin, Trial, distinct, schedule_key, searched
from s3search.study.database.engine import _MIGRATIONS, open_engine, redacted
from s3search.study.database.rows import measurement_of
from s3search.study.database.store import StudyStore, create_or_resume, open_study, study_names
from s3search.study.database.tables import METADATA
from s3search.study.database.tables import SCHEDULES as SCHEDULE_ROWS
from s3search.study.file.config import StudyConfig, parse_config

PUBLISHED = distinct(
    Trial.of(each.schedule, searched("test")) for each in published_solvers(edm(), 3)
)
SCHEDULES = [trial.schedule for trial in PUBLISHED][:5]


def _config(url: str, **changes: Any) -> StudyConfig:
    tables: dict[str, Any] = {
        "study": {"name": "t"},
        "model": {"loader": "digits"},
        "space": {"nfe": [3]},
        "metric": {"features": "digits"},
        "reference": {"images": "digits"},
        "storage": {"url": url},
    }
    for key, value in changes.items():
        table, _, name = key.partition("__")
        tables.setdefault(table, {})[name] = value
    return parse_config(tables)


def _trial(number: int) -> Trial:
    origin = Origin.of_text("baseline: DDIM, uniform" if number == 0 else "mutation")
    return Trial.of(SCHEDULES[number], origin, ("a",), number)


def _measurement(
    schedule: Schedule, value: float | None, rung: Rung = Rung.SEARCH, n_images: int = 100
) -> Measurement:
    """One of 100 images; with fewer it stopped early."""
    trial = Trial.of(schedule, searched("mutation"))
    question = Measure(trial=trial, rung=rung, n_images=100, noise_seed=2**62)
    if value is None:
        why = "EvaluationFailed: no"
        return Measurement(question=question, error=why, seconds=0.5, worker="here/1")
    return Measurement(
        question=question,
        estimate=value,
        n_images=n_images,
        path={} if n_images == 100 else {n_images: value},
        metric="frechet",
        extractor="digits-a",
        standard_error=0.01,
        network_batches=schedule.nfe,
        seconds=0.5,
        worker="here/1",
        sampling_seconds=0.4,
        device="cpu",
        code_version="0",
        reference_digest="r",
        reference_n=10,
        model_fingerprint="m",
    )


def _filled(url: str) -> StudyStore:
    store = create_or_resume(_config(url), {"orders": [1, 2]})
    for number, value in enumerate((0.5, 0.25, None)):
        store.add_trials({number: _trial(number)})
        measured = _measurement(SCHEDULES[number], value)
        assert store.add_measurement(measured)
        store.mirror.add(number, _trial(number), measured)
    store.add_trials({3: _trial(3)})  # in flight
    return store


def _fields(trials: Sequence[Trial]) -> list[tuple[Any, ...]]:
    """All that is known of trials, which are equal to themselves alone."""
    return [(t.number, t.id, t.nfe, t.schedule, t.origin, t.parents, t.key) for t in trials]


def _expected(*numbers: int) -> list[tuple[Any, ...]]:
    return _fields([_trial(number) for number in numbers])


def _in_database(measured: Measurement) -> dict[str, Any]:
    """What every column says of a measurement; what failed has no cost and no metric."""
    question, failed = measured.question, measured.estimate is None
    calls = None if failed else measured.n_images * measured.network_batches
    stopped = not failed and measured.n_images < question.n_images
    return {
        "schedule_id": question.trial.id,
        "nfe": question.trial.nfe,
        "rung": "race" if stopped else question.rung.value,
        "n_images": measured.n_images if stopped else question.n_images,
        "noise_seed": str(2**62),
        "state": "failed" if failed else "complete",
        "error": measured.error,
        "value": measured.estimate,
        "path": None if failed else json.dumps([list(each) for each in measured.path.items()]),
        "replicates": None,
        "guards": None,
        "standard_error": measured.standard_error,
        "block_images": None,
        "block_value": None,
        "network_batches": None if failed else measured.network_batches,
        "network_calls": calls,
        "metric": measured.metric,
        "extractor": measured.extractor,
        "reference_digest": measured.reference_digest,
        "reference_n": measured.reference_n,
        "model_fingerprint": measured.model_fingerprint,
        "code_version": measured.code_version,
        "device": measured.device,
        "sampling_seconds": measured.sampling_seconds,
        "seconds": measured.seconds,
        "worker": measured.worker,
    }


_NOT_MEASURED = {"id", "study_id", "created_at", "number", "origin"}


def _rows(store: StudyStore) -> list[dict[str, Any]]:
    """The evaluations, with all that was measured."""
    return [{k: v for k, v in row.items() if k not in _NOT_MEASURED} for row in store.rows()]


def _known(store: StudyStore, measured: Sequence[Measurement]) -> list[Measurement]:
    """What a resumed search is told in the place of these, which are all that the study has."""
    return [
        measurement_of(row, each.question, Direction.MINIMIZE)
        for row, each in zip(store.measured(), measured, strict=True)
    ]


def _assert_known(found: Sequence[Measurement], expected: Sequence[Measurement]) -> None:
    names = ("question", "estimate", "value", "error", "n_images", "rung", "cost", "path")
    names = (*names, "standard_error", "seconds")
    for one, other in zip(found, expected, strict=True):
        for name in names:
            assert getattr(one, name) == getattr(other, name), name


def test_what_was_recorded_is_there_after_reopening(url: str) -> None:
    _filled(url).close()
    with open_study(url, "t") as store:
        assert _fields(store.trials()) == _expected(0, 1, 2, 3)
        assert store.values(Rung.SEARCH, 100) == {
            SCHEDULES[0].id: 0.5,
            SCHEDULES[1].id: 0.25,
            SCHEDULES[2].id: None,
        }
        assert store.n_pending() == 1
        assert store.schedule(SCHEDULES[1].id) == SCHEDULES[1]
        assert store.measured_with() == ("m", "r", "digits-a")
        assert store.seconds_spent() == pytest.approx(1.5)
        measured = [
            _measurement(SCHEDULES[0], 0.5),
            _measurement(SCHEDULES[1], 0.25),
            _measurement(SCHEDULES[2], None),
        ]
        assert _rows(store) == [_in_database(each) for each in measured]
        _assert_known(_known(store, measured), measured)
        assert store.state == "searching"


def test_a_measurement_counts_once(url: str) -> None:
    with _filled(url) as store:
        assert not store.add_measurement(_measurement(SCHEDULES[0], 0.1))
        assert store.values(Rung.SEARCH, 100)[SCHEDULES[0].id] == 0.5
        assert store.add_measurement(_measurement(SCHEDULES[0], 0.1, Rung.VALIDATION))
        assert len(store.rows()) == 4


def test_a_second_driver_is_noticed(url: str) -> None:
    with _filled(url) as store, pytest.raises(StudyConflict, match="another driver"):
        store.add_trials({3: _trial(4)})


def test_optuna_sees_values_schedule_and_failures(url: str) -> None:
    _filled(url).close()
    storage = optuna.storages.RDBStorage(url)
    study = optuna.load_study(study_name="t", storage=storage)
    trials = study.get_trials()
    storage.engine.dispose()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert trials[1].values == [0.25, 3.0]
    assert len(trials[1].params) <= 12
    assert trials[0].params["is_baseline"] is True
    assert Schedule.from_dict(json.loads(trials[1].user_attrs["schedule"])) == SCHEDULES[1]
    assert "EvaluationFailed" in trials[2].user_attrs["error"]


def test_what_stopped_early_is_pruned_and_has_no_value(url: str) -> None:
    with _filled(url) as store:
        stopped = _measurement(SCHEDULES[3], 0.9, n_images=25)
        assert store.add_measurement(stopped)
        assert _rows(store)[-1] == _in_database(stopped)
        found = measurement_of(store.measured()[-1], stopped.question, Direction.MINIMIZE)
        _assert_known([found], [stopped])
        assert (found.value, found.rung) == (None, Rung.STOPPED)
        assert store.n_pending() == 0
        store.mirror.add(3, _trial(3), stopped)
    storage = optuna.storages.RDBStorage(url)
    trial = optuna.load_study(study_name="t", storage=storage).get_trials()[-1]
    storage.engine.dispose()
    assert (trial.state.name, trial.values) == ("PRUNED", None)
    assert trial.user_attrs["n_images"] == 25


def test_answers_and_notes_are_kept_once(url: str) -> None:
    spent = {"seconds": 2.0, "worker": "w"}
    score = Score(proxy="mixture", trials=(_trial(0), _trial(1)))
    polish = Polish(trial=_trial(0), iterations=3, n_images=5, seed=0, noise_seed=7)
    other = replace(polish, seed=1)
    with _filled(url) as store:
        scored = Answer(question=score, value=(0.5, math.nan), **spent)
        failed = Answer(question=polish, error="EvaluationFailed: no", network_calls=40, **spent)
        store.add_answer(scored)
        store.add_answer(failed)
        expected = {score.key: scored, polish.key: failed}
        assert store.answered([score, polish, other]) == expected
        store.add_answer(Answer(question=score, value=(9.0, 9.0), **spent))
        assert store.answered([score, polish, other]) == expected
        assert store.answers("mixture") == [[0.5, None]]
        assert store.answers("polish") == []
        assert store.job_totals()["polish"]["failed"] == 1
        assert store.seconds_spent() == pytest.approx(1.5 + 4.0)
        for _ in range(2):
            store.add_note("predictor", {"n": 12, "trusted": False})
        assert store.notes("predictor") == [("predictor", {"n": 12, "trusted": False})]


def test_every_kind_of_answer_is_read_as_it_was_given(url: str) -> None:
    made = PolishResult(schedule=SCHEDULES[1], losses=(0.5, 0.25))
    polish = Polish(trial=_trial(0), iterations=3, n_images=5, seed=0, noise_seed=7)
    floor = RealImages(n_images=100, seed=1, metrics=(None, {"features": "digits"}))
    given = [
        Answer(question=polish, value=made, network_calls=90, seconds=1.0, worker="w"),
        Answer(question=floor, value=({"metric": "digits", "mean": 0.1},), worker="w"),
    ]
    with _filled(url) as store:
        for answer in given:
            store.add_answer(answer)
        assert store.answered([polish, floor]) == {a.question.key: a for a in given}


def test_what_a_resumed_search_must_know_is_read_without_any_schedule(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = _measurement(SCHEDULES[3], 0.9, n_images=25)
    with _filled(url) as store:
        assert store.add_measurement(stopped)
        assert store.add_measurement(_measurement(SCHEDULES[0], 0.1, Rung.VALIDATION))
        monkeypatch.setattr(Schedule, "from_dict", None)
        expected = [_measurement(SCHEDULES[0], 0.5), _measurement(SCHEDULES[1], 0.25)]
        expected += [_measurement(SCHEDULES[2], None), stopped]
        expected += [_measurement(SCHEDULES[0], 0.1, Rung.VALIDATION)]
        found = _known(store, expected)
        _assert_known(found, expected)
        assert [each.value for each in found] == [0.5, 0.25, None, None, 0.1]
        assert [(t.number, t.id, t.origin, t.nfe, t.key) for t in store.trials()] == [
            (n, SCHEDULES[n].id, _trial(n).origin, 3, schedule_key(SCHEDULES[n])) for n in range(4)
        ]


def test_of_many_trials_those_are_read_that_are_looked_at(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Schedule] = []
    from_dict = Schedule.from_dict
    monkeypatch.setattr(Schedule, "from_dict", lambda d: read.append(from_dict(d)) or read[-1])
    with _filled(url) as store:
        trials = store.trials()
        assert read == []
        assert _fields(trials[1:3]) == _expected(1, 2)
        assert read == SCHEDULES[1:3]
        assert _fields(trials[3:5]) == _expected(3)
        assert [trials[n].schedule for n in (2, 1)] == [SCHEDULES[2], SCHEDULES[1]]
        assert read == SCHEDULES[1:4]  # each once


def test_mirrored_trials_are_known_by_number(url: str) -> None:
    with _filled(url) as store:
        assert store.mirror.numbers() == {0, 1, 2}


def test_a_study_may_grow_but_not_turn_into_another(url: str) -> None:
    _filled(url).close()
    create_or_resume(_config(url, search__evaluations=999), {"orders": [1, 2]}).close()
    with open_study(url, "t") as store:
        assert store.config.search.evaluations == 999
    with pytest.raises(StudyConflict, match=r"study\.seed = 0, asked for 7"):
        create_or_resume(_config(url, study__seed=7), {"orders": [1, 2]})
    with pytest.raises(StudyConflict, match=r"space\.orders = \[1, 2\], asked for \[1\]"):
        create_or_resume(_config(url), {"orders": [1]})


def test_a_study_does_not_change_its_loss(url: str) -> None:
    budget = {"search__evaluations": 9}
    create_or_resume(_config(url, **budget), {}).close()
    with pytest.raises(StudyConflict, match=r"search\.polish_loss = 'metric'"):
        create_or_resume(_config(url, **budget, search__polish_loss="trajectory"), {})


def test_a_study_of_before_a_field_existed_has_it_at_its_default(url: str) -> None:
    _filled(url).close()
    space = {"orders": [1, 2], "solvers": ["taylor"]}
    create_or_resume(_config(url), space).close()
    with pytest.raises(
        StudyConflict, match=r"space\.solvers = \['taylor'\], asked for \['taylor'"
    ):
        create_or_resume(_config(url), {**space, "solvers": ["taylor", "deis"]})


def test_an_unknown_study_is_an_error_that_names_the_nearest(url: str) -> None:
    create_or_resume(_config(url, study__name="digits-nfe5"), {}).close()
    assert study_names(url) == ["digits-nfe5"]
    with pytest.raises(StudyConflict, match="did you mean 'digits-nfe5'"):
        open_study(url, "digits-nfe3")


def test_a_database_of_another_version_is_refused_and_left_alone(url: str) -> None:
    create_or_resume(_config(url), {}).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("update s3search_alembic_version set version_num = '9999'"))
    for create in (True, False):
        with pytest.raises(StudyConflict, match="schema version '9999'"):
            open_engine(url, create=create)
    with engine.begin() as connection:
        version = connection.execute(sa.text("select version_num from s3search_alembic_version"))
        assert version.scalar_one() == "9999"
    engine.dispose()


def test_our_tables_are_what_the_migrations_make(url: str) -> None:
    engine = open_engine(url, create=True)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": "s3search_alembic_version",
                "include_object": lambda _o, name, kind, *_: (
                    kind != "table" or name.startswith("s3search_")
                ),
            },
        )
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_a_database_of_schema_0002_is_upgraded_with_all_it_holds(url: str) -> None:
    engine = sa.create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    now = datetime(2026, 1, 1)
    older = sa.MetaData()
    with engine.begin() as connection:
        older.reflect(connection)
        tables = older.tables
        content = _config(url).model_dump_json(exclude={"storage"})
        study = {"name": "t", "config": content, "space": "{}", "state": "done"}
        study |= {"created_at": now, "updated_at": now}
        connection.execute(tables["s3search_studies"].insert().values(**study))
        schedule = {"id": SCHEDULES[0].id, "nfe": 3, "content": json.dumps(SCHEDULES[0].to_dict())}
        connection.execute(tables["s3search_schedules"].insert().values(**schedule))
        measured = _measurement(SCHEDULES[0], 0.5)
        row = _in_database(measured) | {"study_id": 1, "created_at": now}
        known = {k: v for k, v in row.items() if k in tables["s3search_evaluations"].c}
        assert "replicates" not in known
        connection.execute(tables["s3search_evaluations"].insert().values(**known))
    engine.dispose()
    with pytest.raises(StudyConflict, match="older schema '0002'"):
        open_study(url, "t")
    create_or_resume(_config(url), {}).close()
    with open_study(url, "t") as store:
        assert _rows(store) == [_in_database(measured)]
        _assert_known(_known(store, [measured]), [measured])
        assert store.add_measurement(_measurement(SCHEDULES[1], 0.25))


def test_what_the_second_metric_says_is_a_row_of_its_own(url: str) -> None:
    measured = _measurement(SCHEDULES[0], 0.5, Rung.VALIDATION)
    measured = replace(measured, replicates=(0.4, 0.6))
    second = replace(measured, of_second=True, extractor="b", estimate=0.7, reference_digest="s")
    with _filled(url) as store:
        assert store.add_measurement(measured)
        both = replace(measured, estimate=9.0, second=second)
        assert not store.add_measurement(both)  # the second came later; the value stays
        assert not store.add_measurement(both)
        assert store.values(Rung.VALIDATION, 100) == {SCHEDULES[0].id: 0.5}
        assert store.values(Rung.SECOND_METRIC, 100) == {SCHEDULES[0].id: 0.7}
        rows = {row["rung"]: row for row in store.rows()[-2:]}
        assert rows["witness"]["extractor"] == "b"
        assert (rows["validation"]["network_calls"], rows["witness"]["network_calls"]) == (300, 0)
        assert json.loads(rows["validation"]["replicates"]) == [0.4, 0.6]
        assert store.measured_with() == ("m", "r", "digits-a")
        assert store.measured_with(second=True) == ("m", "s", "b")


def test_reading_never_makes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "absent.db"
    with pytest.raises(InvalidConfig, match="no database file"):
        open_study(f"sqlite:///{path}", "t")
    assert not path.exists()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("nonsense", "no database URL"),
        ("nosuch://host/db", "no database URL"),
        ("sqlite:////no/such/folder/x.db", "cannot open"),
        ("postgresql+psycopg://nobody:secret@127.0.0.1:1/x", "cannot open"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_sentence_without_the_password(
    bad: str, message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message) as caught:
        open_engine(bad, create=True)
    assert "secret" not in str(caught.value)
    assert "secret" not in redacted(bad)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("not a database at all, but long enough to look at" * 50)
    with pytest.raises(InvalidConfig, match="cannot open"):
        open_engine(f"sqlite:///{path}", create=True)
    assert path.read_text().startswith("not a database")


def test_the_database_never_holds_its_own_url(url: str) -> None:
    """It may have a password in it."""
    _filled(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        stored = connection.execute(sa.text("select config from s3search_studies")).scalar_one()
    engine.dispose()
    assert "storage" not in json.loads(stored)
    with open_study(url, "t") as store:
        assert store.config.storage.url == url


def test_two_drivers_of_one_database_may_add_the_same_schedule_at_once(url: str) -> None:
    store = create_or_resume(_config(url), {})
    own = SCHEDULES[1]
    row = {"id": own.id, "nfe": own.nfe, "content": json.dumps(own.to_dict())}
    engine = open_engine(url, create=True)
    with ThreadPoolExecutor(1) as thread:
        with engine.begin() as other:
            other.execute(SCHEDULE_ROWS.insert().values(**row))
            added = thread.submit(store.add_trials, {1: _trial(1)})
            time.sleep(0.5)  # it has looked, found nothing, and waits for the transaction's end
            assert not added.done()
        added.result()
    assert _fields(store.trials()) == _expected(1)
    engine.dispose()
    store.close()
