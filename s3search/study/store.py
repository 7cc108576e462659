"""The study database: one Optuna study per search, and our own tables beside it.

The driver is the only writer.  Every change is one transaction in our tables first; the Optuna
trial follows and is made again on
resume if a kill fell between the two.  An evaluation is unique by (study, schedule, rung, images,
noise seed), so nothing is ever counted twice.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import select
from sqlalchemy.engine import Engine

from s3search.errors import StudyConflict, nearest
from s3search.evaluation.record import Evaluation, EvaluationRequest, Rung
from s3search.schedules.schedule import Schedule
from s3search.search.proposer import Proposal
from s3search.search.space import SearchSpace
from s3search.study.config import StudyConfig, parse_config
from s3search.study.database import (
    connect_arguments,
    make_safe_for_processes,
    open_engine,
    redacted,
)
from s3search.study.lease import Lease
from s3search.study.retries import ridden_out
from s3search.study.summary import DISTRIBUTIONS, summary
from s3search.study.tables import EVALUATIONS, JOBS, NOTES, PROPOSALS, SCHEDULES, STUDIES

NUMBER_ATTRIBUTE = "s3search:number"


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


@dataclass(frozen=True, slots=True)
class Job:
    """A question to a worker beside evaluations, and its answer or the error."""

    kind: str
    digest: str
    result: Any
    error: str | None
    network_calls: int
    spent: Spent


_SEARCHING = (Rung.SEARCH.value, Rung.RACE.value)


class StudyStore:
    """One study in one database; open it with `create_or_resume` or `open_study`."""

    def __init__(self, engine: Engine, url: str, row: Any) -> None:
        self._engine = engine
        self._url = url
        self._id: int = row.id
        self.name: str = row.name
        stored = {**json.loads(row.config), "storage": {"url": url}}
        self.config = parse_config(stored, source=f"study {row.name!r}")
        self.space: dict[str, Any] = json.loads(row.space)
        self._optuna: tuple[optuna.Study, RDBStorage] | None = None
        self._lease: Lease | None = None

    def __enter__(self) -> "StudyStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hold(self, *, takeover: bool = False) -> None:
        """Makes this the only driver of the study until `close`; raises `StudyConflict` if there
        is another one, unless this one is to take the study over.
        """
        if self._lease is None:
            self._lease = Lease.take(self._url, self._id, self.name, takeover=takeover)

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """A transaction that writes; raises `LeaseLost` if another driver has the study."""
        with self._engine.begin() as connection:
            if self._lease is not None:
                self._lease.check(connection)
            yield connection

    def close(self) -> None:
        """Gives the study free and the connections back."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        if self._optuna is not None:
            storage = self._optuna[1]
            storage.remove_session()
            storage.engine.dispose()
            self._optuna = None
        self._engine.dispose()

    # -- the search ------------------------------------------------------------------------

    @ridden_out
    def add_proposals(self, proposals: Sequence[Proposal]) -> None:
        """Records proposals before they are sent to workers."""
        rows: list[dict[str, Any]] = [
            {
                "study_id": self._id,
                "number": proposal.number,
                "schedule_id": proposal.schedule.id,
                "origin": proposal.origin,
                "parents": json.dumps(list(proposal.parents)),
                "created_at": _now(),
            }
            for proposal in proposals
        ]
        if not rows:
            return
        with self._write() as connection:
            for proposal in proposals:
                self._add_schedule(connection, proposal.schedule)
            known = self._numbered(connection, [proposal.number for proposal in proposals])
            for row in rows:
                if known.get(row["number"], row["schedule_id"]) != row["schedule_id"]:
                    raise StudyConflict(
                        f"study {self.name!r}: proposal {row['number']} already exists; "
                        "another driver is running this study, stop one of them"
                    )
            new = [row for row in rows if row["number"] not in known]
            if new:
                connection.execute(PROPOSALS.insert(), new)

    def _numbered(self, connection: sa.Connection, numbers: Sequence[int]) -> dict[int, str]:
        """Schedule ids of the proposals among these that are there (a lost answer of a commit)."""
        query = select(PROPOSALS.c.number, PROPOSALS.c.schedule_id).where(
            PROPOSALS.c.study_id == self._id, PROPOSALS.c.number.in_(numbers)
        )
        return {row.number: row.schedule_id for row in connection.execute(query)}

    @ridden_out
    def add_result(self, result: Result) -> bool:
        """Records what became of a request, and what the witness says; False if the former was
        known already (it is not written again).
        """
        with self._write() as connection:
            self._add_schedule(connection, result.request.schedule)
            is_new = self._add_row(connection, result)
            witness = None if result.evaluation is None else result.evaluation.witness
            if witness is not None:
                self._add_row(connection, replace(result, evaluation=witness))
        return is_new

    def _add_row(self, connection: sa.Connection, result: Result) -> bool:
        request, evaluation = result.request, result.evaluation
        values: dict[str, Any] = {
            "study_id": self._id,
            "schedule_id": request.schedule.id,
            "nfe": request.schedule.nfe,
            "rung": request.rung.value,
            "n_images": request.n_images,
            "noise_seed": str(request.noise_seed),
            "state": "failed" if evaluation is None else "complete",
            "error": result.error,
            "worker": result.spent.worker,
            "seconds": result.spent.seconds,
            "created_at": _now(),
        }
        if evaluation is not None:
            measured = asdict(evaluation)
            for key in ("rung", "noise_seed", "witness"):
                measured.pop(key)
            values |= measured | {"network_calls": evaluation.network_calls}
            values |= {"rung": evaluation.rung.value, "path": json.dumps(evaluation.path)}
            if evaluation.replicates is not None:
                values["replicates"] = json.dumps(evaluation.replicates)
        known = select(EVALUATIONS.c.id).where(
            EVALUATIONS.c.study_id == self._id,
            EVALUATIONS.c.schedule_id == request.schedule.id,
            EVALUATIONS.c.rung == values["rung"],
            EVALUATIONS.c.n_images == values["n_images"],
            EVALUATIONS.c.noise_seed == str(request.noise_seed),
        )
        if connection.execute(known).first() is not None:
            return False
        connection.execute(EVALUATIONS.insert().values(**values))
        return True

    @ridden_out
    def proposals(self) -> list[Proposal]:
        """All proposals, in order."""
        query = (
            select(PROPOSALS, SCHEDULES.c.content)
            .join(SCHEDULES, SCHEDULES.c.id == PROPOSALS.c.schedule_id)
            .where(PROPOSALS.c.study_id == self._id)
            .order_by(PROPOSALS.c.number)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return [
            Proposal(
                number=row.number,
                schedule=Schedule.from_dict(json.loads(row.content)),
                origin=row.origin,
                parents=tuple(json.loads(row.parents)),
            )
            for row in rows
        ]

    @ridden_out
    def values(self, rung: Rung, n_images: int) -> dict[str, float | None]:
        """Values by schedule id of one rung and size, None if failed."""
        query = select(EVALUATIONS.c.schedule_id, EVALUATIONS.c.value).where(
            EVALUATIONS.c.study_id == self._id,
            EVALUATIONS.c.rung == rung.value,
            EVALUATIONS.c.n_images == n_images,
        )
        with self._engine.begin() as connection:
            return {row.schedule_id: row.value for row in connection.execute(query)}

    @ridden_out
    def n_pending(self) -> int:
        """Proposals without a result at the search rung; a resumed driver runs them first."""
        measured = select(EVALUATIONS.c.schedule_id).where(
            EVALUATIONS.c.study_id == self._id, EVALUATIONS.c.rung.in_(_SEARCHING)
        )
        query = select(sa.func.count()).where(
            PROPOSALS.c.study_id == self._id, PROPOSALS.c.schedule_id.not_in(measured)
        )
        with self._engine.begin() as connection:
            return int(connection.execute(query).scalar_one())

    @ridden_out
    def schedule(self, schedule_id: str) -> Schedule:
        """The schedule behind an id of this study."""
        query = select(SCHEDULES.c.content).where(SCHEDULES.c.id == schedule_id)
        with self._engine.begin() as connection:
            content = connection.execute(query).scalar_one()
        return Schedule.from_dict(json.loads(content))

    @ridden_out
    def search_results(self) -> list[Result]:
        """What became of every trial of the search, as far as a resumed one must know."""
        query = (
            select(EVALUATIONS, SCHEDULES.c.content)
            .join(SCHEDULES, SCHEDULES.c.id == EVALUATIONS.c.schedule_id)
            .where(EVALUATIONS.c.study_id == self._id, EVALUATIONS.c.rung.in_(_SEARCHING))
            .order_by(EVALUATIONS.c.id)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return [_result_of(row, Schedule.from_dict(json.loads(row.content))) for row in rows]

    # -- the workers' other jobs -----------------------------------------------------------

    @ridden_out
    def add_job(self, job: "Job") -> None:
        """Records the answer to a question; one that has an answer keeps it."""
        known = select(JOBS.c.id).where(JOBS.c.study_id == self._id, JOBS.c.digest == job.digest)
        row = JOBS.insert().values(
            study_id=self._id,
            kind=job.kind,
            digest=job.digest,
            state="complete" if job.error is None else "failed",
            result=json.dumps(job.result if job.error is None else job.error),
            network_calls=job.network_calls,
            seconds=job.spent.seconds,
            worker=job.spent.worker,
            created_at=_now(),
        )
        with self._write() as connection:
            if connection.execute(known).first() is None:
                connection.execute(row)

    @ridden_out
    def jobs(self, digests: Sequence[str]) -> dict[str, "Job"]:
        """The questions among these that have an answer."""
        query = select(JOBS).where(JOBS.c.study_id == self._id, JOBS.c.digest.in_(digests))
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return {row.digest: _job_of(row) for row in rows}

    @ridden_out
    def answers(self, kind: str) -> list[Any]:
        """The answers to all questions of a kind, the latest last."""
        query = select(JOBS.c.result).where(
            JOBS.c.study_id == self._id, JOBS.c.kind == kind, JOBS.c.state == "complete"
        )
        with self._engine.begin() as connection:
            found = connection.execute(query.order_by(JOBS.c.id)).scalars().all()
        return [json.loads(content) for content in found]

    @ridden_out
    def job_totals(self) -> dict[str, dict[str, float]]:
        """Count, image-calls and seconds of each kind of job, failures among them."""
        query = (
            select(
                JOBS.c.kind,
                sa.func.count().label("count"),
                sa.func.sum(sa.case((JOBS.c.state == "failed", 1), else_=0)).label("failed"),
                sa.func.sum(JOBS.c.network_calls).label("network_calls"),
                sa.func.sum(JOBS.c.seconds).label("seconds"),
            )
            .where(JOBS.c.study_id == self._id)
            .group_by(JOBS.c.kind)
            .order_by(JOBS.c.kind)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(query).mappings().all()
        return {
            row["kind"]: {key: float(row[key]) for key in row if key != "kind"} for row in rows
        }

    @ridden_out
    def job_costs(self) -> Sequence[Any]:
        """(kind, network_calls, created_at) of every job, in order."""
        query = select(JOBS.c.kind, JOBS.c.network_calls, JOBS.c.created_at)
        with self._engine.begin() as connection:
            of_study = query.where(JOBS.c.study_id == self._id).order_by(JOBS.c.id)
            return connection.execute(of_study).mappings().all()

    @ridden_out
    def add_note(self, kind: str, content: Mapping[str, Any]) -> None:
        """Keeps what a search learned about itself; the same note is kept once."""
        text = json.dumps(dict(content), sort_keys=True)
        digest = hashlib.sha256(f"{kind}{text}".encode()).hexdigest()[:32]
        known = select(NOTES.c.id).where(NOTES.c.study_id == self._id, NOTES.c.digest == digest)
        with self._write() as connection:
            if connection.execute(known).first() is None:
                row = {"study_id": self._id, "kind": kind, "digest": digest, "content": text}
                connection.execute(NOTES.insert().values(**row, created_at=_now()))

    @ridden_out
    def notes(self, kind: str | None = None) -> list[tuple[str, dict[str, Any]]]:
        """(kind, content) of what was noted, in order."""
        query = select(NOTES.c.kind, NOTES.c.content).where(NOTES.c.study_id == self._id)
        if kind is not None:
            query = query.where(NOTES.c.kind == kind)
        with self._engine.begin() as connection:
            rows = connection.execute(query.order_by(NOTES.c.id)).all()
        return [(row.kind, json.loads(row.content)) for row in rows]

    @ridden_out
    def measured_with(self, *, witness: bool = False) -> tuple[str, str, str] | None:
        """Model fingerprint, reference digest and extractor of the first evaluation (of the
        witness's first one); None without one.
        """
        of_witness = EVALUATIONS.c.rung == Rung.WITNESS.value
        query = (
            select(
                EVALUATIONS.c.model_fingerprint,
                EVALUATIONS.c.reference_digest,
                EVALUATIONS.c.extractor,
            )
            .where(
                EVALUATIONS.c.study_id == self._id,
                EVALUATIONS.c.state == "complete",
                of_witness if witness else sa.not_(of_witness),
            )
            .order_by(EVALUATIONS.c.id)
            .limit(1)
        )
        with self._engine.begin() as connection:
            row = connection.execute(query).first()
        return None if row is None else (row[0], row[1], row[2])

    @ridden_out
    def seconds_spent(self) -> float:
        """Worker seconds of all evaluations, failed ones too."""
        query = select(sa.func.coalesce(sa.func.sum(EVALUATIONS.c.seconds), 0.0))
        with self._engine.begin() as connection:
            of_study = query.where(EVALUATIONS.c.study_id == self._id)
            seconds = float(connection.execute(of_study).scalar_one())
        return seconds + sum(each["seconds"] for each in self.job_totals().values())

    @staticmethod
    def row_names() -> list[str]:
        """The columns of `rows`."""
        return [*EVALUATIONS.c.keys(), "number", "origin"]

    @ridden_out
    def rows(self) -> Sequence[Any]:
        """Every evaluation with its first proposal's number and origin where it has one; for
        `frame`.
        """
        evaluations = select(EVALUATIONS).where(EVALUATIONS.c.study_id == self._id)
        columns = (PROPOSALS.c.schedule_id, PROPOSALS.c.number, PROPOSALS.c.origin)
        proposals = select(*columns).where(PROPOSALS.c.study_id == self._id)
        with self._engine.begin() as connection:
            rows = connection.execute(evaluations.order_by(EVALUATIONS.c.id)).mappings().all()
            latest_first = proposals.order_by(PROPOSALS.c.number.desc())
            first = {row.schedule_id: row for row in connection.execute(latest_first)}
        # NOTE: joined here; without an index on both columns SQLite takes time quadratic in trials
        joined = []
        for row in rows:
            proposal = first.get(row["schedule_id"])
            known = (None, None) if proposal is None else (proposal.number, proposal.origin)
            joined.append({**row, "number": known[0], "origin": known[1]})
        return joined

    @property
    @ridden_out
    def state(self) -> str:
        """searching, validating, done, interrupted or failed."""
        query = select(STUDIES.c.state).where(STUDIES.c.id == self._id)
        with self._engine.begin() as connection:
            return str(connection.execute(query).scalar_one())

    @ridden_out
    def set_state(self, state: str) -> None:
        """Records how far the study is."""
        change = STUDIES.update().where(STUDIES.c.id == self._id)
        with self._write() as connection:
            connection.execute(change.values(state=state, updated_at=_now()))

    @ridden_out
    def set_config(self, config: StudyConfig) -> None:
        """Replaces the stored study file (a larger budget, another cluster)."""
        change = STUDIES.update().where(STUDIES.c.id == self._id)
        with self._write() as connection:
            content = _stored(config)
            connection.execute(change.values(config=content, updated_at=_now()))
        self.config = config

    # -- Optuna ----------------------------------------------------------------------------

    def add_trial(self, proposal: Proposal, result: Result) -> None:
        """Mirrors a proposal's result at the search rung as one Optuna trial, in one commit."""
        attempts = itertools.count()
        trial = _trial_of(proposal, result)

        @ridden_out
        def add() -> None:
            is_again = next(attempts) > 0
            if not (is_again and proposal.number in self.mirrored_numbers()):
                self._optuna_study().add_trial(trial)

        add()

    @ridden_out
    def mirrored_numbers(self) -> set[int]:
        """Numbers of the proposals that have their Optuna trial."""
        trials = self._optuna_study().get_trials(deepcopy=False)
        return {
            trial.user_attrs[NUMBER_ATTRIBUTE]
            for trial in trials
            if NUMBER_ATTRIBUTE in trial.user_attrs
        }

    def _optuna_study(self) -> optuna.Study:
        if self._optuna is None:
            self._optuna = _open_optuna(self._url, self.name)
            if self._lease is not None:
                self._lease.guard(self._optuna[1].engine)
        return self._optuna[0]

    def _add_schedule(self, connection: sa.Connection, schedule: Schedule) -> None:
        known = select(SCHEDULES.c.id).where(SCHEDULES.c.id == schedule.id)
        if connection.execute(known).first() is None:
            content = json.dumps(schedule.to_dict())
            row = SCHEDULES.insert().values(id=schedule.id, nfe=schedule.nfe, content=content)
            connection.execute(row)


def create_or_resume(
    config: StudyConfig, space: dict[str, Any], *, takeover: bool = False
) -> StudyStore:
    """The study that ``config`` names, for its only driver: made if it is new, resumed if it is
    there.

    Raises `StudyConflict` if the stored study asks for something else than ``config``, or has
    another driver and this one is not to take it over.
    """
    url = config.storage.url
    engine = open_engine(url, create=True)
    try:
        with engine.begin() as connection:
            row = _row(connection, config.study.name)
            if row is None:
                connection.execute(
                    STUDIES.insert().values(
                        name=config.study.name,
                        config=_stored(config),
                        space=json.dumps(space),
                        state="searching",
                        created_at=_now(),
                        updated_at=_now(),
                    )
                )
                row = _row(connection, config.study.name)
        store = StudyStore(engine, url, row)
        _check_same(store, config, space)
        try:
            store.hold(takeover=takeover)
            store.set_config(config)
        except BaseException:
            store.close()
            raise
    except BaseException:
        engine.dispose()
        raise
    return store


def open_study(url: str, name: str) -> StudyStore:
    """An existing study, for reading; raises `InvalidConfig` or `StudyConflict` if it is not
    there.
    """
    engine = open_engine(url, create=False)
    try:
        with engine.begin() as connection:
            row = _row(connection, name)
            names = connection.execute(select(STUDIES.c.name)).scalars().all()
        if row is None:
            raise StudyConflict(
                f"there is no study {name!r} in {redacted(url)}; "
                + (nearest(name, names) if names else "the database holds no study yet")
            )
        return StudyStore(engine, url, row)
    except BaseException:
        engine.dispose()
        raise


def study_names(url: str) -> list[str]:
    """Names of all studies in a database."""
    engine = open_engine(url, create=False)
    with engine.begin() as connection:
        names = connection.execute(select(STUDIES.c.name).order_by(STUDIES.c.name)).scalars().all()
    engine.dispose()
    return list(names)


def _result_of(row: Any, schedule: Schedule) -> Result:
    request = EvaluationRequest(
        schedule=schedule,
        rung=Rung(row.rung),
        n_images=row.n_images,
        noise_seed=int(row.noise_seed),
    )
    evaluation = None
    if row.state == "complete":
        names = {field.name for field in fields(Evaluation)} - {"witness"}
        kept = {name: getattr(row, name) for name in names}
        kept |= {"rung": request.rung, "noise_seed": request.noise_seed}
        kept["path"] = tuple((int(n), float(v)) for n, v in json.loads(row.path or "[]"))
        kept["replicates"] = None if row.replicates is None else tuple(json.loads(row.replicates))
        evaluation = Evaluation(**kept)
    spent = Spent(worker=row.worker, seconds=row.seconds)
    return Result(request=request, evaluation=evaluation, error=row.error, spent=spent)


def _trial_of(proposal: Proposal, result: Result) -> FrozenTrial:
    schedule, evaluation = proposal.schedule, result.evaluation
    is_baseline = proposal.origin.startswith("baseline")
    attributes: dict[str, Any] = {
        NUMBER_ATTRIBUTE: proposal.number,
        "origin": proposal.origin,
        "schedule_id": schedule.id,
        "schedule": json.dumps(schedule.to_dict()),
        "n_images": result.request.n_images,
    }
    if evaluation is None:
        attributes["error"] = result.error
    else:
        attributes["standard_error"] = evaluation.standard_error
    if evaluation is None:
        state = TrialState.FAIL
    elif evaluation.rung is Rung.RACE:  # its distance is of fewer images than the others'
        state = TrialState.PRUNED
        attributes["n_images"] = evaluation.n_images
        attributes["left_race_at"] = evaluation.value
    else:
        state = TrialState.COMPLETE
    is_whole = evaluation is not None and state is TrialState.COMPLETE
    return create_trial(
        state=state,
        values=[evaluation.value, schedule.nfe] if evaluation and is_whole else None,
        params=summary(schedule, is_baseline=is_baseline),
        distributions=DISTRIBUTIONS,
        user_attrs=attributes,
    )


def _job_of(row: Any) -> Job:
    content = json.loads(row.result)
    failed = row.state == "failed"
    spent = Spent(worker=row.worker, seconds=row.seconds)
    result, error = (None, content) if failed else (content, None)
    return Job(row.kind, row.digest, result, error, row.network_calls, spent)


def _row(connection: sa.Connection, name: str) -> Any:
    return connection.execute(select(STUDIES).where(STUDIES.c.name == name)).first()


def _stored(config: StudyConfig) -> str:
    """The study file as the database keeps it: without its own URL, which may hold a password."""
    return config.model_dump_json(exclude={"storage"})


def _check_same(store: StudyStore, config: StudyConfig, space: dict[str, Any]) -> None:
    old, new = _flat(store.config.identity), _flat(config.identity)
    asked, defaults = _flat(space), _flat(SearchSpace().model_dump(mode="json"))
    # a study of an earlier release has fields that came later at their defaults, which are off
    kept = {key: defaults[key] for key in asked if key in defaults} | _flat(store.space)
    old |= {f"space.{key}": value for key, value in kept.items()}
    new |= {f"space.{key}": value for key, value in asked.items()}
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise StudyConflict(
                f"study {store.name!r} exists with {key} = {old.get(key)!r}, asked for "
                f"{new.get(key)!r}; only budgets, validation, storage and cluster may change: "
                "give the new study another name"
            )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _open_optuna(url: str, name: str) -> tuple[optuna.Study, RDBStorage]:
    optuna.logging.get_logger("optuna").setLevel(optuna.logging.WARNING)
    try:
        storage = RDBStorage(url, engine_kwargs=connect_arguments(url))
    except RuntimeError as error:  # Optuna's word for a schema of another version
        raise StudyConflict(f"storage: {redacted(url)}: {error}") from error
    make_safe_for_processes(storage.engine, writes=True)
    storage.engine.dispose()
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=["minimize", "minimize"],
        load_if_exists=True,
    )
    return study, storage


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
