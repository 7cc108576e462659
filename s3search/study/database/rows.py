"""What became of a question to a worker, and the same as a row of our tables and back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from s3search.evaluation.record import Evaluation, EvaluationRequest, Rung
from s3search.schedules.schedule import Schedule
from s3search.search.proposer import Proposal


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Where and how long an evaluation ran, whether or not it succeeded."""

    worker: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a request: an evaluation, or the reason why there is none."""

    request: EvaluationRequest
    evaluation: Evaluation | None
    error: str | None
    spent: Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What became of one trial of the search; ``value`` is None where it failed or left a race,
    ``path`` has its distances by number of images.
    """

    schedule_id: str
    nfe: int
    value: float | None
    n_images: int
    path: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Job:
    """A question to a worker beside evaluations, and its answer or the error."""

    kind: str
    digest: str
    result: Any
    error: str | None
    network_calls: int
    spent: Spent


def proposal_rows(study_id: int, proposals: Sequence[Proposal]) -> list[dict[str, Any]]:
    """Rows of `s3search.study.database.tables.PROPOSALS`."""
    return [
        {
            "study_id": study_id,
            "number": proposal.number,
            "schedule_id": proposal.schedule.id,
            "origin": proposal.origin,
            "parents": json.dumps(list(proposal.parents)),
            "created_at": now(),
        }
        for proposal in proposals
    ]


def proposal_of(row: Any) -> Proposal:
    """The proposal of a row that was joined with its schedule's content."""
    return Proposal(
        number=row.number,
        schedule=Schedule.from_dict(json.loads(row.content)),
        origin=row.origin,
        parents=tuple(json.loads(row.parents)),
    )


def result_row(study_id: int, result: Result) -> dict[str, Any]:
    """A row of `s3search.study.database.tables.EVALUATIONS`."""
    request, evaluation = result.request, result.evaluation
    values: dict[str, Any] = {
        "study_id": study_id,
        "schedule_id": request.schedule.id,
        "nfe": request.schedule.nfe,
        "rung": request.rung.value,
        "n_images": request.n_images,
        "noise_seed": str(request.noise_seed),
        "state": "failed" if evaluation is None else "complete",
        "error": result.error,
        "worker": result.spent.worker,
        "seconds": result.spent.seconds,
        "created_at": now(),
    }
    if evaluation is not None:
        measured = asdict(evaluation)
        for key in ("rung", "noise_seed", "witness"):
            measured.pop(key)
        values |= measured | {"network_calls": evaluation.network_calls}
        values |= {"rung": evaluation.rung.value, "path": json.dumps(evaluation.path)}
        if evaluation.replicates is not None:
            values["replicates"] = json.dumps(evaluation.replicates)
    return values


def result_of(row: Any) -> Result:
    """The result of a row that was joined with its schedule's content."""
    request = EvaluationRequest(
        schedule=Schedule.from_dict(json.loads(row.content)),
        rung=Rung(row.rung),
        n_images=row.n_images,
        noise_seed=int(row.noise_seed),
    )
    evaluation = None
    if row.state == "complete":
        names = {field.name for field in fields(Evaluation)} - {"witness"}
        kept = {name: getattr(row, name) for name in names}
        kept |= {"rung": request.rung, "noise_seed": request.noise_seed}
        kept["path"] = tuple(_path(row.path).items())
        kept["replicates"] = None if row.replicates is None else tuple(json.loads(row.replicates))
        evaluation = Evaluation(**kept)
    spent = Spent(worker=row.worker, seconds=row.seconds)
    return Result(request=request, evaluation=evaluation, error=row.error, spent=spent)


def searched(result: Result) -> Searched:
    """What a resumed search will know of a result."""
    request, evaluation = result.request, result.evaluation
    whole = evaluation is not None and evaluation.rung is Rung.SEARCH
    return Searched(
        schedule_id=request.schedule.id,
        nfe=request.schedule.nfe,
        value=evaluation.value if evaluation is not None and whole else None,
        n_images=request.n_images if evaluation is None else evaluation.n_images,
        path={} if evaluation is None else dict(evaluation.path),
    )


def searched_of(row: Any) -> Searched:
    """The same of a row, whose schedule is not read."""
    whole = row.rung == Rung.SEARCH.value
    return Searched(
        schedule_id=row.schedule_id,
        nfe=row.nfe,
        value=row.value if whole else None,
        n_images=row.n_images,
        path=_path(row.path),
    )


def _path(content: str | None) -> dict[int, float]:
    return {int(n): float(value) for n, value in json.loads(content or "[]")}


def job_row(study_id: int, job: Job) -> dict[str, Any]:
    """A row of `s3search.study.database.tables.JOBS`."""
    return {
        "study_id": study_id,
        "kind": job.kind,
        "digest": job.digest,
        "state": "complete" if job.error is None else "failed",
        "result": json.dumps(job.result if job.error is None else job.error),
        "network_calls": job.network_calls,
        "seconds": job.spent.seconds,
        "worker": job.spent.worker,
        "created_at": now(),
    }


def job_of(row: Any) -> Job:
    """The job of a row."""
    content = json.loads(row.result)
    failed = row.state == "failed"
    spent = Spent(worker=row.worker, seconds=row.seconds)
    result, error = (None, content) if failed else (content, None)
    return Job(row.kind, row.digest, result, error, row.network_calls, spent)


def now() -> datetime:
    """UTC without a zone, as every time in our tables."""
    return datetime.now(UTC).replace(tzinfo=None)
