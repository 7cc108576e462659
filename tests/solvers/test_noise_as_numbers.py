"""Stochastic schedules as numbers: free steps with noise make the images, and say the weights."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess, edm
from s3search.rules import Derivative, Free, NoiseKind, Prediction, StepNoise, Taylor
from s3search.schedules import published
from s3search.schedules.published.baselines import published_solvers
from s3search.schedules.schedule import Corrector, CorrectorKind, Schedule, Start, StartKind, Step
from s3search.schedules.spacing import grid
from s3search.solvers.coefficients import (
    CoefficientTable,
    as_coefficients,
    coefficient_table,
    schedule_of_table,
)
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support.helpers import PROCESSES, gaussian, max_abs, noise

_DDIM = Taylor(prediction=Prediction.DATA, order=1)
_SECOND = Taylor(prediction=Prediction.DATA, order=2, derivatives=(Derivative(points=(-2,)),))
_CORRECTOR = Taylor(
    prediction=Prediction.DATA, order=2, start=-2, derivatives=(Derivative(points=(-1,)),)
)
_GAMMA = StepNoise(kind=NoiseKind.GAMMA, amount=0.3)
_RESTART = StepNoise(kind=NoiseKind.TIME, amount=1.0)


def _multistep(process: NoiseProcess, *noises: StepNoise | None, **fields: Any) -> Schedule:
    """Second-order steps, the first and the last aside, with these noises."""
    n = len(noises)
    first = Step(predictor=_DDIM, noise=noises[0], **fields)
    between = [Step(predictor=_SECOND, noise=each, **fields) for each in noises[1 : n - 1]]
    last = Step(predictor=_DDIM, noise=noises[-1])
    times = grid(process, n, "uniform" if process.type == "flow" else "logsnr")
    return Schedule(process=process, times=times, steps=[first, *between, last])


def _first_order(*noises: StepNoise | None) -> Schedule:
    times = grid(edm(), len(noises), "logsnr")
    steps = [Step(predictor=_DDIM, noise=each) for each in noises]
    return Schedule(process=edm(), times=times, steps=steps)


def _restarting(start: Start | None = None) -> Schedule:
    times = (80.0, 10.0, 1.0, 8.0, 1.0, 0.0)
    noises = (StepNoise(amount=0.5), None, _RESTART, StepNoise(amount=0.5), None)
    steps = [Step(predictor=_DDIM, noise=each) for each in noises]
    return Schedule(process=edm(), times=times, steps=steps, start=start or Start())


STOCHASTIC = {
    **{f"every step, {n}": _multistep(p, *[_GAMMA] * 4, None) for n, p in PROCESSES.items()},
    "some steps": _multistep(edm(), None, StepNoise(amount=0.6), None, None, _GAMMA, None),
    "to the clean end and back": _first_order(*[StepNoise(kind=NoiseKind.GAMMA)] * 3, None),
    "scaled": _multistep(edm(), *[StepNoise(amount=1.0, scale=1.01)] * 3, None),
    "a restart": _restarting(),
    "churn": _restarting(Start(noise=StepNoise(kind=NoiseKind.TIME, amount=60.0))),
    "analytic": _multistep(edm(), *[_GAMMA] * 3, None).changed(
        start=Start(kind=StartKind.ZERO_X0)
    ),
    "SDE, second order": published.dpmpp_2m_sde(edm(), nfe=5),
    "SDE, noise": published.sde_dpm_solver(PROCESSES["vp_linear"], nfe=5),
    "inner points that draw": published.dpmpp_2s_ancestral(edm(), nfe=7),
    "SA-Solver": published.sa_solver(edm(), nfe=6, tau=0.8),
    "SEEDS-2": published.seeds_2(edm(), nfe=7),
    "SEEDS-3": published.seeds_3(edm(), nfe=7),
    "restarts": published.restart(edm(), nfe=21),
    **{
        f"corrected, {kind}": _multistep(
            edm(), *[_GAMMA] * 3, None, corrector=Corrector(kind=kind, rule=_CORRECTOR)
        )
        for kind in CorrectorKind
    },
}


def _images(schedule: Schedule, draws: list[torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return sample(
            gaussian(schedule.process), compile_plan(schedule), noise(3, seed=5), step_noise=draws
        )


@pytest.mark.parametrize("schedule", STOCHASTIC.values(), ids=list(STOCHASTIC))
def test_free_steps_with_noise_make_the_images_of_the_same_draws(schedule: Schedule) -> None:
    made = as_coefficients(schedule)
    assert made.is_stochastic and made.nfe == schedule.nfe
    assert all(isinstance(step.predictor, Free) and step.noise is None for step in made.steps)
    n_draws = len(compile_plan(schedule).noisy_rows)
    assert len(compile_plan(made).noisy_rows) == n_draws
    draws = [noise(3, seed=100 + k) for k in range(n_draws)]
    x = _images(schedule, draws)
    assert max_abs(x - _images(made, draws)) < 1e-10 * max(1.0, max_abs(x))


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_every_published_sampler_with_noise_is_free_steps_too(process: NoiseProcess) -> None:
    known = {
        each.solver: each.schedule
        for each in published_solvers(process, 7, noise=True)
        if each.schedule.is_stochastic
    }
    assert len(known) > 10
    for name, schedule in known.items():
        draws = [noise(3, seed=k) for k in range(len(compile_plan(schedule).noisy_rows))]
        x = _images(schedule, draws)
        off = max_abs(x - _images(as_coefficients(schedule), draws))
        assert off < 1e-10 * max(1.0, max_abs(x)), name


@pytest.mark.parametrize("schedule", STOCHASTIC.values(), ids=list(STOCHASTIC))
def test_the_table_of_a_stochastic_schedule_goes_there_and_back(schedule: Schedule) -> None:
    table = coefficient_table(schedule)
    again = coefficient_table(schedule_of_table(table))
    for each in fields(CoefficientTable):
        a, b = getattr(table, each.name), getattr(again, each.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=each.name)
        else:
            assert a == b, each.name


@pytest.mark.parametrize("schedule", STOCHASTIC.values(), ids=list(STOCHASTIC))
def test_free_steps_with_noise_are_version_2_and_come_back(schedule: Schedule) -> None:
    made = as_coefficients(schedule)
    data = made.to_dict()
    assert data["version"] == 2
    assert Schedule.from_dict(data).id == made.id
    if made.start.noise is None:
        with pytest.raises(InvalidSchedule, match="version: noise in steps came with version 2"):
            Schedule.from_dict({**data, "version": 1})


def test_a_free_step_without_noise_keeps_its_json() -> None:
    assert Free(q=(1.0,)).model_dump() == {"rule": "free", "p": (), "q": (1.0,), "carries": True}
    assert Free(q=(1.0,), noise=0.5).model_dump()["noise"] == 0.5


def test_a_row_is_written_over_the_last_state_that_drew() -> None:
    """A chain of states needs no other: nothing of x_0 is left after the first draw."""
    table = coefficient_table(STOCHASTIC["every step, edm"])
    assert np.flatnonzero(table.noise).tolist() == [1, 2, 3, 4]
    assert np.flatnonzero(table.p0).tolist() == [0, 1]
    np.testing.assert_array_equal(np.nonzero(table.p), [[2, 3, 4, 5], [1, 2, 3, 4]])


@pytest.mark.parametrize(
    ("name", "carries"),
    [("every step, flow", True), ("a restart", True), ("analytic", True), ("scaled", False)],
)
def test_free_steps_say_whether_they_keep_the_variance_of_their_level(
    name: str, carries: bool
) -> None:
    steps = as_coefficients(STOCHASTIC[name]).steps
    assert {step.predictor.carries_constants for step in steps if step.is_stochastic} == {carries}


@pytest.mark.parametrize("off", [0.99, 1.01])
def test_a_free_step_that_carries_is_held_to_the_variance_of_its_level(off: float) -> None:
    table = coefficient_table(STOCHASTIC["every step, edm"])
    made = schedule_of_table(table)
    step = made.steps[1]
    wrong = step.predictor.model_copy(update={"noise": off * step.predictor.noise})
    steps = [made.steps[0], Step(predictor=wrong), *made.steps[2:]]
    with pytest.raises(InvalidSchedule, match=r"steps\[1\].predictor.p: does not carry a const"):
        made.changed(steps=steps)
    assert (
        not schedule_of_table(replace(table, noise=off * table.noise))
        .steps[1]
        .predictor.carries_constants
    )


def test_a_time_rises_by_a_free_step_only_where_it_draws() -> None:
    made = as_coefficients(_restarting())
    assert made.times == (80.0, 10.0, 1.0, 8.0, 1.0, 0.0)
    still = made.steps[2].predictor.model_copy(update={"noise": 0.0, "carries": False})
    steps = [*made.steps[:2], Step(predictor=still), *made.steps[3:]]
    with pytest.raises(InvalidSchedule, match=r"^times\[3\]: times must fall at every step"):
        made.changed(steps=steps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": np.eye(5)}, "p: a row uses a state that is made at it or later"),
        ({"p": np.zeros((4, 4))}, r"p: a table of 4 calls has shape \(5, 5\), found \(4, 4\)"),
        ({"noise": np.ones(5)}, "p0: row 0 is x_0 itself, without a draw"),
        ({"noise": np.full(5, np.nan)}, "noise: holds a number that is not finite"),
    ],
)
def test_tables_that_draw_what_cannot_be_are_refused(
    change: dict[str, np.ndarray], message: str
) -> None:
    schedule = _multistep(edm(), *[_GAMMA] * 3, None)
    with pytest.raises(InvalidSchedule, match=f"^{message}"):
        schedule_of_table(replace(coefficient_table(schedule), **change))
