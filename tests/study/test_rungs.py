"""What `status` says of every rung of a finished search."""

import json
from pathlib import Path
from typing import Any

import pytest

from s3search.run.launching import launch
from s3search.show.terminal.status import status_lines
from s3search.study.database.store import open_study
from s3search.study.results.frame import status_of
from tests.support.studies import searched_study, study_config

_LADDER = 'search.ladder=["gaussian", "trajectory", "race", "polish"]'


@pytest.fixture(scope="module")
def status(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a study with a free proxy, the trajectory, the race and the polish."""
    changes = ["search.algorithm=s3", "search.evaluations=170", "search.n_images=80"]
    config = study_config(tmp_path_factory.mktemp("study"), *changes, _LADDER)
    launch(config, lambda _: None)
    with open_study(config.storage.url, "t") as store:
        return status_of(store)


def test_every_rung_has_its_cost_and_its_worth(status: dict[str, Any]) -> None:
    rows = status["ladder"]
    finals = next(row["images"] for row in rows if row["rung"] == "finals")
    assert 2 * 80 <= finals <= 5 * 80
    assert [(row["rung"], row["images"], row["next"]) for row in rows] == [
        ("gaussian", 0, "trajectory"),
        ("trajectory", 10, "FD@10"),
        ("FD@10", 10, "FD@20"),
        ("FD@20", 20, "FD@40"),
        ("FD@40", 40, "FD@80"),
        ("FD@80", 80, "finals"),
        ("finals", finals, "validation"),
        ("validation", 60, None),
    ]
    assert all(row["seconds"] > 0 for row in rows)
    for row in rows[:5]:  # those measured first, by every rung
        assert row["seeds"]["n"] == 12
    for row in rows[:7]:
        assert row["end"]["n"] >= 2
        assert -1 <= (row["end"]["correlation"] or 0) <= 1
    assert rows[6]["seeds"] is None
    assert all(row["used"] for row in rows if row["rung"] != "trajectory")
    json.dumps(status)


def test_the_trajectory_counts_in_the_budget(status: dict[str, Any]) -> None:
    ledger = status["ledger"]
    assert ledger["trajectory"]["network_calls"] >= 12 * 10 * 3 + 10 * 32
    spent = sum(v["network_calls"] for k, v in ledger.items() if k != "validation")
    assert spent < 1.1 * 170 * 80 * 3


def test_the_notes_of_the_predictor_stand_apart(status: dict[str, Any]) -> None:
    assert status["predictor"] == []


def test_status_prints_a_line_for_each_rung(status: dict[str, Any]) -> None:
    lines = list(status_lines([status]))
    shown = [line for line in lines if line.startswith("    3  ")]
    assert [line.split()[1] for line in shown] == [row["rung"] for row in status["ladder"]]
    (fd,) = (line for line in shown if line.split()[1] == "FD@20")
    assert "FD@40" in fd and "; 12)" in fd


def test_status_says_what_was_left_out(status: dict[str, Any]) -> None:
    rows = [{**row, "used": row["rung"] != "trajectory"} for row in status["ladder"]]
    left = [x for x in status_lines([{**status, "ladder": rows}]) if x.endswith(", left out")]
    assert [line.split()[1] for line in left] == ["trajectory"]


def test_a_study_of_another_algorithm_has_no_ladder(tmp_path: Path) -> None:
    config = searched_study(tmp_path)
    with open_study(config.storage.url, "t") as store:
        status = status_of(store)
    assert status["ladder"] == []
