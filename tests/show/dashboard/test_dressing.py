"""Optuna dashboard's pages: an address in place of a schedule, no button for what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import optuna

from s3search.show.dashboard import Access, application
from s3search.study.file.config import StudyConfig
from tests.show.dashboard.client import ask


def _trial(found: Any) -> tuple[str, str, str]:
    """Schedule's id, what stands for the schedule, and the note of the first trial."""
    trial = found.json["trials"][0]
    attributes = {each["key"]: each["value"] for each in trial["user_attrs"]}
    return attributes["schedule_id"], attributes["schedule"], trial["note"]["body"]


def test_trials_name_the_pages_of_their_schedules(finished: StudyConfig, tmp_path: Path) -> None:
    """What a person may edit is as it was written; the database keeps the schedule."""
    shutil.copy(finished.storage.url.removeprefix("sqlite:///"), tmp_path / "study.db")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with application(url, Access()) as read_only, application(url, Access(writable=True)) as open_:
        text = {"body": "a *note*", "version": 1}
        assert ask(open_, "/api/studies/1/1/note", "PUT", content=text).status == 204
        schedule_id, address, note = _trial(ask(read_only, "/api/studies/1"))
        assert address == f"/schedules/{schedule_id}"
        assert note.endswith(f"({address})\n\na *note*")
        assert ask(read_only, address).status == 200
        assert _trial(ask(open_, "/api/studies/1")) == (schedule_id, address, "a *note*")
    (study,) = optuna.get_all_study_summaries(url)
    first = optuna.load_study(study_name=study.study_name, storage=url).trials[0]
    assert json.loads(first.user_attrs["schedule"])["format"] == "s3search.schedule"


def test_pages_have_our_style_sheet(finished: StudyConfig) -> None:
    url = finished.storage.url
    with application(url, Access()) as read_only, application(url, Access(writable=True)) as open_:
        for shown, hides in ((read_only, True), (open_, False)):
            page = ask(
                shown, "/dashboard/studies/1", If_Modified_Since="Fri, 01 Jan 2100 00:00:00 GMT"
            )
            assert page.status == 200 and 'href="/s3search.css"></head>' in page.text
            assert "style-src 'self'" in page.headers["content-security-policy"]
            assert ("delete study" in ask(shown, "/s3search.css").text) is hides
        assert ask(read_only, "/dashboard", "HEAD").body == b""
