"""What a person rejects is neither built on nor exported, on SQLite and PostgreSQL."""

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from s3search.cli.commands import app
from s3search.errors import InvalidConfig, StudyConflict
from s3search.run.launching import launch
from s3search.show.dashboard import Access, application
from s3search.show.dashboard.storage import open_storage
from s3search.study import vetoes
from s3search.study.database.engine import open_engine
from s3search.study.database.store import open_study
from s3search.study.database.upkeep import copy_studies
from s3search.study.file.config import StudyConfig
from s3search.study.optuna.notes import notes_of, write_note
from s3search.study.results.comparison import comparison_of
from s3search.study.results.export import best_schedule
from s3search.study.results.frame import evaluations_frame, finalists, status_of, validated
from s3search.study.results.watching import look
from tests.show.dashboard.client import ask
from tests.support.studies import study_config


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """The second study of its database, so that no trial's number is its id."""
    folder = tmp_path_factory.mktemp("veto")
    few = ("search.evaluations=4", "validation.n_images=30", "validation.baselines=false")
    launch(study_config(folder, "study.name=first", *few), lambda _: None)
    config = study_config(folder, *few)
    launch(config, lambda _: None)
    return config


@pytest.fixture
def copied(done: StudyConfig, url: str, tmp_path: Path) -> str:
    """A database of each kind with a copy of the study."""
    target = url.replace("study.db", "copy.db")
    copy_studies(done.storage.url, target, ["t"], lambda _: None)
    return target


def _best(url: str) -> str:
    with open_study(url, "t") as store:
        return best_schedule(store)[0].id


def _vetoes(url: str) -> dict[str, str]:
    with open_study(url, "t") as store:
        return {each.schedule_id: each.reason for each in store.vetoes().values()}


def _trial_of(url: str, schedule_id: str) -> tuple[int, int, int]:
    """Optuna's ids of study and trial, and the trial's number."""
    storage = open_storage(url, writable=False)
    try:
        study = storage.get_study_id_from_name("t")
        (trial,) = (
            each
            for each in storage.get_all_trials(study)
            if each.user_attrs["schedule_id"] == schedule_id
        )
        return study, trial._trial_id, trial.number
    finally:
        storage.remove_session()
        storage.engine.dispose()


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        ("veto: blurred digits", "blurred digits"),
        ("**Rejected** - twice over\nmore", "twice over"),
        ("\n# VETO\n\nwhy not", ""),
        ("> reject, the sevens are nines ", "the sevens are nines"),
        ("no veto needed", None),
        ("rejection rates look fine", None),
        ("good\nveto: no first line", None),
        ("", None),
    ],
)
def test_the_first_line_of_a_note_is_a_veto_or_is_not(note: str, reason: str | None) -> None:
    assert vetoes.reason_in(note) == reason


def test_a_vetoed_winner_leaves_its_place_to_the_next(copied: str) -> None:
    with open_study(copied, "t") as store:
        before = validated(evaluations_frame(store), store.config)
    winner = before[0].schedule_id
    made = vetoes.veto(copied, "t", winner[:8], "blurred  digits")
    assert (made.schedule_id, made.reason) == (winner, "blurred digits")
    with open_study(copied, "t") as store:
        frame = evaluations_frame(store)
        after = validated(frame, store.config)
        assert {s.schedule_id for s in after} == {s.schedule_id for s in before} - {winner}
        assert best_schedule(store)[0].id == after[0].schedule_id
        assert winner not in finalists(frame, store.config)
        status, compared = status_of(store), comparison_of(store)
        assert [each["reason"] for each in status["vetoed"]] == ["blurred digits"]
        assert winner not in {row["schedule_id"] for row in compared["rows"]}
        assert compared["vetoed"][0]["schedule_id"] == winner
        watched = look(store).progress
        assert watched.best[3] == status["best"]["3"]["search"]
        assert watched.best_baseline[3] == status["best"]["3"]["search_baseline"]
        assert status["evaluations"] == 4  # what was measured stays counted
    assert vetoes.lift(copied, "t", str(made.trial)).reason == "blurred digits"
    assert _best(copied) == winner


def test_without_any_schedule_left_the_error_says_whose_vetoes_are_in_the_way(copied: str) -> None:
    with open_study(copied, "t") as store:
        scored = validated(evaluations_frame(store), store.config)
    for each in scored:
        vetoes.veto(copied, "t", each.schedule_id, "grey")
    with pytest.raises(StudyConflict, match=rf"all {len(scored)} validated .* \(grey\).*--lift"):
        _best(copied)


def test_a_note_saved_in_the_dashboard_is_a_veto(copied: str) -> None:
    winner = _best(copied)
    study, trial, _ = _trial_of(copied, winner)
    path = f"/api/studies/{study}/{trial}/note"
    long = "reject: too smooth\n" + "x" * 5000  # in three pieces
    with application(copied, Access(writable=True)) as served:
        assert ask(served, path, "PUT", content={"body": long, "version": 1}).status == 204
        assert _vetoes(copied) == {winner: "too smooth"}
        ranked = ask(served, "/ranking/t").text
        assert "too smooth" in ranked and ranked.count(winner) == 1
        vetoes.veto(copied, "t", winner, "grey")
        found = ask(served, f"/api/studies/{study}").json
        (note,) = (t["note"] for t in found["trials"] if t["trial_id"] == trial)
        assert (note["version"], note["body"]) == (2, "veto: grey\n\n" + "x" * 5000)
        stale = ask(served, path, "PUT", content={"body": "fine", "version": 2})
        assert stale.status == 409
        assert ask(served, path, "PUT", content={"body": "fine", "version": 3}).status == 204
        assert "too smooth" not in ask(served, "/ranking/t").text
    assert _vetoes(copied) == {}
    assert _best(copied) == winner


def test_a_lifted_veto_leaves_the_rest_of_the_note(copied: str) -> None:
    winner = _best(copied)
    _, trial, number = _trial_of(copied, winner)
    engine = open_engine(copied, create=True)
    with engine.begin() as connection:
        write_note(connection, "t", trial, "nice sevens")
    vetoes.veto(copied, "t", str(number), "grey")
    vetoes.veto(copied, "t", str(number), "too grey")
    assert _vetoes(copied) == {winner: "too grey"}
    vetoes.lift(copied, "t", str(number))
    with engine.begin() as connection:
        assert notes_of(connection, "t") == {trial: "nice sevens"}
    engine.dispose()


def test_a_copy_of_the_study_keeps_its_vetoes(
    done: StudyConfig, copied: str, tmp_path: Path
) -> None:
    """Where its trials have other ids."""
    winner = _best(copied)
    vetoes.veto(copied, "t", winner, "grey")
    target = f"sqlite:///{tmp_path / 'other.db'}"
    copy_studies(done.storage.url, target, ["first"], lambda _: None)
    copy_studies(copied, target, ["t"], lambda _: None)
    assert _trial_of(target, winner)[1] != _trial_of(copied, winner)[1]
    assert _vetoes(target) == {winner: "grey"}


def test_a_database_without_trials_has_no_vetoes(url: str) -> None:
    engine = open_engine(url, create=True)
    with engine.begin() as connection:
        assert vetoes.vetoes_of(connection, "t") == {}
        assert not sa.inspect(connection).has_table("studies")  # looking made none
    engine.dispose()
    with pytest.raises(InvalidConfig, match="trial 3 was asked for, study 't' has 0 trials"):
        vetoes.veto(url, "t", "3", "grey")


def _run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["veto", *arguments, "--json"])
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


def test_the_command_vetoes_lists_and_lifts(copied: str) -> None:
    winner = _best(copied)
    number = str(_trial_of(copied, winner)[2])
    own = {"schedule_id": winner, "trial": int(number), "reason": "grey"}
    storage = ("--storage", copied)
    assert _run("t", *storage) == {"study": "t", "vetoed": []}
    assert _run("t", number, "--reason", "grey", *storage) == {"study": "t", "vetoed": own}
    assert _run("t", *storage) == {"study": "t", "vetoed": [own]}
    said = CliRunner().invoke(app, ["best", "t", *storage])
    assert f"vetoed: trial {number}: grey" in said.stdout
    assert _run("t", winner[:10], "--lift", *storage) == {"study": "t", "lifted": own}
    assert _run("t", *storage)["vetoed"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("t", "2"), "without a reason; add --reason"),
        (("t", "2", "--reason", " "), "without a reason; add --reason"),
        (("t", "--reason", "grey"), "without a trial; name one"),
        (("t", "2", "--lift", "--reason", "grey"), "leave one out"),
        (("t", "2", "--lift"), "has none; vetoed are none"),
        (("t", "999", "--reason", "grey"), "trial 999 was asked for, study 't' has"),
        (("t", "ffffffff", "--reason", "grey"), "schedule ffffffff was asked for"),
        (("t", "best", "--reason", "grey"), "neither a trial's number nor a schedule's id"),
        (("u", "2", "--reason", "grey"), "there is no study 'u'"),
    ],
)
def test_bad_input_is_refused_with_what_would_do(
    done: StudyConfig, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises((InvalidConfig, StudyConflict), match=message):
        _run(*arguments, "--storage", done.storage.url)
