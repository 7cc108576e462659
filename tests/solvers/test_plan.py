"""Plans: their invariants, their calls, their starts, and batches of them."""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.processes import edm, flow, vp_linear
from s3search.rules import LINEAR_PREDICTIONS, Adams, Level, Point, Prediction, Taylor
from s3search.rules.linear_form import LinearForm, combine
from s3search.schedules import published
from s3search.schedules.schedule import (
    Corrector,
    CorrectorKind,
    Schedule,
    Start,
    StartKind,
    Step,
)
from s3search.schedules.spacing import End, EndRule
from s3search.solvers.plan import compile_plan, compile_plans
from s3search.solvers.sample import run_plan, sample
from tests.support.helpers import EXAMPLES, gaussian, max_abs, noise, schedules


@EXAMPLES
@given(schedules())
def test_every_valid_schedule_compiles_to_its_nfe(schedule: Schedule) -> None:
    plan = compile_plan(schedule)
    assert plan.nfe == schedule.nfe
    assert np.isfinite(plan.p).all()
    assert np.isfinite(plan.q).all()
    assert not np.triu(plan.p).any()
    json.dumps(plan.to_dict(), allow_nan=False)


@EXAMPLES
@given(schedules(max_steps=4))
def test_loop_makes_the_calls_of_the_plan_at_its_times(schedule: Schedule) -> None:
    plan, seen = compile_plan(schedule), []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return x * 0.1

    run_plan(network, plan, noise())
    assert tuple(seen) == plan.network_times
    assert len(seen) == schedule.nfe


@pytest.mark.parametrize("make", [published.dpmpp_3m, published.dpmpp_3s, published.unipc])
def test_rows_carry_constant_noise_and_a_constant_image(make) -> None:  # type: ignore[no-untyped-def]
    plan = compile_plan(make(vp_linear(), nfe=7))
    sigma = np.array([at.sigma for at in plan.levels])
    alpha = np.array([at.alpha for at in plan.levels])
    np.testing.assert_allclose((plan.p @ sigma)[1:], sigma[1:], atol=1e-12)
    np.testing.assert_allclose((plan.p @ alpha + plan.q.sum(1))[1:], alpha[1:], atol=1e-12)


class _Corrupt(Adams):
    """Euler with a constant image lost on the way."""

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """A row that is off by one part in a million."""
        good = super().next_state(history, to)
        return combine(((1.0, good), (1e-6, history[-1].data)))


def test_corrupt_row_does_not_survive() -> None:
    step = Step.model_construct(predictor=_Corrupt(), corrector=None)
    schedule = published.euler(edm(), nfe=3)
    broken = schedule.model_copy(update={"steps": (schedule.steps[0], step, schedule.steps[2])})
    with pytest.raises(InvalidSchedule, match=r"^steps\[1\]: .*does not carry a constant image"):
        compile_plan(broken)


# --- starts ---


@pytest.mark.parametrize(
    ("kind", "guess"),
    [
        (StartKind.ZERO_X0, lambda x, a, s: 0.0 * x),
        (StartKind.UNIT_NOISE, lambda x, a, s: (x - s * x / (a * a + s * s) ** 0.5) / a),
        (StartKind.AVERAGE_X0, lambda x, a, s: 0.0 * x + 0.25),
    ],
)
@pytest.mark.parametrize("process", [edm(), vp_linear()])
def test_analytic_start_replaces_the_first_answer(process, kind, guess) -> None:  # type: ignore[no-untyped-def]
    image = [[[0.25, 0.25], [0.25, 0.25]]] if kind is StartKind.AVERAGE_X0 else None
    plain = published.unipc(process, nfe=4, order=3)
    started = Schedule(
        process=process, times=plain.times, steps=plain.steps, start=Start(kind=kind, image=image)
    )
    denoiser = gaussian(process)
    first = compile_plan(plain).levels[0]

    def network(x: Tensor, t: Tensor) -> Tensor:
        return guess(x, first.alpha, first.sigma) if float(t[0]) == first.t else denoiser(x, t)

    x = noise() * first.sigma
    expected = run_plan(network, compile_plan(plain), x)
    plan = compile_plan(started)
    assert plan.nfe == 3
    assert max_abs(run_plan(denoiser, plan, x) - expected) < 1e-12


def test_plan_with_no_call_at_all_runs() -> None:
    schedule = Schedule(
        process=edm(), times=[80.0, 1.0], steps=[Step(predictor=Adams())],
        start=Start(kind=StartKind.ZERO_X0),
    )  # fmt: skip
    z = noise()
    assert max_abs(sample(gaussian(edm()), compile_plan(schedule), z) - z) < 1e-15


# --- correctors ---


def _corrected(kind: CorrectorKind) -> Schedule:
    rule = Adams(start=-2, points=(-2, -1))
    steps = [
        Step(predictor=Adams(), corrector=Corrector(kind=kind, rule=rule)),
        Step(predictor=Adams()),
    ]
    return Schedule(process=edm(), times=[4.0, 2.0, 1.0], steps=steps)


def _states_seen(schedule: Schedule) -> list[tuple[float, Tensor]]:
    seen, denoiser = [], gaussian(edm())

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append((float(t[0]), x.clone()))
        return denoiser(x, t)

    run_plan(network, compile_plan(schedule), noise() * 4.0)
    return seen


def test_implicit_corrector_calls_again_at_the_corrected_state() -> None:
    seen = _states_seen(_corrected(CorrectorKind.IMPLICIT))
    assert [t for t, _ in seen] == [4.0, 2.0, 2.0]
    (_, start), (_, predicted), (_, corrected) = seen
    denoiser = gaussian(edm())
    answers = [denoiser(x, x.new_full((4,), t)) for t, x in seen]
    slopes = [(start - answers[0]) / 4.0, (predicted - answers[1]) / 2.0]
    assert max_abs(corrected - (start - (slopes[0] + slopes[1]))) < 1e-14


def test_pseudo_corrector_moves_the_state_and_keeps_the_call() -> None:
    schedule = _corrected(CorrectorKind.PSEUDO)
    seen = _states_seen(schedule)
    assert [t for t, _ in seen] == [4.0, 2.0]
    (_, start), (_, predicted) = seen
    denoiser = gaussian(edm())
    first, second = ((x - denoiser(x, x.new_full((4,), t))) / t for t, x in seen)
    corrected = start - (first + second)
    end = run_plan(denoiser, compile_plan(schedule), start)
    assert max_abs(corrected - predicted) > 1e-3
    assert max_abs(end - (corrected - second)) < 1e-14  # the slope stays that of the predicted


# --- the ends of the process ---


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "dpmpp_3m", "unipc"])
def test_flow_runs_from_pure_noise_to_the_clean_end(name: str) -> None:
    process, end = flow(), End(rule=EndRule.DENOISE)
    plan = compile_plan(getattr(published, name)(process, nfe=24, spacing="uniform", end=end))
    denoiser, z = gaussian(process), noise()
    assert plan.levels[0].alpha == 0.0
    assert plan.levels[-1].sigma == 0.0
    exact = denoiser.exact_flow(z, 1.0, 0.0)
    assert max_abs(sample(denoiser, plan, z) - exact) < 0.15 * max_abs(exact)


@pytest.mark.parametrize("make", [published.dpmpp_2s, published.dpmpp_3s, published.heun])
def test_singlestep_solvers_refuse_pure_noise(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidSchedule, match=r"pure noise|infinite"):
        make(flow(), nfe=7)


@pytest.mark.parametrize("prediction", LINEAR_PREDICTIONS)
def test_one_step_to_the_clean_end_returns_the_call(prediction: Prediction) -> None:
    rule = Taylor(prediction=prediction, order=1)
    schedule = Schedule(process=vp_linear(), times=[0.7, 0.0], steps=[Step(predictor=rule)])
    denoiser, z = gaussian(vp_linear()), noise()
    x = z * vp_linear().sigma(0.7)
    assert (
        max_abs(sample(denoiser, compile_plan(schedule), z) - denoiser(x, x.new_full((4,), 0.7)))
        < 1e-14
    )


# --- batches and the portable table ---


def test_batch_pads_in_front() -> None:
    made = [published.unipc(edm(), nfe=n) for n in (3, 6)] + [published.heun(edm(), nfe=7)]
    batch = compile_plans(made)
    assert len(batch) == 3
    for b, plan in enumerate(batch):
        r, e = int(batch.first_row[b]), plan.nfe
        np.testing.assert_array_equal(batch.p[b, r:, r:], plan.p)
        np.testing.assert_array_equal(batch.q[b, r:, :e], plan.q)
        assert not batch.p[b, :r].any()
        assert not batch.q[b, :, e:].any()
        assert (batch.evaluated[b, :e] - r).tolist() == list(plan.evaluated)
        assert (batch.evaluated[b, e:] == -1).all()
    assert len(compile_plans([])) == 0


@EXAMPLES
@given(schedules(max_steps=4))
def test_portable_table_runs_in_a_few_lines(schedule: Schedule) -> None:
    """What another runtime does with the JSON, and nothing of ours."""
    plan, z = compile_plan(schedule), noise(2)
    table = json.loads(json.dumps(plan.to_dict()))
    denoiser = gaussian(schedule.process)
    image = 0.0 if table["image"] is None else z.new_tensor(table["image"])
    states, answers = [], []
    for row in table["rows"]:
        x = z * table["noise_scale"] if not states else row["constant"] * image
        x = x + sum(c * s for c, s in zip(row["p"], states, strict=True))
        x = x + sum(c * a for c, a in zip(row["q"], answers, strict=True))
        states.append(x)
        if row["network_time"] is not None:
            answers.append(denoiser(x, x.new_full((2,), row["network_time"])))
    expected = sample(denoiser, plan, z)
    scale = max(1.0, *(max_abs(s) for s in states))
    assert max_abs(states[-1] - expected) <= 1e-10 * scale


def test_plan_cannot_be_changed() -> None:
    plan = compile_plan(published.euler(edm(), nfe=2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.evaluated = ()  # type: ignore[misc]
