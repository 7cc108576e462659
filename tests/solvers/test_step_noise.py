"""Noise in steps: its variance, where it comes from, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.processes import Flow, NoiseProcess, VpLinear, edm
from s3search.rules import Adams, Derivative, NoiseKind, Prediction, StepNoise, Taylor
from s3search.schedules.schedule import Corrector, Schedule, Start, Step
from s3search.schedules.spacing import grid
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample, sample_population
from s3search.solvers.step_noise import BLOCK, block_noise, of_seed

_DDIM = Taylor(prediction=Prediction.DATA, order=1)
_PROCESSES: list[NoiseProcess] = [edm(), VpLinear(), Flow()]
_NOISES = [
    StepNoise(),
    StepNoise(amount=0.4),
    StepNoise(kind=NoiseKind.GAMMA, amount=0.3),
    StepNoise(kind=NoiseKind.GAMMA, amount=1.0),
    StepNoise(kind=NoiseKind.FLOW_ETA, amount=0.7),
]


class Untrained:
    """D of data that are one image, c: whatever the state and time."""

    sample_shape = (1, 2, 2)

    def __init__(self, process: NoiseProcess) -> None:
        self.process = process

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        return torch.full_like(x, 0.3)


def _noisy(process: NoiseProcess, noise: StepNoise | None, **fields: Any) -> Schedule:
    times = grid(process, 5, "logsnr" if not isinstance(process, Flow) else "uniform")
    last = Step(predictor=_DDIM)
    steps = [Step(predictor=_DDIM, noise=noise, **fields) for _ in times[2:]]
    return Schedule(process=process, times=times, steps=[*steps, last])


@pytest.mark.parametrize("process", _PROCESSES, ids=lambda process: process.type)
@pytest.mark.parametrize("noise", _NOISES, ids=lambda noise: f"{noise.kind}-{noise.amount}")
def test_every_state_has_the_variance_of_its_level(
    process: NoiseProcess, noise: StepNoise
) -> None:
    """For data that are one image, computed from the plan's numbers alone."""
    plan = compile_plan(_noisy(process, noise))
    assert plan.noisy_rows == (1, 2, 3, 4)[: len(plan.noisy_rows)]
    sources = np.zeros((plan.n_rows, plan.n_rows))  # of each state, over the draws
    sources[0, 0] = plan.levels[0].sigma
    for r in range(1, plan.n_rows):
        sources[r] = plan.p[r, :r] @ sources[:r]
        sources[r, r] = plan.noise[r]
    for r, at in enumerate(plan.levels):
        assert float(np.linalg.norm(sources[r])) == pytest.approx(at.sigma, rel=1e-9, abs=1e-12)


def test_eta_0_is_the_step_without_noise() -> None:
    process, noise = VpLinear(), StepNoise(amount=0.0)
    plan, plain = (compile_plan(_noisy(process, each)) for each in (noise, None))
    assert plan.noisy_rows == ()
    np.testing.assert_allclose(plan.p, plain.p, atol=1e-12)
    np.testing.assert_allclose(plan.q, plain.q, atol=1e-12)


def test_a_corrector_sees_the_draw_of_its_predictor() -> None:
    once = (Derivative(points=(-1,)),)
    rule = Taylor(prediction=Prediction.DATA, order=2, start=-2, derivatives=once)
    corrector = Corrector(rule=rule)
    plan = compile_plan(_noisy(edm(), StepNoise(amount=0.5), corrector=corrector))
    assert plan.noisy_rows == (1, 3, 5, 7)  # the rows of the correctors draw nothing
    denoiser, x = Untrained(edm()), torch.randn(3, 1, 2, 2, dtype=torch.float64)
    plain = compile_plan(_noisy(edm(), StepNoise(amount=0.5)))
    draws = [torch.randn_like(x) for _ in plan.noisy_rows]
    # where D is constant, a corrector finds what the predictor had
    corrected = sample(denoiser, plan, x, step_noise=draws)
    torch.testing.assert_close(corrected, sample(denoiser, plain, x, step_noise=draws))


def test_a_restart_raises_the_time_and_the_variance_with_it() -> None:
    restart = StepNoise(kind=NoiseKind.TIME, amount=1.0)
    times = (80.0, 1.0, 8.0, 1.0, 0.0)
    noises = (None, restart, None, None)
    steps = [Step(predictor=_DDIM, noise=noise) for noise in noises]
    plan = compile_plan(Schedule(process=edm(), times=times, steps=steps))
    assert plan.noisy_rows == (2,)
    assert math.isclose(plan.noise[2], math.sqrt(8.0**2 - 1.0**2))
    np.testing.assert_allclose(plan.p[2, :3], [0.0, 1.0, 0.0], atol=1e-12)  # it does nothing else


def test_churn_at_the_start_is_noise_upon_noise() -> None:
    start = Start(noise=StepNoise(kind=NoiseKind.TIME, amount=10.0))
    schedule = Schedule(
        process=edm(), times=(14.0, 1.0), start=start, steps=(Step(predictor=_DDIM),)
    )
    plan = compile_plan(schedule)
    assert (plan.noise_scale, plan.noisy_rows, plan.evaluated) == (10.0, (1,), (1,))
    assert math.isclose(plan.noise[1], math.sqrt(14.0**2 - 10.0**2))


# -- where the draws come from ---------------------------------------------------------------


def test_draws_are_a_function_of_seed_image_and_row() -> None:
    like = torch.zeros(30, 1, 2, 2)
    whole = torch.cat([block_noise(7, block, 3, like.shape[1:]) for block in (0, 1, 2)])
    for first in (0, 90, BLOCK, 2 * BLOCK - 1):
        torch.testing.assert_close(of_seed(7, first)(3, like), whole[first : first + 30])
    assert not torch.equal(of_seed(7)(3, like), of_seed(7)(2, like))
    assert not torch.equal(of_seed(7)(3, like), of_seed(8)(3, like))


def test_a_list_a_generator_and_nothing() -> None:
    denoiser, x = Untrained(edm()), torch.randn(3, 1, 2, 2)
    plan = compile_plan(_noisy(edm(), StepNoise()))
    drawn = [
        torch.randn(3, 1, 2, 2, generator=g)
        for g in [torch.Generator().manual_seed(1)]
        for _ in range(4)
    ]
    of_list = sample(denoiser, plan, x, step_noise=drawn)
    torch.testing.assert_close(sample(denoiser, plan, x, step_noise=torch.stack(drawn)), of_list)
    given = sample(denoiser, plan, x, step_noise=torch.Generator().manual_seed(1))
    torch.testing.assert_close(given, of_list)
    torch.testing.assert_close(sample(denoiser, plan, x), sample(denoiser, plan, x))


def test_schedules_of_a_population_draw_the_same() -> None:
    denoiser, x = Untrained(edm()), torch.randn(3, 1, 2, 2)
    plans = [compile_plan(_noisy(edm(), StepNoise(amount=eta))) for eta in (0.2, 0.5, 1.0)]
    together = sample_population(denoiser, plans, x, None, "", of_seed(0))
    for plan, images in zip(plans, together, strict=True):
        torch.testing.assert_close(images, sample(denoiser, plan, x))


@pytest.mark.parametrize(
    ("drawn", "says"),
    [
        ([torch.zeros(3, 1, 2, 2)], "the plan draws 4 times, found 1 tensors"),
        ([torch.zeros(2, 1, 2, 2)] * 4, r"shape \(3, 1, 2, 2\), found \(2, 1, 2, 2\)"),
    ],
)
def test_wrong_draws_are_refused(drawn: list[Tensor], says: str) -> None:
    plan = compile_plan(_noisy(edm(), StepNoise()))
    with pytest.raises(InvalidSchedule, match=says):
        sample(Untrained(edm()), plan, torch.zeros(3, 1, 2, 2), step_noise=drawn)


# -- files, and what is refused --------------------------------------------------------------


def test_a_stochastic_schedule_is_version_2_and_comes_back() -> None:
    schedule = _noisy(edm(), StepNoise(amount=0.5, scale=1.003))
    data = schedule.to_dict()
    assert data["version"] == 2
    assert Schedule.from_dict(data) == schedule
    assert _noisy(edm(), None).to_dict()["version"] == 1
    with pytest.raises(InvalidSchedule, match="version: noise in steps came with version 2"):
        Schedule.from_dict({**data, "version": 1})


def test_the_table_says_the_weight_where_something_is_drawn() -> None:
    plan = compile_plan(_noisy(edm(), StepNoise()))
    rows = plan.to_dict()["rows"]
    assert [r for r, row in enumerate(rows) if "noise" in row] == [1, 2, 3, 4]
    assert rows[2]["noise"] == plan.noise[2]
    assert all("noise" not in row for row in compile_plan(_noisy(edm(), None)).to_dict()["rows"])


@pytest.mark.parametrize(
    ("times", "step", "says"),
    [
        ((80.0, 0.0), {"noise": StepNoise()}, "steps.0..noise.kind: a step to the clean end"),
        (
            (8.0, 80.0, 0.0),
            {"noise": StepNoise()},
            "times.1.: times must fall at every step",
        ),
        (
            (8.0, 80.0, 0.0),
            {"noise": StepNoise(kind=NoiseKind.TIME, amount=9.0)},
            "steps.0..noise.amount: noise is added from a time below both ends",
        ),
        (
            (8.0, 2.0, 0.0),
            {"noise": StepNoise(kind=NoiseKind.TIME, amount=-1.0)},
            "steps.0..noise.amount: -1.0 is not a noise level",
        ),
        (
            (8.0, 2.0, 1.0, 8.0, 0.0),
            {"predictor": Adams(points=(-2, -1)), "noise": StepNoise(kind="time", amount=1.0)},
            "steps.3..predictor.points: point -2 does not exist, the history holds 1",
        ),
    ],
)
def test_what_cannot_be_is_said(times: tuple[float, ...], step: dict[str, Any], says: str) -> None:
    own = {"predictor": _DDIM, **step}
    n = len(times) - 1
    if n == 4:
        steps = [Step(predictor=_DDIM)] * 2 + [Step(predictor=_DDIM, noise=own["noise"])]
        steps.append(Step(predictor=own["predictor"]))
    else:
        steps = [Step(**own)] + [Step(predictor=_DDIM)] * (n - 1)
    with pytest.raises(InvalidSchedule, match=says):
        Schedule(process=edm(), times=times, steps=steps)


@pytest.mark.parametrize("noise", [{"kind": "gamma", "amount": 1.5}, {"amount": -0.1}])
def test_amounts_have_their_ranges(noise: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="amount"):
        StepNoise(**noise)
