"""Trials, measurements and answers as rows of our tables, and back."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from s3search.schedules.schedule import Schedule
from s3search.search.direction import Direction
from s3search.search.questions import Answer, Job, Measure, Measurement, Rung
from s3search.search.trial import Origin, Trial

_JSON = ("path", "replicates", "guards")  # columns that hold JSON


def trial_rows(study_id: int, trials: Mapping[int, Trial]) -> list[dict[str, Any]]:
    """Rows of `s3search.study.database.tables.PROPOSALS`, by the trials' numbers there."""
    return [
        {
            "study_id": study_id,
            "number": number,
            "schedule_id": trial.id,
            "origin": trial.origin.text,
            "parents": json.dumps(list(trial.parents)),
            "created_at": now(),
        }
        for number, trial in trials.items()
    ]


def trial_of(row: Any, read: Callable[[], Schedule]) -> Trial:
    """The trial of a row that was joined with its schedule's nfe and plan key."""
    return Trial(
        id=row.schedule_id,
        nfe=row.nfe,
        origin=Origin.of_text(row.origin),
        parents=tuple(_list(row.parents)),
        number=row.number,
        source=read,
        stored_key=None if row.plan_key is None else bytes.fromhex(row.plan_key),
    )


def measurement_row(study_id: int, measured: Measurement) -> dict[str, Any]:
    """A row of `s3search.study.database.tables.EVALUATIONS`."""
    has_failed = measured.estimate is None
    table = measured.table()
    values = {
        "study_id": study_id,
        "state": "failed" if has_failed else "complete",
        "error": measured.error,
        "worker": measured.worker,
        "created_at": now(),
        **table,
        "noise_seed": str(measured.question.noise_seed),
    }
    for name in _JSON:
        values[name] = None if has_failed or table[name] is None else json.dumps(table[name])
    if has_failed:
        values |= dict.fromkeys(("block_images", "network_batches", "network_calls"))
    return values


def measurement_of(
    row: Any, question: Measure, direction: Direction, *, is_paid: bool = False
) -> Measurement:
    """What became of a question of the search, as its row says."""
    has_failed = row.value is None
    whole = row.rung != Rung.STOPPED.value
    return Measurement(
        question=question,
        estimate=row.value,
        direction=direction,
        guards=tuple(_list(row.guards)),
        error=row.error if has_failed else None,
        n_images=0 if has_failed else question.n_images if whole else row.n_images,
        is_paid=is_paid,
        path={int(n): float(value) for n, value in _list(row.path)},
        standard_error=row.standard_error,
        seconds=row.seconds,
    )


def answer_row(study_id: int, answer: Answer) -> dict[str, Any]:
    """A row of `s3search.study.database.tables.JOBS`."""
    question, error = answer.question, answer.error
    content = question.to_json(answer.value) if error is None else error
    return {
        "study_id": study_id,
        "kind": question.kind,
        "digest": question.key,
        "state": "complete" if error is None else "failed",
        "result": json.dumps(content),
        "network_calls": answer.network_calls,
        "seconds": answer.seconds,
        "worker": answer.worker,
        "created_at": now(),
    }


def answer_of(row: Any, question: Job) -> Answer:
    """What became of a job, as its row says."""
    content = json.loads(row.result)
    has_failed = row.state == "failed"
    return Answer(
        question=question,
        value=None if has_failed else question.of_json(content),
        error=content if has_failed else None,
        network_calls=row.network_calls,
        seconds=row.seconds,
        worker=row.worker,
    )


def _list(content: str | None) -> list[Any]:
    """A list of a JSON column, most of which are empty."""
    found: list[Any] = [] if content in (None, "[]") else json.loads(str(content))
    return found


def now() -> datetime:
    """UTC without a zone, as every time in our tables."""
    return datetime.now(UTC).replace(tzinfo=None)


def schedule_rows(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Rows of `s3search.study.database.tables.SCHEDULES`, each schedule once."""
    wanted = {trial.id: trial for trial in trials}
    return [
        {
            "id": trial.id,
            "nfe": trial.nfe,
            "content": json.dumps(trial.schedule.to_dict()),
            "plan_key": trial.key.hex(),
        }
        for trial in wanted.values()
    ]
