"""Drawings, schedules and samples hang on the trials of the validated schedules, and download."""

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from s3search.cli.commands import app
from s3search.cluster.pool import InlinePool
from s3search.errors import InvalidConfig
from s3search.evaluation.record import ImagesRequest, Reply, Request
from s3search.processes import edm
from s3search.schedules.published import ddim
from s3search.schedules.schedule import Schedule
from s3search.show.dashboard import Access, application
from s3search.show.dashboard.artifacts import artifacts_folder, grids_of_workers
from s3search.show.dashboard.publish import Published, publish
from s3search.study.database.store import open_study
from s3search.study.database.upkeep import copy_studies
from s3search.study.file.config import StudyConfig
from s3search.study.optuna import tables as optuna_tables
from s3search.study.results.frame import evaluations_frame, validated
from tests.show.dashboard.client import ask
from tests.support.studies import EVIL_NAME as NAME
from tests.support.studies import searched_study


@pytest.fixture(scope="module")
def database(finished: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy of the finished study, published with samples."""
    file = tmp_path_factory.mktemp("shown") / "study.db"
    shutil.copy(finished.storage.url.removeprefix("sqlite:///"), file)
    publish(f"sqlite:///{file}", NAME, n_samples=4)
    return f"sqlite:///{file}"


def _listed(shown: Any, study: int = 1) -> dict[str, list[dict[str, Any]]]:
    """The artifacts of every trial that has some, by its schedule, with their addresses."""
    found = {}
    for trial in ask(shown, f"/api/studies/{study}").json["trials"]:
        attributes = {each["key"]: each["value"] for each in trial["user_attrs"]}
        at = f"/artifacts/{study}/{trial['trial_id']}"
        listed = [{**a, "path": f"{at}/{a['artifact_id']}"} for a in trial["artifacts"]]
        if listed:
            found[attributes["schedule_id"]] = listed
    return found


def test_every_validated_schedule_has_its_artifacts(database: str) -> None:
    with open_study(database, NAME) as store:
        known = validated(evaluations_frame(store), store.config)
    with application(database, Access()) as shown:
        listed = _listed(shown)
        assert set(listed) == {row.schedule_id for row in known}
        for schedule_id, files in listed.items():
            short = schedule_id[:8]
            kinds = {f["filename"]: f for f in files}
            assert set(kinds) == {
                f"schedule-{short}.png",
                f"schedule-{short}.json",
                f"samples-{short}.png",
            }
            content = {name: ask(shown, file["path"]) for name, file in kinds.items()}
            assert {found.status for found in content.values()} == {200}
            told = Schedule.from_dict(content[f"schedule-{short}.json"].json)
            assert told.id == schedule_id
            for name in (f"schedule-{short}.png", f"samples-{short}.png"):
                with Image.open(io.BytesIO(content[name].body)) as picture:
                    assert picture.format == "PNG" and picture.width > picture.height
                assert content[name].headers["content-type"] == "image/png"


def test_a_schedule_whose_samples_fail_has_none_and_the_others_have(
    finished: StudyConfig,
) -> None:
    good, bad = (ddim(edm(), nfe=n, spacing="karras") for n in (2, 3))

    def work(request: Request) -> Reply:
        assert isinstance(request, ImagesRequest)
        if request.schedule == bad:
            raise ValueError("no images")
        assert request.noise_seed == finished.validation_noise_seed
        return torch.zeros(request.n_images, 1, 4, 4)

    with InlinePool(lambda: work) as pool:
        found = grids_of_workers(pool, finished, [bad, good, bad], 3)
    assert list(found) == [good.id]


def test_publishing_again_replaces(database: str) -> None:
    folder = artifacts_folder(database)
    assert folder is not None and folder.parent == Path(database.removeprefix("sqlite:///")).parent
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    with application(database, Access()) as shown:
        listed = _listed(shown)
    again = publish(database, NAME, n_samples=4)
    assert again == Published(study=NAME, cards=again.cards, artifacts=len(before), folder=folder)
    with application(database, Access()) as shown:
        assert _listed(shown) == listed
    assert set(folder.iterdir()) == set(before)


def test_a_copied_study_shows_the_same_at_its_own_trials(database: str, tmp_path: Path) -> None:
    """Optuna numbers the copies' trials anew, beside those of another study."""
    url = f"sqlite:///{tmp_path}/study.db"
    searched_study(tmp_path)
    with application(database, Access(writable=True)) as shown:
        before = _listed(shown)
        last = ask(shown, "/api/studies/1").json["trials"][-1]["trial_id"]
        note = {"body": "look *here*", "version": 1}
        assert ask(shown, f"/api/studies/1/{last}/note", "PUT", content=note).status == 204
    arguments = ["storage", "copy", NAME, "--to", url, "--storage", database]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    with application(url, Access()) as shown:
        ids = {
            s["study_name"]: s["study_id"]
            for s in ask(shown, "/api/studies").json["study_summaries"]
        }
        _check_copied(shown, ids[NAME], before)
        trials = ask(shown, f"/api/studies/{ids[NAME]}").json["trials"]
        notes = [trial["note"]["body"] for trial in trials]
        assert all("(/schedules/" in body.partition("\n\n")[0] for body in notes)
        written = [body.partition("\n\n")[2] for body in notes]
        assert written == [*[""] * (len(trials) - 1), "look *here*"]
        assert not _listed(shown, ids["t"])
    publish(url, NAME)  # changes nothing
    with application(url, Access()) as shown:
        _check_copied(shown, ids[NAME], before)


def test_publishing_puts_a_copy_of_an_unknown_schema_right(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    searched_study(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(optuna_tables, "SCHEMA", "of a later Optuna")
        copy_studies(database, url, [NAME], lambda _: None)
    folder = artifacts_folder(database)
    publish(url, NAME, artifacts=folder)
    with (
        application(database, Access()) as source,
        application(url, Access(), artifacts=folder) as shown,
    ):
        summaries = ask(shown, "/api/studies").json["study_summaries"]
        (copied,) = [s["study_id"] for s in summaries if s["study_name"] == NAME]
        _check_copied(shown, copied, _listed(source))


def _check_copied(shown: Any, study: int, before: dict[str, list[dict[str, Any]]]) -> None:
    listed = _listed(shown, study)
    assert {
        schedule_id: {file["artifact_id"] for file in files}
        for schedule_id, files in listed.items()
    } == {
        schedule_id: {file["artifact_id"] for file in files}
        for schedule_id, files in before.items()
    }
    for schedule_id, files in listed.items():
        assert {ask(shown, file["path"]).status for file in files} == {200}
        (told,) = [file for file in files if file["filename"].endswith(".json")]
        assert Schedule.from_dict(ask(shown, told["path"]).json).id == schedule_id


def test_a_folder_that_is_not_there_is_a_plain_404(database: str, tmp_path: Path) -> None:
    with application(database, Access(), artifacts=tmp_path / "elsewhere") as shown:
        for files in _listed(shown).values():
            assert ask(shown, files[0]["path"]).status == 404
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_written_is_refused(database: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidConfig, match="artifacts: cannot write into"):
        publish(database, NAME, artifacts=tmp_path / "file")


def test_other_databases_have_no_folder_of_their_own(tmp_path: Path) -> None:
    server = "postgresql+psycopg://someone@host/name"
    assert artifacts_folder(server) is None
    assert artifacts_folder(server, tmp_path) == tmp_path
    assert artifacts_folder("sqlite:///a/b.db") == Path("a/b.db.artifacts")
