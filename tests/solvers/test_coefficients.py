"""A schedule written with free steps makes the same images, and its table goes there and back."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s3search import Schedule, compile_plan, sample
from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess, edm, flow, vp_linear
from s3search.rules import Adams, Clock, Free, NoisePath, Scale, Taylor, Velocity
from s3search.rules.points import Prediction
from s3search.schedules import published
from s3search.schedules.published.network_times import with_network_times
from s3search.schedules.schedule import (
    Corrector,
    CorrectorKind,
    ModelPatch,
    StartKind,
    StatisticsReference,
    Step,
)
from s3search.search.edit.draft import random_schedule
from s3search.search.space import Problem, load_space
from s3search.solvers.coefficients import (
    CoefficientTable,
    as_coefficients,
    coefficient_table,
    schedule_of_table,
)
from tests.schedules.test_jump import gaussian_jump
from tests.support.helpers import EXAMPLES, gaussian, max_abs, noise, schedules

_PROCESSES: dict[str, NoiseProcess] = {"edm": edm(), "vp_linear": vp_linear(), "flow": flow()}
_DDIM = Taylor(prediction=Prediction.DATA, order=1)
_EPSILON = Taylor(prediction=Prediction.NOISE, order=1)


def _same_images(a: Schedule, b: Schedule) -> float:
    """The largest difference of the images from the same draws, of the size of the images."""
    denoiser, unit = gaussian(a.process), noise(3, seed=5)
    plans = compile_plan(a), compile_plan(b)
    draws = [noise(3, seed=6 + k) for k in range(len(plans[0].noisy_rows))]
    with torch.no_grad():
        x, y = (sample(denoiser, plan, unit, step_noise=draws) for plan in plans)
    return max_abs(x - y) / max(1.0, max_abs(x))


def _check(schedule: Schedule, tolerance: float = 1e-12) -> Schedule:
    made = as_coefficients(schedule)
    assert made.nfe == schedule.nfe == compile_plan(made).nfe
    assert compile_plan(made).n_rows == made.nfe + 1 + (made.start.kind is not StartKind.NETWORK)
    assert all(isinstance(step.predictor, Free) and step.corrector is None for step in made.steps)
    assert _same_images(schedule, made) < tolerance
    assert Schedule.from_dict(made.to_dict()).id == made.id
    first, again = coefficient_table(schedule), coefficient_table(made)
    for each in fields(CoefficientTable):
        a, b = getattr(first, each.name), getattr(again, each.name)
        if isinstance(a, np.ndarray):
            scale = max(1.0, float(np.abs(a).max(initial=0.0)))
            assert np.abs(a - b).max(initial=0.0) <= 1e-12 * scale, each.name
        else:
            assert a == b, each.name
    assert as_coefficients(made).nfe == made.nfe
    return made


def _carries(schedule: Schedule) -> set[bool]:
    return {step.predictor.carries_constants for step in schedule.steps}


@pytest.mark.parametrize("nfe", [3, 5, 8])
@pytest.mark.parametrize("process", _PROCESSES.values(), ids=list(_PROCESSES))
def test_every_published_solver_can_be_freed(process: NoiseProcess, nfe: int) -> None:
    for name, schedule in published.baselines(process, nfe).items():
        made = _check(schedule)
        assert _carries(made) == {True}, name


@given(
    st.sampled_from(["usf", "full"]),
    st.sampled_from(sorted(_PROCESSES)),
    st.integers(1, 8),
    st.integers(0, 2**32 - 1),
)
@EXAMPLES
def test_random_schedules_of_the_spaces_can_be_freed(
    space: str, process: str, nfe: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    wide = {"correctors": ["none", "pseudo", "implicit"]}
    _check(random_schedule(Problem(load_space(space, wide), _PROCESSES[process]), nfe, rng))


@given(schedules())
@EXAMPLES
def test_whatever_is_linear_can_be_freed(schedule: Schedule) -> None:
    _check(schedule)


def _heun(kind: CorrectorKind, *, last: bool = False) -> Schedule:
    """Three Euler steps of which the first, and the last if wanted, are corrected."""
    corrected = Corrector(kind=kind, rule=Adams(start=-2, points=(-2, -1)))
    end = Corrector(kind=CorrectorKind.PSEUDO, rule=Adams(start=-2, points=(-2, -1)))
    return Schedule(
        process=edm(),
        times=(80.0, 10.0, 2.0, 0.5),
        steps=(
            Step(predictor=_DDIM, corrector=corrected),
            Step(predictor=_DDIM),
            Step(predictor=_DDIM, corrector=end if last else None),
        ),
    )


def test_a_pseudo_corrector_is_written_out_of_sight() -> None:
    made = _check(_heun(CorrectorKind.PSEUDO))
    assert made.times == (80.0, 10.0, 2.0, 0.5)


def test_an_implicit_corrector_becomes_a_step_that_stays_at_its_level() -> None:
    made = _check(_heun(CorrectorKind.IMPLICIT))
    assert made.times == (80.0, 10.0, 10.0, 2.0, 0.5)


def test_the_last_corrector_becomes_a_step_too() -> None:
    made = _check(_heun(CorrectorKind.PSEUDO, last=True))
    assert made.times == (80.0, 10.0, 2.0, 0.5, 0.5)


@pytest.mark.parametrize("process", _PROCESSES.values(), ids=list(_PROCESSES))
def test_times_told_stay_told(process: NoiseProcess) -> None:
    schedule = published.dpmpp_2m(process, nfe=4)
    told = [None, *(t * 0.9 for t in schedule.times[1:4])]
    shifted = with_network_times(schedule, told)
    made = _check(shifted)
    assert compile_plan(made).network_times == compile_plan(shifted).network_times
    assert _same_images(schedule, shifted) > 1e-3


def test_predictions_of_noise_told_other_times_do_not_carry_an_image() -> None:
    """eps belongs to the level told, so the weights of D no longer sum to alpha."""
    schedule = published.on_times(
        vp_linear(), (1.0, 0.6, 0.3, 0.05), [Step(predictor=_EPSILON)] * 3
    )
    shifted = with_network_times(schedule, [None, *(t * 0.9 for t in schedule.times[1:3])])
    assert False in _carries(_check(shifted))


def test_a_curved_path_carries_nothing() -> None:
    curved = Velocity(path=NoisePath(clock=Clock.VP, scale=Scale.VP))
    schedule = Schedule(process=edm(), times=(80.0, 5.0, 0.5), steps=(Step(predictor=curved),) * 2)
    assert _carries(_check(schedule)) == {False}


def test_a_jump_stays_in_the_start() -> None:
    values = np.array([0.5, 0.4, 0.3, 0.2])
    jump = gaussian_jump(80.0, np.full((1, 2, 2), 0.2), values, np.eye(4), n_modes=2)
    late = published.on_times(edm(), (10.0, 2.0, 0.1), published.ddim_steps(2))
    schedule = published.with_jump(late, jump)
    assert _check(schedule).start.jump == schedule.start.jump is not None


@pytest.mark.parametrize("kind", [CorrectorKind.IMPLICIT, CorrectorKind.PSEUDO])
def test_a_patch_of_steps_needs_their_number(kind: CorrectorKind) -> None:
    schedule = _heun(kind)
    patched = Schedule(
        process=schedule.process,
        times=schedule.times,
        steps=schedule.steps,
        model_patch=ModelPatch(skip_layers=((), (1,), ())),
    )
    if kind is CorrectorKind.PSEUDO:
        assert as_coefficients(patched).model_patch == patched.model_patch
        return
    with pytest.raises(InvalidSchedule, match=r"^model_patch.skip_layers: .* 3 steps, .* make 4"):
        as_coefficients(patched)


def test_steps_with_statistics_cannot_be_freed() -> None:
    v3 = Taylor(prediction=Prediction.V3, order=1)
    schedule = Schedule(
        process=edm(),
        times=(80.0, 1.0),
        steps=(Step(predictor=v3),),
        statistics=StatisticsReference(digest="0" * 32),
    )
    with pytest.raises(InvalidSchedule, match=r"^steps\[0\].predictor: v3 steps"):
        as_coefficients(schedule)


def test_moved_coefficients_come_back_as_they_are() -> None:
    """What an optimiser does: any numbers, at any levels, told anything."""
    table = coefficient_table(published.dpmpp_2m(edm(), nfe=3))
    moved = replace(
        table,
        times=table.times * [1.0, 0.5, 0.5, 1.0],
        q=table.q * 1.1,
        p0=np.array([1.0, 0.3, 0.2, 0.0]),
        network_times=table.network_times * 0.97,
    )
    schedule = schedule_of_table(moved, provenance={"polished": True})
    assert _carries(schedule) == {False}
    assert schedule.provenance == {"polished": True}
    again = coefficient_table(schedule)
    for name in ("times", "p0", "q", "network_times"):
        assert np.array_equal(getattr(again, name), getattr(moved, name)), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": np.ones(3)}, r"times: a table of 3 calls has shape \(4,\), found \(3,\)"),
        ({"q": np.ones((4, 3))}, "q: a row uses a call that is made at it or later"),
        ({"p0": np.full(4, 0.5)}, "p0: row 0 is x_0 itself"),
        ({"constant": np.ones(4)}, "constant: only a start 'average_x0'"),
        ({"p0": np.array([1.0, np.nan, 0.0, 0.0])}, "p0: holds a number that is not finite"),
        ({"times": np.array([80.0, 1.0, -2.0, 0.5])}, r"times\[2\]: -2.0 is not a noise level"),
        ({"times": np.array([80.0, 1.0, 2.0, 0.5])}, r"times\[2\]: times must fall"),
    ],
)
def test_tables_that_are_no_schedule_are_refused(
    change: dict[str, np.ndarray], message: str
) -> None:
    table = replace(coefficient_table(published.ddim(edm(), nfe=3)), **change)
    with pytest.raises(InvalidSchedule, match=f"^({message})"):
        schedule_of_table(table)


def test_only_free_steps_may_stay_at_a_level() -> None:
    made = as_coefficients(_heun(CorrectorKind.IMPLICIT))
    for i in (1, 3):  # the step that stays, and one after it, as DDIM
        steps = [Step(predictor=_DDIM) if j == i else step for j, step in enumerate(made.steps)]
        with pytest.raises(InvalidSchedule, match=r"^times\[2\]: times must fall at every step"):
            Schedule(process=made.process, times=made.times, steps=steps)
