"""Studies copied from one kind of database to another, upgraded, pruned."""

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from typer.testing import CliRunner

from s3search.cli.commands import app
from s3search.errors import StudyConflict
from s3search.run.launching import launch
from s3search.study import vetoes
from s3search.study.database.engine import _MIGRATIONS
from s3search.study.database.store import open_study, study_names
from s3search.study.database.tables import (
    EVALUATIONS,
    JOBS,
    LEASES,
    NOTES,
    PROPOSALS,
    SCHEDULES,
    STUDIES,
)
from s3search.study.database.upkeep import Copied, copy_studies, prunable, prune, upgrade
from s3search.study.file.config import StudyConfig
from s3search.study.results.export import best_schedule
from tests.support.studies import content, study_config


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """Two finished studies in one SQLite database; the second one's file."""
    folder = tmp_path_factory.mktemp("upkeep")
    launch(study_config(folder, "study.name=first", "study.seed=3"), lambda _: None)
    config = study_config(folder)
    launch(config, lambda _: None)
    return config


def _moved(config: StudyConfig, url: str) -> StudyConfig:
    return config.model_copy(update={"storage": config.storage.model_copy(update={"url": url})})


def _target(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if url.startswith("sqlite"):
        return f"sqlite:///{tmp_path / 'copy.db'}"
    server = request.getfixturevalue("postgres_server")
    name = f"t{uuid.uuid4().hex[:12]}"
    server.psql(f"create database {name};")
    return server.get_uri(database=name).replace("postgresql://", "postgresql+psycopg://", 1)


def _optuna_names(url: str) -> list[str]:
    storage = optuna.storages.RDBStorage(url)
    try:
        return optuna.get_all_study_names(storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _schedules(url: str) -> set[str]:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = set(connection.execute(sa.select(SCHEDULES.c.id)).scalars())
    engine.dispose()
    return found


def test_a_copy_says_what_the_study_says_and_goes_on(done: StudyConfig, url: str) -> None:
    copied: list[Copied] = []
    copy_studies(done.storage.url, url, ["t"], copied.append)
    assert study_names(url) == ["t"]
    there, here = content(_moved(done, url)), content(done)
    assert {**there, "evaluations": None} == {**here, "evaluations": None}
    assert set(there["evaluations"]) < set(here["evaluations"])  # the other study's are not there
    [one] = copied
    assert one.rows["s3search_evaluations"] == len(there["evaluations"])
    assert one.rows["s3search_proposals"] == len(there["proposals"])
    assert one.trials == len(there["trials"]) > 0
    longer = done.search.model_copy(update={"evaluations": 8})
    launch(_moved(done, url).model_copy(update={"search": longer}), lambda _: None)
    proposals = content(_moved(done, url))["proposals"]
    assert proposals[: len(there["proposals"])] == there["proposals"]
    assert sum(not origin.startswith("baseline") for _, _, origin, _ in proposals) == 8


def test_all_studies_are_copied_and_copied_back(
    done: StudyConfig, url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    copy_studies(done.storage.url, url, [], lambda _: None)
    again = _target(url, tmp_path, request)
    copy_studies(url, again, [], lambda _: None)
    assert study_names(again) == ["first", "t"]
    assert content(_moved(done, again)) == content(done)


def test_a_taken_or_unknown_name_copies_nothing(done: StudyConfig, url: str) -> None:
    copy_studies(done.storage.url, url, ["t"], lambda _: None)
    before = content(_moved(done, url))
    with pytest.raises(StudyConflict, match="has a study 't' already"):
        copy_studies(done.storage.url, url, [], lambda _: None)
    with pytest.raises(StudyConflict, match="did you mean 'first'"):
        copy_studies(done.storage.url, url, ["firs"], lambda _: None)
    with pytest.raises(StudyConflict, match="is the database to copy from"):
        copy_studies(url, url, [], lambda _: None)
    assert (study_names(url), content(_moved(done, url))) == (["t"], before)


def test_pruning_takes_one_study_and_leaves_the_other(done: StudyConfig, url: str) -> None:
    copy_studies(done.storage.url, url, [], lambda _: None)
    both = _schedules(url)
    foretold = prunable(url, ["first"])
    assert study_names(url) == ["first", "t"]
    removed = prune(url, ["first"])
    assert (removed.studies, removed.rows) == (("first",), foretold.rows)
    assert removed.schedules == foretold.schedules == len(both - _schedules(url)) > 0
    assert (removed.bytes_freed is None) == url.startswith("postgresql")
    assert study_names(url) == ["t"]
    assert _optuna_names(url) == ["t"]
    left = content(_moved(done, url))
    assert {**left, "evaluations": None} == {**content(done), "evaluations": None}
    assert {schedule for _, schedule, *_ in left["proposals"]} <= _schedules(url)
    assert prune(url, []).schedules == 0


def test_an_older_schema_is_refused_until_it_is_upgraded(url: str) -> None:
    engine = sa.create_engine(url)
    migrations = Config()
    migrations.set_main_option("script_location", str(_MIGRATIONS))
    with engine.begin() as connection:
        migrations.attributes["connection"] = connection
        command.upgrade(migrations, "0002")
    engine.dispose()
    with pytest.raises(StudyConflict, match="storage upgrade"):
        study_names(url)
    was, is_now = upgrade(url)
    assert (was, study_names(url)) == ("0002", [])
    assert upgrade(url) == (is_now, is_now)


def test_an_upgrade_of_what_is_up_to_date_does_nothing(done: StudyConfig) -> None:
    before = content(done)
    was, is_now = upgrade(done.storage.url)
    assert was == is_now
    assert content(done) == before


def _json(*arguments: str) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_commands_say_what_they_did(done: StudyConfig, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path / 'there.db'}"
    found = _json("storage", "copy", "t", "--to", target, "--storage", done.storage.url)
    assert [each["study"] for each in found["studies"]] == ["t"]
    found = _json("storage", "prune", "t", "--storage", target)
    assert (found["done"], found["studies"]) == (False, ["t"])
    assert study_names(target) == ["t"]
    found = _json("storage", "prune", "t", "--yes", "--storage", target)
    assert (found["done"], study_names(target)) == (True, [])
    found = _json("storage", "upgrade", "--storage", target)
    assert found["before"] == found["after"]


_KILLS = 12


def test_a_kill_leaves_a_copy_and_a_prune_whole_or_undone(done: StudyConfig, url: str) -> None:
    asked = ["--source", done.storage.url, "--target", url]
    command = [sys.executable, "-m", "tests.benchmarks.kill_upkeep", str(_KILLS), *asked]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["kills"] == 2 * _KILLS


def _winner(config: StudyConfig) -> str:
    with open_study(config.storage.url, "t") as store:
        return best_schedule(store, 3)[0].id


def _without_optuna(url: str) -> None:
    storage = optuna.storages.RDBStorage(url)
    try:
        optuna.delete_study(study_name="t", storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def test_a_veto_holds_where_optunas_study_is_gone(done: StudyConfig, url: str) -> None:
    copy_studies(done.storage.url, url, ["t"], lambda _: None)
    copied = _moved(done, url)
    winner = _winner(copied)
    vetoes.veto(url, "t", winner, "grey")
    _without_optuna(url)
    assert _winner(copied) != winner
    with open_study(url, "t") as store:
        assert [each.reason for each in store.vetoes().values()] == ["grey"]
    launch(copied, lambda _: None)  # mirrors the trials again, with no note at them
    assert _winner(copied) != winner
    vetoes.lift(url, "t", winner)
    assert _winner(copied) == winner


def test_a_driver_keeps_what_was_vetoed_in_the_dashboard(done: StudyConfig, url: str) -> None:
    copy_studies(done.storage.url, url, ["t"], lambda _: None)
    copied = _moved(done, url)
    winner = _winner(copied)
    vetoes.veto(url, "t", winner, "grey")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(NOTES.delete().where(NOTES.c.kind == "veto"))  # as a note alone
    engine.dispose()
    launch(copied, lambda _: None)
    _without_optuna(url)
    assert _winner(copied) != winner


def test_what_a_cut_prune_of_before_left_is_no_new_studys(done: StudyConfig, url: str) -> None:
    copy_studies(done.storage.url, url, ["t"], lambda _: None)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for table in (PROPOSALS, EVALUATIONS, JOBS, NOTES, LEASES, STUDIES):
            connection.execute(table.delete())
    engine.dispose()
    copied = _moved(done, url)
    with pytest.raises(StudyConflict, match="is new, but Optuna has a study of that name with"):
        launch(copied, lambda _: None)
    with pytest.raises(StudyConflict, match="trials of Optuna's under the name 't'"):
        copy_studies(done.storage.url, url, ["t"], lambda _: None)
    assert prune(url, ["t"]).studies == ("t",)
    assert _optuna_names(url) == []
    copy_studies(done.storage.url, url, ["t"], lambda _: None)
    assert study_names(url) == ["t"]


def test_prune_leaves_studies_of_others_alone(done: StudyConfig, url: str) -> None:
    copy_studies(done.storage.url, url, ["t"], lambda _: None)
    storage = optuna.storages.RDBStorage(url)
    try:
        other = optuna.create_study(storage=storage, study_name="mine")
        other.add_trial(optuna.trial.create_trial(value=1.0))
    finally:
        storage.remove_session()
        storage.engine.dispose()
    with pytest.raises(StudyConflict, match="there is no study 'mine'"):
        prune(url, ["mine"])
    assert sorted(_optuna_names(url)) == ["mine", "t"]
