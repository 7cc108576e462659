"""A finished study whose held-out distances a test sets, and the places that say what it found."""

import json
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3search.cli import run
from s3search.run.found import SearchResult
from s3search.run.launching import launch
from s3search.schedules.schedule import Schedule
from s3search.show.dashboard.note import note_text
from s3search.show.report.data import collect
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig
from s3search.study.results.comparison import comparison_of
from s3search.study.results.coverage import BASELINES
from tests.show.report.test_report import Page
from tests.support.studies import study_config

NFE = 2  # so that few configurations have one of every solver among them
FOUND, N_IMAGES = 0.2, 200
_MOST_PUBLISHED = 24
_SPREAD = np.linspace(-0.03, 0.03, 41)  # of the replicates, alike for all schedules


def overrides() -> tuple[str, ...]:
    """What makes the study of `studies.study_file` one with all solvers and a validation."""
    return (
        f"space.nfe=[{NFE}]",
        f"search.evaluations={_MOST_PUBLISHED}",
        f"validation.n_images={N_IMAGES}",
    )


def finished(folder: Path) -> StudyConfig:
    """The study, run to its end."""
    config = study_config(folder, *overrides())
    launch(config, lambda _: None)
    return config


def published(config: StudyConfig) -> list[str]:
    """The labels of the validated published schedules, the nearest first."""
    with open_study(config.storage.url, "t") as store:
        return [row["name"] for row in comparison_of(store)["rows"] if row["is_baseline"]]


def settle(
    config: StudyConfig, distances: Mapping[str, float], *, others: float, spread: float = 0.0
) -> None:
    """Gives published schedules their held-out ``distances``, by their labels, and the ``others``
    theirs; what the search found is at `FOUND`.  With ``spread`` their noise is not that of what
    was found, so that a difference of less than it may be 0.
    """
    with closing(sqlite3.connect(_file(config))) as connection:
        rows = connection.execute(
            "SELECT e.id, p.origin FROM s3search_evaluations e JOIN s3search_proposals p "
            "ON p.schedule_id = e.schedule_id WHERE e.rung = 'validation' ORDER BY p.number DESC"
        ).fetchall()
        for row, origin in rows:
            label = origin.removeprefix("baseline: ")
            is_found = label == origin
            value = FOUND if is_found else distances.get(label, others)
            own = 0.0 if is_found else spread
            connection.execute(
                "UPDATE s3search_evaluations SET value = ?, replicates = ? WHERE id = ?",
                (value, json.dumps([value + e + own * s for e, s in _noise()]), row),
            )
        connection.commit()


def note(config: StudyConfig, stock: Iterable[str], **changes: Any) -> None:
    """What a launch notes of the published configurations that there are: as many as were
    measured, unless told otherwise.
    """
    content = {"nfe": NFE, "known": n_measured(config), "stock": list(stock), "missing": {}}
    with open_study(config.storage.url, "t") as store:
        store.add_note(BASELINES, content | changes)


def forget(config: StudyConfig) -> None:
    """Takes what launches noted, as if an earlier release had made the study."""
    with closing(sqlite3.connect(_file(config))) as connection:
        connection.execute("DELETE FROM s3search_notes WHERE kind = ?", (BASELINES,))
        connection.commit()


def n_measured(config: StudyConfig) -> int:
    """The published configurations that were measured."""
    with open_study(config.storage.url, "t") as store:
        return int(comparison_of(store)["claims"][0]["coverage"]["measured"])


def places(config: StudyConfig, folder: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, str]:
    """All texts that say what a study found, by where they stand, on one line each."""
    at = ("--storage", config.storage.url)
    schedule, page = folder / "best.json", folder / "report.html"
    commands = {
        "launch": ("launch", folder / "study.toml", *_sets()),
        "best": ("best", "t", *at),
        "compare": ("compare", "t", *at),
        "export": ("export", "t", "-o", schedule, *at),
        "report": ("report", "t", "--no-samples", "-o", page, *at),
    }
    texts = {name: _printed(capfd, *words) for name, words in commands.items()}
    with open_study(config.storage.url, "t") as store:
        python, body = repr(SearchResult.of(store, is_kept=True)), note_text(collect(store))
    texts |= {
        "report": Page(page.read_text(encoding="utf-8")).text,
        "provenance": " ".join(Schedule.load(schedule).provenance["claim"]["says"]),
        "python": python,
        "note": body.replace("\\", ""),
    }
    return {name: " ".join(text.split()) for name, text in texts.items()}


def _sets() -> list[str]:
    return [word for each in overrides() for word in ("--set", each)]


def _printed(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["s3search", *map(str, words)])
        code = run()
    said = capfd.readouterr()
    assert code == 0, said.err
    return said.out


def _file(config: StudyConfig) -> str:
    return config.storage.url.removeprefix("sqlite:///")


def _noise() -> list[tuple[float, float]]:
    return [(float(e), (-1.0) ** i) for i, e in enumerate(_SPREAD)]
