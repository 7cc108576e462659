"""What the driver itself costs: ``python -m tests.benchmarks.bench_driver [--full] [--study]
[--s3 N] [--postgres URL] [--only DATABASE] [--algorithms NAME ...]``.

Into studies with 0, 1,000 and 10,000 stored evaluations (``--full``: 50,000 too) go 200 more, one
at a time, as the log does it: milliseconds of a trial, of its measurement and of its Optuna trial,
and of this process's processor for all three.
Then such a study is resumed: seconds until the log knows all that was measured, and of these for
the trials that Optuna has.  For each algorithm follow the seconds from the start of a resumed
driver to its first new trial, milliseconds of a trial then (16 under way, told as they come), and
these with the bookkeeping.  SQLite, and PostgreSQL where a server answers (each run makes a
database of its own and drops it).  ``--study`` measures instead the driver's own share of a search
of the digits model with 150 evaluations in this process: the wall time less what the worker's
calls took.  ``--s3 N`` runs `s3` for the images of N evaluations with made-up answers, and again:
seconds of the first run, and of the second, which asks nothing anew.
"""

import argparse
import itertools
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from s3search.cluster import InlinePool
from s3search.cluster.asking import Asker, described
from s3search.evaluation.record import ProxyScores, Reply, Request
from s3search.processes import edm
from s3search.run.algorithms import proposer_of
from s3search.run.driver import Driver
from s3search.run.launching import space_of, workers
from s3search.run.prepare import prepare
from s3search.schedules.published import baselines
from s3search.search.algorithms.s3 import S3
from s3search.search.algorithms.sequential import Proposer, Sequential
from s3search.search.conversation import Answers, Conversation, Outside, Setup
from s3search.search.edit.draft import random_schedule
from s3search.search.ladder import DEFAULT_LADDER, LadderRung
from s3search.search.questions import Measure, Measurement, Rung, Score
from s3search.search.space import Problem, load_space
from s3search.search.trial import Trial, searched
from s3search.study.database.rows import measurement_row, schedule_rows, trial_rows
from s3search.study.database.store import StudyStore, create_or_resume
from s3search.study.database.tables import EVALUATIONS, PROPOSALS, SCHEDULES
from s3search.study.file.config import StudyConfig, parse_config
from s3search.study.log import Log
from tests.support.searches import measured, setup_of

Seconds = npt.NDArray[np.float64]

_MORE = 200
_UNDER_WAY = 16
_ALGORITHMS = ("random", "evolution", "usf")
_NFE = 5
_POSTGRES = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"


def _config(url: str, algorithm: str = "random") -> StudyConfig:
    return parse_config(
        {
            "study": {"name": "driver"},
            "model": {"loader": "digits"},
            "space": {"preset": "usf", "nfe": [_NFE]},
            "metric": {"features": "digits"},
            "reference": {"images": "digits"},
            "search": {"evaluations": 150, "algorithm": algorithm},
            "storage": {"url": url},
            "cluster": {"address": "inline"},
        }
    )


def _measured(config: StudyConfig, trial: Trial, value: float) -> Measurement:
    question = Measure(
        trial=trial,
        rung=Rung.SEARCH,
        n_images=config.search.n_images,
        noise_seed=config.search_noise_seed,
    )
    return Measurement(
        question=question,
        estimate=value,
        n_images=question.n_images,
        standard_error=0.01,
        metric="frechet",
        extractor="digits",
        reference_digest="r",
        reference_n=1000,
        model_fingerprint="m",
        network_batches=trial.nfe,
        sampling_seconds=0.4,
        seconds=0.5,
        worker="here/1",
        device="cpu",
        code_version="0",
    )


def _made(config: StudyConfig, first: int, n: int) -> Iterator[tuple[int, Measurement]]:
    """``n`` numbers from ``first`` on, and what was measured of their trials."""
    rng = np.random.default_rng(first)
    space, process = load_space("usf"), edm()
    for number in range(first, first + n):
        schedule = random_schedule(Problem(space, process), _NFE, rng)
        trial = Trial.of(schedule, searched("mutation"), number=number)
        yield number, _measured(config, trial, float(rng.exponential()))


def _chunks(each: Iterator[tuple[int, Measurement]]) -> Iterator[list[tuple[int, Measurement]]]:
    while chunk := list(itertools.islice(each, 500)):
        yield chunk


def _fill(store: StudyStore, first: int, n: int) -> None:
    """The same rows as `_add`, in a few transactions; the study is alone in its database."""
    engine = sa.create_engine(store.config.storage.url)
    for chunk in _chunks(_made(store.config, first, n)):
        trials = {number: each.trial for number, each in chunk}
        with engine.begin() as connection:
            connection.execute(SCHEDULES.insert(), schedule_rows(list(trials.values())))
            connection.execute(PROPOSALS.insert(), trial_rows(1, trials))
            connection.execute(EVALUATIONS.insert(), [measurement_row(1, m) for _, m in chunk])
        for number, each in chunk:
            store.mirror.add(number, each.trial, each)
    engine.dispose()


def _add(store: StudyStore, first: int, n: int) -> Seconds:
    """Of ``n`` trials from number ``first`` on, of their measurements, of their Optuna trials; and
    of the processor in this process for the three.
    """
    seconds = np.zeros(4)
    for number, each in _made(store.config, first, n):
        cpu, began = time.process_time(), time.perf_counter()
        store.add_trials({number: each.trial})
        proposed = time.perf_counter()
        store.add_measurement(each)
        stored = time.perf_counter()
        store.mirror.add(number, each.trial, each)
        seconds[:3] += np.diff([began, proposed, stored, time.perf_counter()])
        seconds[3] += time.process_time() - cpu
    began = time.perf_counter()
    store.mirror.flush()
    seconds[2] += time.perf_counter() - began
    return seconds


def _idle() -> Any:
    raise AssertionError("nothing is asked of the workers")


def _converse(
    log: Log,
    conversation: Conversation[Any],
    asker: Asker | None = None,
    outside: Outside | None = None,
) -> None:
    """As the driver does it, without its counts."""
    told, answers = outside or Outside(budget=1e12), None
    while True:
        try:
            ask = next(conversation) if answers is None else conversation.send(answers)
        except StopIteration:
            return
        unknown = log.begin(ask)
        if asker is not None:
            asker.begin(unknown)
            for answer in asker.answers():
                log.add(answer)
        answers = log.answers(ask, lambda: told)
        assert isinstance(answers, Answers)


def _resume(config: StudyConfig) -> tuple[float, float]:
    """Seconds of a log that knows a study, and of those for its trials."""
    began = time.perf_counter()
    with create_or_resume(config, {}) as store:
        opened = time.perf_counter()
        store.mirror.numbers()
        mirrored = time.perf_counter() - opened
        Log(store)
        return time.perf_counter() - began, mirrored


class _Replayed(Exception):
    """All that was stored is told."""


class _Stopping:
    """A proposer that stops where the first new trial is asked of it."""

    def __init__(self, proposer: Proposer) -> None:
        self.proposer = proposer
        self.tell = proposer.tell

    def propose(self, number: int, pending: Sequence[Trial]) -> Trial:
        self.proposer.propose(number, pending)
        raise _Replayed


def _clocks() -> Seconds:
    return np.array([time.perf_counter(), time.process_time()])


def _setup(**changes: Any) -> Setup:
    return setup_of(load_space("usf"), edm(), nfe=[_NFE], n_images=1000, **changes)


def _proposals(config: StudyConfig, algorithm: str) -> tuple[Seconds, Seconds]:
    """Seconds from the start to the first new trial, and milliseconds of those after it: as they
    passed, and of this process's processor.
    """
    began = _clocks()
    with create_or_resume(config, {}) as store:
        log, setup = Log(store), _setup(batch=_UNDER_WAY)
        proposer = proposer_of(algorithm, setup)()
        stopping = _Stopping(proposer)
        search = Sequential(setup, lambda: stopping, n_seeds=0)
        with suppress(_Replayed):
            _converse(log, search.run())
        replayed = _clocks() - began
        n, rng = len(store.trials()), np.random.default_rng(0)
    pending: deque[Trial] = deque()
    began = _clocks()
    for k in range(n, n + _MORE):
        pending.append(proposer.propose(k, list(pending)))
        if len(pending) == _UNDER_WAY:
            proposer.tell(measured(pending.popleft(), float(rng.exponential())))
    return replayed, 1000 * (_clocks() - began) / _MORE


def _made_up(request: Request) -> Reply:
    """An answer at once, that depends on the schedule alone."""
    match request:
        case Measure():
            value = 0.1 + int(request.trial.id[:8], 16) / 2**32
            path = {n: value + 1.0 / n for n, _ in request.thresholds}
            above = [n for n, most in request.thresholds if path[n] > most]
            n_images = above[0] if above else request.n_images
            found = _measured(_config("sqlite://"), request.trial, value)
            return replace(found, question=request, n_images=n_images, path=path)
        case Score():
            scores = tuple(int(trial.id[8:16], 16) / 2**32 for trial in request.trials)
            return ProxyScores(scores=scores, network_calls=0)
    raise AssertionError(f"{request} is not asked here")


def replay(evaluations: int) -> None:
    """Prints how long `s3` takes with made-up answers, and from its own log."""
    given = dict(list(baselines(edm(), _NFE).items())[::4])
    with tempfile.TemporaryDirectory() as folder:
        config = _config(f"sqlite:///{Path(folder) / 'study.db'}", "s3")
        ladder = tuple(rung for rung in DEFAULT_LADDER if rung is not LadderRung.POLISH)
        setup = _setup(seeds=given, evaluations=evaluations, ladder=ladder)
        for name in ("asked", "from the log"):
            began = _clocks()
            pool: InlinePool[Request, Reply] = InlinePool(lambda: _made_up)
            with create_or_resume(config, {}) as store:
                log, asker = Log(store), Asker(pool)
                budget = Outside(budget=evaluations * setup.n_images)
                _converse(log, S3(setup).run(), asker, budget)
                n = len(store.measured())
            seconds = _clocks() - began
            print(f"s3, {n:,} measurements, {name}: {seconds[0]:.1f} s ({seconds[1]:.1f})")


def _bookkeeping(url: str, sizes: tuple[int, ...], algorithms: Sequence[str]) -> None:
    config, n = _config(url), 0
    database = sa.make_url(url).get_backend_name()
    for size in sizes:
        with create_or_resume(config, {}) as store:
            store.mirror.open()
            _fill(store, n, size - n)
            per_one = 1000 * _add(store, size, _MORE) / _MORE
        n = size + _MORE
        resumed = " ".join(f"{seconds:9.2f}" for seconds in _resume(config))
        own = float(per_one[:3].sum())
        print(
            f"{database:18} {size:8,} {per_one[0]:11.2f} {per_one[1]:9.2f} "
            f"{per_one[2]:8.2f} {own:8.2f} {per_one[3]:8.2f} {resumed}",
            flush=True,
        )
        for algorithm in algorithms:
            replayed, proposing = _proposals(config, algorithm)
            print(
                f"  {algorithm:16} first new proposal after {replayed[0]:6.2f} s (processor "
                f"{replayed[1]:6.2f}), then {proposing[0]:6.2f} ms each ({proposing[1]:6.2f}), "
                f"with the rows {proposing[0] + own:6.2f} ({proposing[1] + per_one[3]:6.2f})",
                flush=True,
            )


@contextmanager
def _postgres(url: str) -> Iterator[str | None]:
    """A new database of the server, or None where none answers."""
    name = f"s3search_bench_{uuid.uuid4().hex[:8]}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            connection.execute(sa.text(f"create database {name}"))
    except (sa.exc.OperationalError, ModuleNotFoundError):
        yield None
        return
    try:
        made = sa.make_url(url).set(database=name)
        yield made.render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(sa.text(f"drop database {name}"))


def bookkeeping(
    sizes: tuple[int, ...], postgres: str, algorithms: Sequence[str], only: str | None
) -> None:
    """Prints the costs in both databases, or in the one."""
    print(
        "database             stored proposal ms result ms trial ms   sum ms   cpu ms  resume s  "
        "trials s"
    )
    if only != "postgresql":
        with tempfile.TemporaryDirectory() as folder:
            _bookkeeping(f"sqlite:///{Path(folder) / 'study.db'}", sizes, algorithms)
    if only == "sqlite":
        return
    with _postgres(postgres) as url:
        if url is None:
            print("no PostgreSQL answers: name one with --postgres")
        else:
            _bookkeeping(url, sizes, algorithms)


def share(algorithm: str) -> None:
    """Prints the driver's part of the wall time of a whole study."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'study.db'}"
        config = _config(url, algorithm)
        space = space_of(config)
        with workers(config) as pool:
            start = prepare(config, space, described(pool))
            worked, collect = [0.0], pool.collect

            def timed(timeout: float | None = None) -> Any:
                outcomes = list(collect(timeout))
                worked[0] += sum(outcome.seconds for outcome in outcomes)
                return outcomes

            pool.collect = timed  # type: ignore[method-assign]  # a clock around the worker
            began = time.perf_counter()
            with create_or_resume(config, space.model_dump(mode="json")) as store:
                Driver(store, pool, start, lambda _: None).run()
            wall = time.perf_counter() - began
    own = wall - worked[0]
    print(f"{algorithm:10} wall {wall:6.1f} s, driver {own:5.2f} s, {100 * own / wall:4.1f} %")


def main(
    *,
    full: bool = False,
    study: bool = False,
    s3: int | None = None,
    postgres: str = _POSTGRES,
    algorithms: Sequence[str] = _ALGORITHMS,
    only: str | None = None,
) -> None:
    """Prints the bookkeeping, or the share of a study."""
    if s3 is not None:
        replay(s3)
    elif study:
        for algorithm in ("random", "s3"):
            share(algorithm)
    else:
        sizes = (0, 1_000, 10_000, *((50_000,) if full else ()))
        bookkeeping(sizes, postgres, algorithms, only)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--study", action="store_true")
    parser.add_argument("--s3", type=int, metavar="N")
    parser.add_argument("--postgres", default=_POSTGRES, metavar="URL")
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    parser.add_argument("--algorithms", default=_ALGORITHMS, nargs="*", metavar="NAME")
    main(**vars(parser.parse_args()))
