"""What `s3search status` prints of a study's costs."""

from typing import Any

from s3search.show.terminal.status import status_lines

_STUDY: dict[str, Any] = {
    "study": "t",
    "state": "done",
    "evaluations": 3,
    "budget": None,
    "budget_words": "300 evaluations x 1,000 images",
    "budget_share": 0.6299,
    "measured": 412,
    "baselines": 1,
    "failed": 0,
    "pending": 0,
    "validated": 1,
    "network_calls": 1_250_000,
    "worker_seconds": 90.0,
    "best": {},
    "vetoed": [],
    "ladder": [],
    "gains": [],
}


def test_the_ledger_is_a_line_for_each_rung_the_dearest_first() -> None:
    ledger = {
        "search": {"count": 4, "network_calls": 20_000, "seconds": 10.0},
        "polish": {"count": 2, "network_calls": 1_230_000, "seconds": 80.0},
    }
    lines = [line.split() for line in status_lines([{**_STUDY, "ledger": ledger}])]
    assert lines[1:] == [
        ["spent", "on:"],
        ["count", "network", "calls", "worker", "seconds"],
        ["fine-tuning", "the", "best", "2", "1,230,000", "80.0"],
        ["measuring", "schedules", "4", "20,000", "10.0"],
    ]


def test_a_budget_is_told_as_the_share_that_is_spent() -> None:
    budget = "300 evaluations x 1,000 images"
    for share, told in ((0.6299, "62"), (0.9999, "99"), (1.0, "100")):
        (line,) = status_lines([{**_STUDY, "ledger": {}, "budget_share": share}])
        assert f"{told} % of the budget of {budget}; 412 schedules measured, 1 of them" in line
    (line,) = status_lines([{**_STUDY, "ledger": {}, "budget_share": None}])
    assert line.startswith("t: done, 412 schedules measured")


def test_a_study_that_spent_nothing_has_no_ledger() -> None:
    assert len(list(status_lines([{**_STUDY, "ledger": {}}]))) == 1


def test_what_is_vetoed_is_named_with_its_reason() -> None:
    vetoed = [{"trial": 7, "schedule_id": "0123456789", "reason": "grey"}]
    lines = list(status_lines([{**_STUDY, "ledger": {}, "vetoed": vetoed}]))
    assert lines[1:] == ["  vetoed: trial 7, schedule 01234567: grey"]
