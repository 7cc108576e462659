"""Whole studies of a user's model in this process: exact budgets, and interruptions that change
nothing.
"""

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from s3search.cluster import InlinePool
from s3search.cluster.asking import described, measured_by
from s3search.errors import EvaluationFailed, InvalidConfig, StudyConflict
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.record import Reply, Request
from s3search.processes import edm
from s3search.run.driver import Driver
from s3search.run.launching import launch, space_of, workers
from s3search.run.prepare import prepare
from s3search.schedules import published
from s3search.schedules.spacing import End, EndRule
from s3search.search.questions import Measure, Rung, measure
from s3search.study.database.store import StudyStore, create_or_resume, open_study
from s3search.study.database.tables import SCHEDULES
from s3search.study.file.config import StudyConfig
from s3search.study.optuna.mirror import OptunaMirror
from s3search.study.results.export import best_schedule
from s3search.study.results.frame import status_of
from s3search.study.results.progress import Progress
from tests.support.studies import FEWER, content, searched_study, study_config
from tests.support.studies import undisturbed as undisturbed_of

BUDGET = 6
QUICK = (FEWER, "search.check=false")
"""What a study does here needs neither many baselines nor a check of its model."""


class Killed(BaseException):
    """Ends a driver without giving it the time to write anything, as kill -9 does."""


def _ignore(_: Progress) -> None:
    pass


def _run_with(config: StudyConfig, worker: Callable[[Evaluator, Request], Reply]) -> None:
    """Runs the study with a worker that does something else than evaluate, now and then."""

    def make_worker() -> Callable[[Request], Reply]:
        return functools.partial(worker, Evaluator(config.evaluator_spec))

    space = space_of(config)
    with InlinePool(make_worker) as pool:
        start = prepare(config, space, described(pool))
        with create_or_resume(config, space.model_dump(mode="json")) as store:
            Driver(store, pool, start, _ignore).run()


def _run_until_done(run: Callable[[], None], stop: type[BaseException]) -> int:
    """Runs again after every interruption; how many there were."""
    for n_stops in range(100):
        try:
            run()
        except stop:
            continue
        return n_stops
    raise AssertionError("the study never ends")


def _config(folder: Path, *overrides: str) -> StudyConfig:
    return study_config(folder, *QUICK, *overrides)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a study holds that ran in one go."""
    return undisturbed_of(tmp_path_factory.mktemp("whole"), *QUICK)


# -- a run in one go -----------------------------------------------------------------------


def test_the_budget_is_spent_exactly_and_baselines_come_first(
    undisturbed: dict[str, Any],
) -> None:
    is_baseline = [origin.startswith("baseline") for _, _, origin, _ in undisturbed["proposals"]]
    n_baselines = sum(is_baseline)
    assert n_baselines > 0
    assert is_baseline == [True] * n_baselines + [False] * BUDGET
    numbers = [number for number, *_ in undisturbed["proposals"]]
    assert numbers == list(range(n_baselines + BUDGET))
    per_rung = Counter((rung, schedule) for rung, schedule, *_ in undisturbed["evaluations"])
    assert set(per_rung.values()) == {1}
    searched = {schedule for rung, schedule in per_rung if rung == "search"}
    assert searched == {schedule for _, schedule, *_ in undisturbed["proposals"]}
    assert [number for number, *_ in undisturbed["trials"]] == numbers
    assert undisturbed["state"] == "done"


def test_the_seed_decides_every_proposal_and_value(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    again = _config(tmp_path)
    launch(again, _ignore)
    assert content(again) == undisturbed
    other = _config(tmp_path, "study.seed=1", "study.name=other")
    launch(other, _ignore)
    found = content(other)["proposals"]
    n_baselines = len(found) - BUDGET
    assert found[:n_baselines] == undisturbed["proposals"][:n_baselines]
    assert not {p[1] for p in found[n_baselines:]} & {p[1] for p in undisturbed["proposals"]}


def test_the_winner_is_chosen_on_images_that_the_search_never_saw(tmp_path: Path) -> None:
    config = searched_study(tmp_path, *QUICK)
    rows = content(config)["evaluations"]
    assert {(r[0], r[2], r[3]) for r in rows} == {("search", 30, "0"), ("validation", 60, "1")}
    with open_study(config.storage.url, "t") as store:
        schedule, scored = best_schedule(store)
    held_out = {row[1]: row[5] for row in rows if row[0] == "validation"}
    searched = {row[1]: row[5] for row in rows if row[0] == "search"}
    assert scored.value == held_out[schedule.id] == min(held_out.values())
    provenance = schedule.provenance
    assert provenance["held_out"]["value"] == scored.value
    assert provenance["search"]["value"] == searched[schedule.id]
    question = measure(schedule, rung=Rung.USER, n_images=60, noise_seed=1, block_images=30)
    with workers(config) as pool:
        (measured,) = measured_by(pool, [question])
    assert measured.value == scored.value
    assert measured.block_value is not None
    assert provenance["optimism"] == measured.block_value - searched[schedule.id]


def test_several_nfe_share_one_study(tmp_path: Path) -> None:
    config = _config(tmp_path, "space.nfe=[2, 4]")
    launch(config, _ignore)
    found = content(config)
    assert sum(not p[2].startswith("baseline") for p in found["proposals"]) == BUDGET
    assert set(found["best"]) == {2, 4}
    with open_study(config.storage.url, "t") as store:
        for nfe in (2, 4):
            schedule, scored = best_schedule(store, nfe)
            assert (schedule.nfe, scored.nfe) == (nfe, nfe)
        searched = {t.nfe for t in store.trials() if not t.origin.is_baseline}
    assert searched == {2, 4}


def test_more_calls_are_never_worse_than_fewer(tmp_path: Path) -> None:
    good = published.unipc(edm(), nfe=3, order=2, variant="bh2", spacing="logsnr")
    bad = published.ddim(edm(), nfe=4, end=End(rule=EndRule.STOP, sigma=2.0))  # noise is left
    for name, schedule in (("good", good), ("bad", bad)):
        schedule.save(tmp_path / f"{name}.json")
    seeds = [str(tmp_path / "good.json"), str(tmp_path / "bad.json")]
    changes = (f"search.seeds={seeds}", "search.baselines=false", "search.evaluations=0")
    config = _config(tmp_path, "space.nfe=[3, 4]", *changes)
    launch(config, _ignore)
    with open_study(config.storage.url, "t") as store:
        fewer, more = (best_schedule(store, nfe) for nfe in (3, 4))
        assert store.schedule(more[0].id).nfe == 4
    assert fewer[0].id == good.id
    assert more[0].id != bad.id
    assert more[1].value == pytest.approx(fewer[1].value, rel=1e-6)


def test_a_space_of_one_schedule_measures_it_once_and_ends(tmp_path: Path) -> None:
    config = study_config(
        tmp_path,
        "space.preset=timesteps",
        "space.nfe=[1]",
        "space.end_rules=['stop']",
        "space.end_sigma=[0.01, 0.01]",
        "search.baselines=false",
    )
    launch(config, _ignore)
    found = content(config)
    assert len(found["proposals"]) == BUDGET
    assert len({p[1] for p in found["proposals"]}) == 1
    assert [row[0] for row in found["evaluations"]] == ["search", "validation"]
    assert len(found["trials"]) == 1


def test_a_budget_of_nothing_is_refused_and_makes_no_study(tmp_path: Path) -> None:
    config = _config(tmp_path, "search.evaluations=0")
    with pytest.raises(InvalidConfig, match=r"search\.evaluations: 0 searches nothing"):
        launch(config, _ignore)
    assert not (tmp_path / "study.db").exists()


def test_progress_counts_to_its_total_in_every_stage(tmp_path: Path) -> None:
    told: list[Progress] = []
    launch(_config(tmp_path), told.append)
    stages = [now.stage for now in told]
    assert sorted(set(stages), key=stages.index) == ["baselines", "search", "validation"]
    for stage in ("search", "validation"):
        last = [now for now in told if now.stage == stage][-1]
        assert last.done == last.total
        assert last.seconds_left is not None
        assert (last.seconds_left > 0) == (stage == "search")  # the validation is still to come
    assert told[-1].best[3] > 0
    assert told[-1].best_baseline[3] > 0


# -- interruptions -------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 4, 6, 7, 10, 12, 13, 15])
def test_an_interruption_changes_nothing(
    tmp_path: Path, undisturbed: dict[str, Any], at: int
) -> None:
    config = _config(tmp_path)
    n_reports = 0

    def interrupt(_: Progress) -> None:
        nonlocal n_reports
        n_reports += 1
        if n_reports == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(config, interrupt)
    with open_study(config.storage.url, "t") as store:
        assert store.state == "interrupted"
        assert len(store.rows()) == at
    launch(config, _ignore)
    assert content(config) == undisturbed


def test_a_study_of_before_the_plan_keys_goes_on_as_exactly(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    config, reports = _config(tmp_path), iter(range(100))

    def interrupt(_: Progress) -> None:
        if next(reports) == len(undisturbed["proposals"]) - 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(config, interrupt)
    engine = sa.create_engine(config.storage.url)
    with engine.begin() as connection:
        connection.execute(SCHEDULES.update().values(plan_key=None))
    engine.dispose()
    launch(config, _ignore)
    assert content(config) == undisturbed


def test_an_interruption_after_every_evaluation_changes_nothing(tmp_path: Path) -> None:
    config, expected = _config(tmp_path), undisturbed_of(tmp_path, *QUICK)

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    stops = _run_until_done(lambda: launch(config, interrupt), KeyboardInterrupt)
    assert stops == len(expected["evaluations"])
    assert content(config) == expected


def test_an_interruption_inside_every_second_evaluation_changes_nothing(tmp_path: Path) -> None:
    config, expected = _config(tmp_path), undisturbed_of(tmp_path, *QUICK)
    n_calls = 0

    def interrupted(evaluator: Evaluator, request: Request) -> Reply:
        nonlocal n_calls
        if isinstance(request, Measure):
            n_calls += 1
            if n_calls % 2:
                raise KeyboardInterrupt
        return evaluator(request)

    stops = _run_until_done(lambda: _run_with(config, interrupted), KeyboardInterrupt)
    assert stops == len(expected["evaluations"])
    assert content(config) == expected


@pytest.mark.parametrize("algorithm", ["random", "usf", "optuna:tpe", "s3"])
def test_other_algorithms_resume_as_exactly(tmp_path: Path, algorithm: str) -> None:
    kept = []
    for at in (0, 8):
        folder = tmp_path / str(at)
        folder.mkdir()
        config = _config(folder, f"search.algorithm={algorithm}")
        n_reports = 0

        def interrupt(_: Progress, at: int = at) -> None:
            nonlocal n_reports
            n_reports += 1
            if n_reports == at:
                raise KeyboardInterrupt

        n_stops = _run_until_done(functools.partial(launch, config, interrupt), KeyboardInterrupt)
        assert n_stops == (at > 0)
        kept.append(content(config))
    assert kept[0] == kept[1]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("owner", "method", "call"),
    [
        (StudyStore, "add_trials", 1),
        (StudyStore, "add_trials", 3),
        (StudyStore, "add_measurement", 1),
        (StudyStore, "add_measurement", 8),
        (StudyStore, "add_measurement", 14),
        (OptunaMirror, "add", 1),
        (OptunaMirror, "add", 9),
        (OptunaMirror, "flush", 2),
        (StudyStore, "set_state", 2),
        (StudyStore, "set_state", 3),
    ],
)
def test_a_kill_around_any_write_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, Any],
    owner: type,
    method: str,
    call: int,
    moment: str,
) -> None:
    config = _config(tmp_path)
    write = getattr(owner, method)
    n_calls = 0

    def killed(self: Any, *args: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls == call and moment == "before":
            raise Killed
        done = write(self, *args)
        if n_calls == call:
            raise Killed
        return done

    leave = StudyStore.__exit__

    def leave_as_killed(store: StudyStore, kind: Any, *reason: Any) -> None:
        if kind is Killed:  # which leaves no time to mirror what waits
            store.mirror._pending.clear()
        leave(store, kind, *reason)

    monkeypatch.setattr(owner, method, killed)
    monkeypatch.setattr(StudyStore, "__exit__", leave_as_killed)
    assert _run_until_done(lambda: launch(config, _ignore), Killed) == 1
    assert content(config) == undisturbed


def test_a_raised_budget_continues_where_the_study_ended(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    searched_study(tmp_path, *QUICK)
    larger = _config(tmp_path, "search.evaluations=10")
    launch(larger, _ignore)
    found = content(larger)
    origins = [p[2].startswith("baseline") for p in found["proposals"]]
    assert origins.count(False) == 10
    assert found["proposals"][: len(undisturbed["proposals"])] == undisturbed["proposals"]
    assert set(undisturbed["evaluations"]) <= set(found["evaluations"])
    assert max(Counter(row[:4] for row in found["evaluations"]).values()) == 1
    assert found["state"] == "done"
    launch(larger, _ignore)
    assert content(larger) == found


def test_more_validation_images_measure_the_finalists_again(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    searched_study(tmp_path, *QUICK)
    finer = _config(tmp_path, "validation.n_images=90")
    launch(finer, _ignore)
    rows = content(finer)["evaluations"]
    coarse = {row[1] for row in rows if row[:1] == ("validation",) and row[2] == 60}
    fine = {row[1] for row in rows if row[:1] == ("validation",) and row[2] == 90}
    assert fine == coarse
    with open_study(finer.storage.url, "t") as store:
        assert best_schedule(store)[1].n_images == 90


# -- failures ------------------------------------------------------------------------------


def test_a_model_that_never_works_stops_the_search(tmp_path: Path) -> None:
    config = _config(tmp_path, "model.fail=true", "search.evaluations=30")
    with pytest.raises(EvaluationFailed, match=r"10 evaluations in a row failed.*not finite"):
        launch(config, _ignore)
    found = content(config)
    assert found["state"] == "failed"
    assert [row[4] for row in found["evaluations"]] == ["failed"] * 10
    assert [state for _, state, _ in found["trials"]] == ["FAIL"] * 10


def test_a_schedule_that_fails_is_a_result_and_the_search_goes_on(tmp_path: Path) -> None:
    config = _config(tmp_path)

    def picky(evaluator: Evaluator, request: Request) -> Reply:
        if isinstance(request, Measure) and int(request.schedule.id, 16) % 4 == 0:
            raise RuntimeError("out of memory")
        return evaluator(request)

    _run_with(config, picky)
    found = content(config)
    failed = {p[1] for p in found["proposals"] if int(p[1], 16) % 4 == 0}
    assert failed
    assert {row[1] for row in found["evaluations"] if row[4] == "failed"} == failed
    states = {number: state for number, state, _ in found["trials"]}
    assert {n: "FAIL" if i in failed else "COMPLETE" for n, i, *_ in found["proposals"]} == states
    assert sum(not p[2].startswith("baseline") for p in found["proposals"]) == BUDGET
    with open_study(config.storage.url, "t") as store:
        errors = [row.error for row in store.measured() if row.error]
        status = status_of(store)
    assert errors == ["RuntimeError: out of memory"] * len(failed)
    assert (status["failed"], status["state"]) == (len(failed), "done")


def test_a_model_that_changed_under_the_study_is_a_conflict(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_text("1.0")
    options = ("model.loader='tests.support.plugins:trained'", f"model.weights='{weights}'")
    config = _config(tmp_path, *options)
    launch(config, _ignore)
    before = content(config)
    launch(config, _ignore)
    weights.write_text("0.9")
    with pytest.raises(StudyConflict, match=r"was measured with model.*another name"):
        launch(_config(tmp_path, *options, "search.evaluations=20"), _ignore)
    assert content(config) == before
