"""The default search as a whole, on a Gaussian whose every distance is cheap."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3search.processes import edm
from s3search.run.launching import launch
from s3search.schedules.published import baselines
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.polishing import polish_size
from s3search.search.algorithms.s3 import S3, S3Settings
from s3search.search.finish import Candidate, choose_finalist
from s3search.search.lab import Measured, Price, Trial
from s3search.search.ladder import LadderRung
from s3search.search.space.space import load_space
from s3search.solvers.plan import compile_plan
from s3search.study.database.store import open_study
from s3search.study.results.export import best_schedule
from s3search.study.results.frame import evaluations_frame, status_of, validated
from tests.support.studies import content, study_config

PROCESS = edm()
EIGENVALUES = np.array([1.0, 0.3, 0.05, 0.01])


class _Bench:
    """A lab whose metric is the closed-form distance, and whose proxy may lie."""

    n_images = 80

    def __init__(self, images: float, lies: bool = False) -> None:
        self._images, self._lies = images, lies
        self.trials: list[Trial] = []
        self.notes: list[tuple[str, Mapping[str, object]]] = []
        self.spent = 0.0

    def budget(self) -> float:
        return self._images

    def is_over(self) -> bool:
        return False

    def recorded(self, number: int) -> None:
        return None

    def vetoed(self) -> frozenset[str]:
        return frozenset()

    vetoed_here = vetoed

    def measure(self, trials: Sequence[Trial]) -> list[Measured]:
        self.trials += trials
        found = []
        for trial in trials:
            value = _distance(trial.schedule)
            path, n_images = {}, self.n_images
            for n, bar in trial.race:
                path[n] = value + 1.0 / n
                if path[n] > bar:
                    n_images = n
                    break
            whole = n_images == self.n_images
            self.spent += n_images
            found.append(
                Measured(
                    schedule=trial.schedule,
                    value=value if whole else None,
                    n_images=n_images,
                    path=path,
                )
            )
        return found

    def rescore(self, schedules: Sequence[Schedule], n_images: int) -> list[float | None]:
        self.spent += n_images * len(schedules)
        return [_distance(s) for s in schedules]

    def scores(self, proxy: str, schedules: Sequence[Schedule]) -> Any:
        true = np.array([_distance(s) for s in schedules])
        return 1.0 / true if self._lies else true

    def price(self, proxy: str, nfe: int) -> Price:
        return Price()

    def polish(
        self, schedules: Sequence[Schedule], *, iterations: int, n_images: int, seed: int
    ) -> list[Schedule | None]:
        self.spent += 2.0 * iterations * n_images * len(schedules)
        return [None for _ in schedules]

    def note(self, kind: str, content: Mapping[str, object]) -> None:
        self.notes.append((kind, content))


def _distance(schedule: Schedule) -> float:
    from s3search.models.gaussian import gaussian_distance  # noqa: PLC0415

    return float(gaussian_distance(compile_plan(schedule), np.zeros(4), EIGENVALUES)[0])


def _searched(bench: _Bench, *ladder: str) -> float:
    rungs = tuple(LadderRung(name) for name in ladder)
    seeds = dict(list(baselines(PROCESS, 4).items())[::12])
    space = load_space("usf", {"nfe": [4], "starts": ["network"]})
    search = S3(
        space,
        PROCESS,
        nfe=[4],
        seed=0,
        seeds=seeds,
        evaluations=None,
        settings=S3Settings(ladder=rungs, batch=8),
    )
    search.run(bench)
    return min(_distance(trial.schedule) for trial in bench.trials)


class _Vetoing(_Bench):
    """A lab where a person rejects the best of the first schedules, and what is asked then."""

    def __init__(self, images: float, after: int) -> None:
        super().__init__(images)
        self._after = after
        self._chosen: frozenset[str] = frozenset()
        self.asked: list[Schedule] = []  # to be polished or rescored, once it is rejected
        self.later: list[Trial] = []

    def vetoed_here(self) -> frozenset[str]:
        if not self._chosen and len(self.trials) >= self._after:
            best = min((t.schedule for t in self.trials), key=_distance)
            self._chosen = frozenset([best.id])
        return self._chosen

    def measure(self, trials: Sequence[Trial]) -> list[Measured]:
        self.later += trials if self._chosen else []
        return super().measure(trials)

    def polish(
        self, schedules: Sequence[Schedule], *, iterations: int, n_images: int, seed: int
    ) -> list[Schedule | None]:
        self.asked += schedules if self._chosen else []
        return super().polish(schedules, iterations=iterations, n_images=n_images, seed=seed)

    def rescore(self, schedules: Sequence[Schedule], n_images: int) -> list[float | None]:
        self.asked += schedules if self._chosen else []
        return super().rescore(schedules, n_images)


@pytest.mark.parametrize("ladder", [("race", "predictor"), ("race", "polish")])
def test_a_vetoed_schedule_is_no_parent_nor_polished_nor_finalist(
    ladder: tuple[str, ...],
) -> None:
    free, bench = _Bench(6000.0), _Vetoing(6000.0, after=20)
    _searched(free, *ladder)
    _searched(bench, *ladder)
    (vetoed,) = bench.vetoed_here()
    assert vetoed in {parent for trial in free.trials for parent in trial.parents}
    assert bench.later
    assert vetoed not in {parent for trial in bench.later for parent in trial.parents}
    assert bench.asked
    assert vetoed not in {schedule.id for schedule in bench.asked}


def test_a_true_proxy_finds_better_schedules_for_the_same_images() -> None:
    guided = _searched(_Bench(8000.0), "gaussian", "race", "predictor")
    alone = _searched(_Bench(8000.0), "race")
    assert guided < alone


def test_a_proxy_that_lies_is_noticed_and_does_no_harm() -> None:
    lied_to = _Bench(8000.0, lies=True)
    found = _searched(lied_to, "gaussian", "race", "predictor")
    worth = [note["proxies"] for kind, note in lied_to.notes if kind == "predictor"]
    assert worth[-1]["gaussian"] < -0.9
    best_seed = min(_distance(s) for s in list(baselines(PROCESS, 4).values())[::12])
    assert found < 0.5 * best_seed


def test_the_race_measures_more_schedules_for_the_same_images() -> None:
    racing, whole = _Bench(6000.0), _Bench(6000.0)
    _searched(racing, "race")
    _searched(whole)
    assert len(racing.trials) > 1.3 * len(whole.trials)
    for bench in (racing, whole):
        assert bench.spent < 1.25 * 6000


def test_the_forecasts_are_checked_against_what_was_measured() -> None:
    bench = _Bench(8000.0)
    _searched(bench, "gaussian", "race", "predictor")
    kinds = {kind for kind, _ in bench.notes}
    assert kinds == {"predictor", "calibration", "ladder"}


def test_polishing_grows_in_both_directions() -> None:
    assert polish_size(30_000) == (35, 433)
    small, large = polish_size(2_000), polish_size(200_000)
    assert small[0] < large[0] and small[1] < large[1]
    assert 2 * large[0] * large[1] == pytest.approx(200_000, rel=0.05)


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


def test_a_budget_of_time_is_known_after_the_first_measurements() -> None:
    class Timed(_Bench):
        def budget(self) -> float:
            return super().budget() if self.trials else 0.0

    bench = Timed(8000.0)
    _searched(bench, "race")
    assert len(bench.trials) > 40
    assert bench.spent > 0.8 * 8000
