"""The default search as a whole, on a Gaussian whose every distance is cheap."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from s3search.models.gaussian import gaussian_distance
from s3search.processes import edm
from s3search.rules import level
from s3search.run.launching import launch
from s3search.schedules.published import baselines, ddim
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.polishing import polish_in_rounds, polish_size, unlike
from s3search.search.algorithms.s3 import S3
from s3search.search.conversation import DECISION, Conversation, Outside
from s3search.search.direction import Direction
from s3search.search.finish import Candidate, choose_finalist
from s3search.search.ladder import LadderRung
from s3search.search.questions import (
    Answer,
    Measure,
    Measurement,
    Polish,
    PolishLoss,
    PolishResult,
    Question,
    Rung,
    Score,
    polish_checks,
)
from s3search.search.space import load_space
from s3search.search.trial import Trial, searched
from s3search.show.terminal.gains import gain_lines
from s3search.solvers.plan import compile_plan
from s3search.study.database.store import open_study
from s3search.study.results.export import best_schedule
from s3search.study.results.frame import evaluations_frame, status_of, validated
from s3search.study.results.gains import gains_of
from tests.support.searches import Bench, setup_of
from tests.support.studies import content, study_config

PROCESS = edm()
EIGENVALUES = np.array([1.0, 0.3, 0.05, 0.01])
SEEDS = dict(list(baselines(PROCESS, 4).items())[::12])


class _ClosedForm(Bench):
    """Its metric is the closed-form distance, its proxy may lie, and nothing can be polished."""

    def __init__(self, images: float, lies: bool = False) -> None:
        super().__init__(budget=images)
        self._lies = lies
        self.spent = 0.0

    def answer(self, question: Question) -> Measurement | Answer:
        match question:
            case Measure():
                found = _measured(question)
                self.spent += found.n_images
                return found
            case Score():
                true = [_distance(schedule) for schedule in question.schedules]
                value = tuple(1.0 / d if self._lies else d for d in true)
                return Answer(question=question, value=value)
            case Polish():
                self.spent += 2.0 * question.iterations * question.n_images
                return Answer(question=question, error="EvaluationFailed: there is no gradient")
        raise AssertionError(question)


def _measured(question: Measure) -> Measurement:
    value = _distance(question.schedule)
    path: dict[int, float] = {}
    for n, threshold in question.thresholds:
        path[n] = value + 1.0 / n
        if path[n] > threshold:
            return Measurement(question=question, estimate=path[n], n_images=n, path=path)
    return Measurement(question=question, estimate=value, n_images=question.n_images, path=path)


def _distance(schedule: Schedule) -> float:
    return float(gaussian_distance(compile_plan(schedule), np.zeros(4), EIGENVALUES)[0])


def _searched(bench: _ClosedForm, *ladder: str) -> float:
    setup = setup_of(
        load_space("usf", {"nfe": [4], "starts": ["network"]}),
        PROCESS,
        nfe=[4],
        seeds=SEEDS,
        ladder=tuple(LadderRung(name) for name in ladder),
        batch=8,
    )
    bench.run(S3(setup).run())
    return min(_distance(trial.schedule) for trial in bench.trials)


@pytest.fixture(scope="module")
def guided() -> tuple[_ClosedForm, float]:
    """A search with a true proxy, and the best that it found."""
    bench = _ClosedForm(8000.0)
    return bench, _searched(bench, "gaussian", "race", "predictor")


class _Vetoing(_ClosedForm):
    """A person rejects the best of the first schedules."""

    def __init__(self, images: float, after: int) -> None:
        super().__init__(images)
        self._after = after
        self._n_before = 0  # questions that were asked until then
        self.vetoed: frozenset[str] = frozenset()

    def outside(self) -> Outside:
        if not self.vetoed and len(self.trials) >= self._after:
            best = min((trial.schedule for trial in self.trials), key=_distance)
            self.vetoed, self._n_before = frozenset([best.id]), len(self.asked)
        return Outside(budget=self.budget, vetoed=self.vetoed)

    @property
    def later(self) -> list[Trial]:
        """What was measured on the search's noise once it was rejected."""
        asked = self.asked[self._n_before :]
        return [q.trial for q in asked if isinstance(q, Measure) and q.rung is Rung.SEARCH]

    @property
    def finished(self) -> list[Trial]:
        """What was to be polished, or measured again, once it was rejected."""
        asked = self.asked[self._n_before :]
        return [
            q.trial
            for q in asked
            if isinstance(q, Polish) or (isinstance(q, Measure) and q.rung is Rung.FINALS)
        ]


@pytest.mark.parametrize("ladder", [("race", "predictor"), ("race", "polish")])
def test_a_vetoed_schedule_is_no_parent_nor_polished_nor_finalist(
    ladder: tuple[str, ...],
) -> None:
    free, bench = _ClosedForm(4000.0), _Vetoing(4000.0, after=20)
    _searched(free, *ladder)
    _searched(bench, *ladder)
    (vetoed,) = bench.vetoed
    assert vetoed in {parent for trial in free.trials for parent in trial.parents}
    assert bench.later
    assert vetoed not in {parent for trial in bench.later for parent in trial.parents}
    assert bench.finished
    assert vetoed not in {trial.id for trial in bench.finished}


def test_a_true_proxy_finds_better_schedules_for_the_same_images(
    guided: tuple[_ClosedForm, float],
) -> None:
    assert guided[1] < _searched(_ClosedForm(8000.0), "race")


def test_a_proxy_that_lies_is_noticed_and_does_no_harm() -> None:
    lied_to = _ClosedForm(8000.0, lies=True)
    found = _searched(lied_to, "gaussian", "race", "predictor")
    found_of = [note["proxies"] for kind, note in lied_to.notes if kind == "predictor"]
    assert found_of[-1]["gaussian"] < -0.9
    best_seed = min(map(_distance, SEEDS.values()))
    assert found < 0.5 * best_seed


def test_early_stopping_measures_more_schedules_for_the_same_images() -> None:
    stopping, whole = _ClosedForm(6000.0), _ClosedForm(6000.0)
    _searched(stopping, "race")
    _searched(whole)
    assert len(stopping.trials) > 1.3 * len(whole.trials)
    for bench in (stopping, whole):
        assert bench.spent < 1.25 * 6000


def test_the_forecasts_are_checked_against_what_was_measured(
    guided: tuple[_ClosedForm, float],
) -> None:
    kinds = {kind for kind, _ in guided[0].notes}
    assert kinds == {"predictor", "calibration", "ladder", "gains", DECISION}


def test_a_search_says_what_each_stage_gained_and_what_came_to_nothing() -> None:
    bench = _ClosedForm(8000.0)
    found = _searched(bench, "gaussian", "race", "predictor", "polish")
    (content,) = (note for kind, note in bench.notes if kind == "gains")
    stages = {stage["stage"]: stage for stage in content["stages"]}
    assert list(stages) == ["seeds", "evolution", "polish 1", "finals"]
    assert stages["evolution"]["after"] == found < content["published"]
    assert stages["evolution"]["share"] == pytest.approx(1.0)
    n = stages["polish 1"]["n_polished"]
    assert stages["polish 1"]["failed"] == n > 0
    assert content["warnings"] == [
        f"NFE 4: polish 1: all {n} polishings failed: EvaluationFailed: there is no gradient"
    ]
    assert content["proxies"]["gaussian"]["correlation"] > 0.99
    assert content["warnings"][0] in "\n".join(
        gain_lines(gains_of([("gains", content)], Direction.MINIMIZE))
    )


def test_the_polish_has_what_an_evolution_leaves_that_finds_nothing() -> None:
    class Polishable(_ClosedForm):
        """Every child is worse than the seeds; gradient descent gives back where it began."""

        def answer(self, question: Question) -> Measurement | Answer:
            if isinstance(question, Polish):
                result = PolishResult(schedule=question.schedule, losses=())
                return Answer(question=question, value=result)
            found = super().answer(question)
            if isinstance(found, Measurement) and found.trial.parents and found.estimate:
                return replace(found, estimate=found.estimate + 100.0)
            return found

    bench = Polishable(20_000.0)
    _searched(bench, "race", "polish")
    (content,) = (note for kind, note in bench.notes if kind == "gains")
    stages = {stage["stage"]: stage for stage in content["stages"]}
    assert stages["evolution"]["n"] == 16  # two batches, 0.1 of the budget is 20 at least
    assert list(stages)[2:] == ["polish 1", "polish 2", "finals"]
    spent = sum(2.0 * q.iterations * q.n_images for q in bench.asked if isinstance(q, Polish))
    assert spent > 0.5 * 20_000


def test_polishings_begin_at_the_best_as_it_is_at_lower_levels_and_at_others() -> None:
    asked: list[list[Trial]] = []

    def polished(
        starts: Sequence[Trial], images: float, seed: int
    ) -> Conversation[list[Measurement]]:
        yield from ()
        asked.append(list(starts))
        questions = [setup.measure(start) for start in starts]
        return [_measured(question) for question in questions]

    setup = setup_of(load_space("usf", {"nfe": [4]}), PROCESS, nfe=[4], seeds=SEEDS)
    ranked = [Trial.of(own, searched(name)) for name, own in SEEDS.items()]
    work = polish_in_rounds(ranked, 200_000, 1000, polished, lambda _: True, batch=16)
    with pytest.raises(StopIteration, match="True"):
        next(iter(work))
    short, longer, last = asked
    assert short[0] == ranked[0]
    firsts = [trial.schedule.times[0] for trial in short]
    assert min(firsts) < 0.3 * firsts[0]
    assert {trial.id for trial in short} & {trial.id for trial in ranked[1:]}
    assert len(short) > len(longer) >= len(last) == 1


def test_a_polishing_begins_with_noise_too_where_the_space_has_any() -> None:
    asked: list[list[Trial]] = []

    def polished(
        starts: Sequence[Trial], images: float, seed: int
    ) -> Conversation[list[Measurement]]:
        yield from ()
        asked.append(list(starts))
        return [_measured(setup.measure(start)) for start in starts]

    setup = setup_of(load_space("usf", {"nfe": [4]}), PROCESS, nfe=[4], seeds=SEEDS)
    ranked = [Trial.of(own, searched(name)) for name, own in SEEDS.items()]
    noisy = Trial.of(ddim(PROCESS, nfe=4, eta=0.3), searched("noisy"))
    for images, tried in ((200_000, True), (20_000, False)):
        work = polish_in_rounds(
            ranked, images, 1000, polished, lambda _: True, batch=16, seeded=lambda _: noisy
        )
        with pytest.raises(StopIteration, match="True"):
            next(iter(work))
        assert (noisy.id in {trial.id for trial in asked[0]}) == tried
        assert asked[0][0] == ranked[0]
        asked.clear()


@pytest.mark.parametrize(
    ("noise", "loss", "seeds_noise"),
    [
        ({"gamma": [0.0, 0.5]}, "metric", True),
        ({"gamma": [0.0, 0.5]}, "trajectory", False),  # an image of fresh noise has no target
        ({}, "metric", False),
    ],
)
def test_a_search_polishes_its_best_with_a_little_noise_where_it_may(
    noise: dict[str, list[float]], loss: PolishLoss, seeds_noise: bool
) -> None:
    space = {"nfe": [4], "starts": ["network"], "noise": noise, "mutation": {"noise": 0.0}}
    setup = setup_of(
        load_space("usf", space),
        PROCESS,
        nfe=[4],
        seeds=SEEDS,
        ladder=(LadderRung.POLISH,),
        batch=8,
        polish_loss=loss,
    )
    bench = _ClosedForm(20_000.0)
    bench.run(S3(setup).run())
    little = np.sin(0.2) ** 2
    seeded = [
        question
        for question in bench.asked
        if isinstance(question, Polish) and _shares(question.schedule) == {round(little, 6)}
    ]
    assert bool(seeded) == seeds_noise


def _shares(schedule: Schedule) -> set[float]:
    """The different fresh shares of the steps that add noise."""
    levels = [level(schedule.process, t) for t in schedule.times]
    return {
        round(step.noise.share(schedule.process, levels[i], levels[i + 1]), 6)
        for i, step in enumerate(schedule.steps)
        if step.noise is not None
    }


def test_polishing_grows_in_both_directions() -> None:
    assert polish_size(30_000) == (31, 433)
    small, large = polish_size(2_000), polish_size(200_000)
    assert small[0] < large[0] and small[1] < large[1]
    paid = large[0] + polish_checks(large[0])
    assert 2 * paid * large[1] == pytest.approx(200_000, rel=0.05)


def test_no_schedule_is_polished_twice_in_a_round() -> None:
    def trial(spacing: str) -> Trial:
        return Trial.of(ddim(PROCESS, nfe=4, spacing=spacing), searched("test"))

    trials = [trial("karras"), trial("karras"), trial("logsnr")]
    assert len({each.id for each in trials}) == 2
    chosen = [each.id for each in unlike(trials, 3)]
    assert sorted(chosen) == sorted({each.id for each in trials})


def test_a_study_spends_its_budget_and_polishes(tmp_path: Path) -> None:
    changes = ["search.algorithm=s3", "search.evaluations=120", "search.n_images=200"]
    config = study_config(tmp_path, *changes, "space.nfe=[3, 4]", "validation.n_images=2000")
    launch(config, lambda _: None)
    found = content(config)
    assert found["state"] == "done"
    assert {row[0] for row in found["evaluations"]} >= {"search", "finals", "validation"}
    origins = {origin for _, _, origin, _ in found["proposals"]}
    assert {"polish 1", "polish 2", "mutation"} <= origins
    assert any(origin.startswith("seed: winner with 3 calls") for origin in origins)
    with open_study(config.storage.url, "t") as store:
        status = status_of(store)
        frame = evaluations_frame(store)
        rows = validated(frame, store.config)
        again = frame[frame["rung"] == "finals"]
        finals = dict(zip(again["schedule_id"], again["value"], strict=True))
        for nfe in (3, 4):
            schedule, scored = best_schedule(store, nfe)
            assert schedule.nfe == nfe
            published = min(row.value for row in rows if row.nfe == nfe and row.is_baseline)
            assert scored.value < published
            prefers = choose_finalist(
                [
                    Candidate(
                        search_value=finals[row.schedule_id],
                        held_out_value=row.value,
                        standard_error=row.standard_error or 0.0,
                    )
                    for row in rows
                    if row.nfe == nfe and row.schedule_id in finals
                ],
                seed=0,
            )
            assert scored.value == prefers.value
    ledger = status["ledger"]
    searching = {k: v for k, v in ledger.items() if k != "validation"}
    calls = sum(each["network_calls"] for each in searching.values())
    assert calls < 1.25 * 120 * 200 * 3.5
    assert ledger["polish"]["network_calls"] > 0
    assert ledger["gaussian"]["network_calls"] == ledger["mixture"]["network_calls"] == 0
    assert status["network_calls"] == calls + ledger["validation"]["network_calls"]
    assert [each["nfe"] for each in status["gains"]] == [3, 4]
    for each in status["gains"]:
        shares = [stage["share"] for stage in each["stages"] if stage["share"] is not None]
        assert sum(shares) == pytest.approx(1.0)


def test_a_budget_of_time_is_known_after_the_first_measurements() -> None:
    class Timed(_ClosedForm):
        def outside(self) -> Outside:
            return Outside(budget=self.budget if self.trials else 0.0)

    bench = Timed(8000.0)
    _searched(bench, "race")
    assert len(bench.trials) > 40
    assert bench.spent > 0.8 * 8000
