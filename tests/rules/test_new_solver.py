"""A linear solver that nobody knew of: one module and one registration, and all of it works."""

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from rich.console import Console

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.processes import edm
from s3search.rules import Momentum, register, registered
from s3search.run.launching import launch
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, Step, json_schema
from s3search.search.edit.draft import draft_of, finished, misfit, random_schedule
from s3search.search.edit.extend_nfe import extended
from s3search.search.edit.variation import crossover, mutate
from s3search.search.predictor.base import Example
from s3search.search.predictor.features import compact, flat, tokens
from s3search.search.predictor.sequence import SequenceModel
from s3search.search.predictor.trees import Trees
from s3search.search.space import Problem, load_space, parse_space
from s3search.show.dashboard.choices import choice
from s3search.show.pictures import draw_schedule, terminal_drawing, time_lines
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import run_plan
from s3search.study.database.store import open_study
from s3search.study.optuna.summary import summary
from s3search.study.results.export import best_schedule
from tests.support.extrapolated import Extrapolated
from tests.support.helpers import gaussian, noise
from tests.support.studies import study_config

OVERRIDES = {"solvers": ["taylor", "extrapolated"], "starts": ["network"]}


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    with registered(Extrapolated):
        yield


def problem_with(**more: object) -> Problem:
    return Problem(load_space("usf", {**OVERRIDES, **more}), edm())


def steps_of(schedule: Schedule) -> list[Extrapolated]:
    return [s.predictor for s in schedule.steps if isinstance(s.predictor, Extrapolated)]


def by_hand() -> Schedule:
    """DPM-Solver++(2M) with two of the new steps."""
    plain = published.dpmpp_2m(edm(), nfe=5)
    steps = list(plain.steps)
    steps[1] = Step(predictor=Extrapolated(c=0.25))
    steps[3] = Step(predictor=Extrapolated(c=0.75))
    return Schedule(process=plain.process, times=plain.times, steps=steps)


def test_a_space_draws_it_and_children_inherit_and_move_it() -> None:
    problem, rng = problem_with(), np.random.default_rng(0)
    drawn = [random_schedule(problem, 6, rng) for _ in range(30)]
    children, parent = [], published.dpmpp_2m(edm(), nfe=6)
    for _ in range(200):
        parent = mutate(problem, parent, rng)
        children.append(parent)
    crossed = [crossover(problem, a, b, rng) for a, b in zip(children, drawn, strict=False)]
    for schedules in (drawn, children, crossed):
        numbers = {step.c for schedule in schedules for step in steps_of(schedule)}
        assert len(numbers) > 10
        assert 0.0 <= min(numbers) < max(numbers) <= 1.0
        for schedule in schedules:
            assert misfit(problem, schedule) is None
            assert compile_plan(schedule).nfe == 6


def test_a_space_without_it_takes_the_nearest_taylor_step() -> None:
    schedule, alone = by_hand(), Problem(load_space("usf", {"families": []}), edm())
    assert misfit(alone, schedule) == "steps[1]: published is not a choice of the space"
    plain = finished(alone, draft_of(schedule), 5, np.random.default_rng(0))
    assert not steps_of(plain)
    assert [getattr(s.predictor, "order", 0) for s in plain.steps[1:4]] == [2, 2, 2]


def test_a_space_sets_the_range_of_its_number() -> None:
    problem, rng = problem_with(ranges={"c": [0.4, 0.5]}), np.random.default_rng(0)
    drawn = [step for _ in range(20) for step in steps_of(random_schedule(problem, 6, rng))]
    assert {0.4 <= step.c <= 0.5 for step in drawn} == {True}
    with pytest.raises(InvalidConfig, match="no solver has 'd'; known: c"):
        parse_space({"ranges": {"d": [0, 1]}})
    with pytest.raises(InvalidConfig, match=r"ranges.c: need low <= high, found \[1.0, 0.0\]"):
        parse_space({"ranges": {"c": [1, 0]}})


def test_its_json_is_saved_and_loaded_and_named_by_the_schema(tmp_path: Path) -> None:
    schedule, path = by_hand(), tmp_path / "schedule.json"
    schedule.save(path)
    assert Schedule.load(path) == schedule
    assert Schedule.load(path).id == schedule.id
    wire = json.loads(path.read_text())
    assert wire["steps"][1]["predictor"] == {
        "rule": "extrapolated",
        "c": 0.25,
        "start": -1,
        "previous": -2,
    }
    schema = json_schema()
    assert "Extrapolated" in schema["$defs"]
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(wire)
    wire["steps"][1]["predictor"]["c"] = "much"
    assert not validator.is_valid(wire)
    with pytest.raises(InvalidSchedule, match=r"steps\[1\].predictor.c: Input should be a valid"):
        Schedule.from_dict(wire)


def test_it_extends_to_more_calls_for_the_images_of_before() -> None:
    schedule = by_hand()
    more = extended(schedule)
    assert more is not None
    assert more.nfe == 6
    denoiser = gaussian(schedule.process)
    before, after = (run_plan(denoiser, compile_plan(s), noise()) for s in (schedule, more))
    assert torch.allclose(before, after, rtol=1e-9, atol=1e-9)


def test_pictures_draw_it_and_words_name_it(tmp_path: Path) -> None:
    schedule, picture = by_hand(), tmp_path / "schedule.png"
    draw_schedule(schedule, picture)
    assert picture.stat().st_size > 1000
    assert time_lines(schedule)[1].step == "Extrapolated, data, order 2"
    assert choice(schedule.steps[1]) == "Extrapolated, data, order 2"
    console = Console(record=True, width=200)
    console.print(terminal_drawing(schedule))
    assert "Extrapolated" in console.export_text()


def test_predictors_see_it() -> None:
    schedule = by_hand()
    with_it, without = tokens(schedule), tokens(published.dpmpp_2m(edm(), nfe=5))
    assert with_it.shape == without.shape
    seen = np.flatnonzero((with_it != without).any(0) & (with_it[1] == 1.0))
    assert len(seen) >= 2  # published, and a column of its own
    assert np.isfinite(flat([schedule])).all()
    assert np.isfinite(compact([schedule])).all()
    problem, rng = problem_with(), np.random.default_rng(1)
    drawn = [random_schedule(problem, 5, rng) for _ in range(40)]
    examples = [Example(schedule=each, proxies={}) for each in drawn]
    values = [1.0 + len(steps_of(each)) for each in drawn]
    for model in (Trees(), SequenceModel(members=2, epochs=40)):
        model.fit(examples, values, seed=0)
        assert np.corrcoef(model.predict(examples).mean, np.log(values))[0, 1] > 0.5


def test_the_optuna_summary_counts_it() -> None:
    numbers = summary(by_hand(), is_baseline=False)
    assert numbers["order_mean"] == pytest.approx((1 + 2 + 2 + 2 + 1) / 5)
    assert numbers["data_share"] == 1.0


@pytest.mark.parametrize("algorithm", ["evolution", "s3"])
def test_a_search_uses_it(algorithm: str, tmp_path: Path) -> None:
    config = study_config(
        tmp_path,
        f"search.algorithm={algorithm}",
        "search.evaluations=40",
        "space.nfe=[4]",
        'space.solvers=["taylor", "extrapolated"]',
        "space.predictions=['data']",
        "space.orders=[1, 2]",
        "space.relaxations=['none']",
        "space.correctors=['none']",
        "search.baselines=false",
    )
    launch(config, lambda _: None)
    with open_study(config.storage.url, "t") as store:
        measured = [trial.schedule for trial in store.trials()]
        winner, scored = best_schedule(store, 4)
    assert sum(bool(steps_of(schedule)) for schedule in measured) > len(measured) / 3
    assert np.isfinite(scored.value)
    assert winner.nfe == 4


def test_a_name_is_given_once() -> None:
    class Again(Momentum):
        """A rule with the name of another."""

    with pytest.raises(ValueError, match="there is a rule 'momentum'"):
        register(Again)


def test_a_rule_that_is_not_registered_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no rule 'momentum'"):

        class Unknown(Momentum):
            """A rule that only looks like another."""

        Step(predictor=Unknown(order=1, beta=0.5))
