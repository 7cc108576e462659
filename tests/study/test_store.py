"""The study database, on SQLite and PostgreSQL: nothing twice, nothing lost."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
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
from s3search.evaluation.record import Evaluation, EvaluationRequest, Rung
from s3search.processes import edm
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.evolution import distinct
from s3search.search.proposer import Proposal, schedule_key
from s3search.study.database import store as module
from s3search.study.database.engine import _MIGRATIONS, open_engine, redacted
from s3search.study.database.rows import Job, Result, Spent, searched
from s3search.study.database.store import StudyStore, create_or_resume, open_study, study_names
from s3search.study.database.tables import METADATA
from s3search.study.database.tables import SCHEDULES as SCHEDULE_ROWS
from s3search.study.file.config import StudyConfig, parse_config

SCHEDULES = list(distinct(published.baselines(edm(), 3)).values())[:5]


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


def _proposal(number: int) -> Proposal:
    origin = "baseline: DDIM, uniform" if number == 0 else "mutation"
    return Proposal(number=number, schedule=SCHEDULES[number], origin=origin, parents=("a",))


def _result(schedule: Schedule, value: float | None, rung: Rung = Rung.SEARCH) -> Result:
    request = EvaluationRequest(schedule=schedule, rung=rung, n_images=100, noise_seed=2**62)
    spent = Spent(worker="here/1", seconds=0.5)
    if value is None:
        return Result(request=request, evaluation=None, error="EvaluationFailed: no", spent=spent)
    evaluation = Evaluation(
        schedule_id=schedule.id,
        nfe=schedule.nfe,
        rung=rung,
        metric="frechet",
        extractor="digits-a",
        n_images=100,
        noise_seed=2**62,
        value=value,
        standard_error=0.01,
        block_images=None,
        block_value=None,
        network_batches=schedule.nfe,
        seconds=0.5,
        sampling_seconds=0.4,
        device="cpu",
        code_version="0",
        reference_digest="r",
        reference_n=10,
        model_fingerprint="m",
    )
    return Result(request=request, evaluation=evaluation, error=None, spent=spent)


def _filled(url: str) -> StudyStore:
    store = create_or_resume(_config(url), {"orders": [1, 2]})
    for number, value in enumerate((0.5, 0.25, None)):
        store.add_proposals([_proposal(number)])
        result = _result(SCHEDULES[number], value)
        assert store.add_result(result)
        store.mirror.add(_proposal(number), result)
    store.add_proposals([_proposal(3)])  # in flight
    return store


def test_what_was_recorded_is_there_after_reopening(url: str) -> None:
    _filled(url).close()
    with open_study(url, "t") as store:
        assert store.proposals() == [_proposal(number) for number in range(4)]
        assert store.values(Rung.SEARCH, 100) == {
            SCHEDULES[0].id: 0.5,
            SCHEDULES[1].id: 0.25,
            SCHEDULES[2].id: None,
        }
        assert store.n_pending() == 1
        assert store.schedule(SCHEDULES[1].id) == SCHEDULES[1]
        assert store.measured_with() == ("m", "r", "digits-a")
        assert store.seconds_spent() == pytest.approx(1.5)
        assert store.search_results() == [
            _result(SCHEDULES[0], 0.5),
            _result(SCHEDULES[1], 0.25),
            _result(SCHEDULES[2], None),
        ]
        assert store.state == "searching"


def test_a_result_counts_once(url: str) -> None:
    with _filled(url) as store:
        assert not store.add_result(_result(SCHEDULES[0], 0.1))
        assert store.values(Rung.SEARCH, 100)[SCHEDULES[0].id] == 0.5
        assert store.add_result(_result(SCHEDULES[0], 0.1, Rung.VALIDATION))
        assert len(store.rows()) == 4


def test_a_second_driver_is_noticed(url: str) -> None:
    with _filled(url) as store, pytest.raises(StudyConflict, match="another driver"):
        store.add_proposals([replace(_proposal(4), number=3)])


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


def test_who_left_the_race_is_pruned_and_has_no_value(url: str) -> None:
    with _filled(url) as store:
        whole = _result(SCHEDULES[3], 0.9, Rung.RACE)
        assert whole.evaluation is not None
        left = replace(whole, evaluation=replace(whole.evaluation, n_images=25, path=((25, 0.9),)))
        assert store.add_result(left)
        assert store.search_results()[-1].evaluation == left.evaluation
        assert store.n_pending() == 0
        store.mirror.add(_proposal(3), left)
    storage = optuna.storages.RDBStorage(url)
    trial = optuna.load_study(study_name="t", storage=storage).get_trials()[-1]
    storage.engine.dispose()
    assert (trial.state.name, trial.values) == ("PRUNED", None)
    assert trial.user_attrs["n_images"] == 25


def test_answers_of_jobs_and_notes_are_kept_once(url: str) -> None:
    spent = Spent(worker="w", seconds=2.0)
    with _filled(url) as store:
        store.add_job(Job("mixture", "d1", [0.5, None], None, 0, spent))
        store.add_job(Job("polish", "d2", None, "EvaluationFailed: no", 40, spent))
        assert store.jobs(["d1", "d2", "d3"]) == {
            "d1": Job("mixture", "d1", [0.5, None], None, 0, spent),
            "d2": Job("polish", "d2", None, "EvaluationFailed: no", 40, spent),
        }
        assert store.job_totals()["polish"]["failed"] == 1
        assert store.seconds_spent() == pytest.approx(1.5 + 4.0)
        for _ in range(2):
            store.add_note("predictor", {"n": 12, "trusted": False})
        assert store.notes("predictor") == [("predictor", {"n": 12, "trusted": False})]


def test_what_a_resumed_search_must_know_is_read_without_any_schedule(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = _result(SCHEDULES[3], 0.9, Rung.RACE)
    assert left.evaluation is not None
    left = replace(left, evaluation=replace(left.evaluation, n_images=25, path=((25, 0.9),)))
    with _filled(url) as store:
        assert store.add_result(left)
        assert store.add_result(_result(SCHEDULES[0], 0.1, Rung.VALIDATION))
        monkeypatch.setattr(Schedule, "from_dict", None)
        expected = [_result(SCHEDULES[0], 0.5), _result(SCHEDULES[1], 0.25)]
        expected += [_result(SCHEDULES[2], None), left]
        assert store.searched() == [searched(result) for result in expected]
        assert [found.value for found in store.searched()] == [0.5, 0.25, None, None]
        assert [tuple(row) for row in store.proposed()] == [
            (n, SCHEDULES[n].id, _proposal(n).origin, 3, schedule_key(SCHEDULES[n]).hex())
            for n in range(4)
        ]


def test_some_of_many_proposals_and_results_are_read(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IDS_PER_QUERY", 1)
    with _filled(url) as store:
        assert store.proposals(first=1, n=2) == [_proposal(1), _proposal(2)]
        assert store.proposals(first=3, n=2) == [_proposal(3)]
        some = [SCHEDULES[2].id, SCHEDULES[0].id, SCHEDULES[3].id]
        both = [_result(SCHEDULES[0], 0.5), _result(SCHEDULES[2], None)]
        assert store.search_results(some) == both
        assert store.search_results([]) == []


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
        result = _result(SCHEDULES[0], 0.5)
        assert result.evaluation is not None
        row = asdict(result.evaluation)
        row |= {"study_id": 1, "noise_seed": str(2**62), "path": "[]", "state": "complete"}
        row |= {"worker": "here/1", "created_at": now, "network_calls": 300}
        known = {k: v for k, v in row.items() if k in tables["s3search_evaluations"].c}
        assert "replicates" not in known
        connection.execute(tables["s3search_evaluations"].insert().values(**known))
    engine.dispose()
    with pytest.raises(StudyConflict, match="older schema '0002'"):
        open_study(url, "t")
    create_or_resume(_config(url), {}).close()
    with open_study(url, "t") as store:
        assert store.search_results() == [result]
        assert store.add_result(_result(SCHEDULES[1], 0.25))


def test_what_the_witness_says_is_a_row_of_its_own(url: str) -> None:
    result = _result(SCHEDULES[0], 0.5, Rung.VALIDATION)
    evaluation = result.evaluation
    assert evaluation is not None
    evaluation = replace(evaluation, replicates=(0.4, 0.6))
    witness = replace(
        evaluation, rung=Rung.WITNESS, extractor="b", value=0.7, reference_digest="s"
    )
    with _filled(url) as store:
        assert store.add_result(replace(result, evaluation=evaluation))
        both = replace(result, evaluation=replace(evaluation, value=9.0, witness=witness))
        assert not store.add_result(both)  # the witness came later; the value stays
        assert not store.add_result(both)
        assert store.values(Rung.VALIDATION, 100) == {SCHEDULES[0].id: 0.5}
        assert store.values(Rung.WITNESS, 100) == {SCHEDULES[0].id: 0.7}
        rows = {row["rung"]: row for row in store.rows()[-2:]}
        assert rows["witness"]["extractor"] == "b"
        assert (rows["validation"]["network_calls"], rows["witness"]["network_calls"]) == (300, 0)
        assert json.loads(rows["validation"]["replicates"]) == [0.4, 0.6]
        assert store.measured_with() == ("m", "r", "digits-a")
        assert store.measured_with(witness=True) == ("m", "s", "b")


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
            added = thread.submit(store.add_proposals, [_proposal(1)])
            time.sleep(0.5)  # it has looked, found nothing, and waits for the transaction's end
            assert not added.done()
        added.result()
    assert store.proposals() == [_proposal(1)]
    engine.dispose()
    store.close()
