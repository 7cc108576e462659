"""Schedules of other numbers of calls, on the levels of one that is known."""

import math
from itertools import pairwise

import pytest

from s3search import compile_plan
from s3search.errors import InvalidSchedule
from s3search.processes import edm, vp_linear
from s3search.rules import NoiseKind, StepNoise, level
from s3search.schedules import published
from s3search.schedules.retime import retime
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import noisy_time
from s3search.schedules.stretch import fitted, with_nfe
from s3search.solvers.coefficients import as_coefficients
from s3search.solvers.sample import run_plan
from tests.support.helpers import PROCESSES, gaussian, max_abs, noise

_SOLVERS = (
    "DPM-Solver++(3M), karras, denoise",
    "UniPC-3 bh2, logsnr, stop",
    "DDIM, uniform, stop",
)


def _error(schedule: Schedule) -> float:
    """Against the exact flow of a Gaussian."""
    denoiser, plan = gaussian(schedule.process), compile_plan(schedule)
    x = noise() * plan.levels[0].sigma
    exact = denoiser.exact_flow(x, plan.levels[0].t, plan.levels[-1].t)
    return max_abs(run_plan(denoiser, plan, x) - exact)


def test_the_same_number_of_calls_is_the_schedule_itself() -> None:
    schedule = published.unipc(edm(), nfe=5)
    made = with_nfe(schedule, 5)
    assert made.schedule is schedule
    assert made.notes == ()


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("solver", _SOLVERS)
@pytest.mark.parametrize("nfe", [3, 9])
def test_other_calls_keep_both_ends_and_make_exactly_so_many(
    name: str, solver: str, nfe: int
) -> None:
    schedule = published.baselines(PROCESSES[name], 6).get(solver)
    if schedule is None:
        pytest.skip(f"{solver} does not exist on {name}")
    made = with_nfe(schedule, nfe)
    assert made.schedule.nfe == nfe
    ends = (schedule.times[0], schedule.times[-1])
    assert (made.schedule.times[0], made.schedule.times[-1]) == ends
    assert compile_plan(made.schedule).nfe == nfe
    assert all(note.startswith("approximated") for note in made.notes)


def test_levels_equidistant_in_log_snr_stay_so() -> None:
    schedule = published.ddim(edm(), nfe=6, spacing="logsnr")
    made = with_nfe(schedule, 9).schedule
    expected = published.ddim(edm(), nfe=9, spacing="logsnr")
    assert made.times == pytest.approx(expected.times)
    assert made.steps == expected.steps


def test_orders_are_limited_by_the_history_as_in_the_schedule() -> None:
    times = published.ddim(edm(), nfe=9, spacing="karras").times
    rising = published.dpm_multistep_steps(9, order=3, lower_order_final=False)
    schedule = published.on_times(edm(), times, rising)
    steps = with_nfe(schedule, 4).schedule.steps
    assert [step.predictor.order for step in steps] == [1, 2, 3, 3]  # type: ignore[union-attr]


def test_more_calls_come_nearer_to_the_exact_flow() -> None:
    schedule = published.dpmpp_2m(vp_linear(), nfe=6, spacing="logsnr")
    errors = [_error(with_nfe(schedule, nfe).schedule) for nfe in (4, 6, 12, 24)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[1] / 4


def test_heuns_calls_are_met_by_correctors_that_keep_theirs() -> None:
    heun = published.heun(edm(), nfe=7, end=published.End(rule="denoise"))
    made = with_nfe(heun, 6)
    assert made.schedule.nfe == 6
    assert any("keep their call" in note for note in made.notes)


def test_guidance_and_network_times_follow_their_call() -> None:
    plain = published.ddim(edm(), nfe=4, spacing="logsnr")
    told = [None, *(t * 1.1 for t in plain.times[1:-1])]
    schedule = published.with_guidance(
        published.with_network_times(plain, told), [1.0, 2.0, 3.0, 4.0]
    )
    made = with_nfe(schedule, 8).schedule
    assert made.model_patch is not None
    assert made.model_patch.guidance_scale == (1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0)
    own = [step.network_time for step in made.steps]
    assert own[-1] is None
    for at, t in zip(made.times[1:-1], own, strict=False):
        assert t is None or t == pytest.approx(at * 1.1)
    assert any(t is not None for t in own)


def test_free_steps_are_refused_with_what_would_do() -> None:
    schedule = as_coefficients(published.unipc(edm(), nfe=4))
    with pytest.raises(InvalidSchedule, match=r"steps\[0\]: a free step .* \(--solver unipc\)"):
        with_nfe(schedule, 6)


def test_no_number_of_steps_makes_one_call_with_a_corrector() -> None:
    with pytest.raises(InvalidSchedule, match=r"--nfe: no number .* makes 1 network calls"):
        with_nfe(published.unipc(edm(), nfe=4), 1)


@pytest.mark.parametrize("name", ["vp_linear", "vp_discrete", "flow"])
def test_levels_that_a_process_lacks_are_moved_into_its_range(name: str) -> None:
    target = PROCESSES[name]
    schedule = published.dpmpp_2m(edm(sigma_max=900.0), nfe=5, spacing="logsnr")
    made = fitted(schedule, target)
    there = retime(made.schedule, target)
    if name == "flow":  # which has every level
        assert made.notes == ()
        return
    assert there.times[0] == pytest.approx(noisy_time(target))
    lams = [level(target, t).lam for t in there.times]
    gaps = [b - a for a, b in pairwise(lams)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps))
    assert math.isfinite(_error(there))
    assert "approximated: sigma / alpha from" in made.notes[0]


def test_free_levels_are_not_fitted_and_those_inside_need_not_be() -> None:
    free = as_coefficients(published.unipc(edm(), nfe=4))
    with pytest.raises(InvalidSchedule, match="for the levels of 'vp_discrete'"):
        fitted(free, PROCESSES["vp_discrete"])
    inside = as_coefficients(published.unipc(edm(sigma_min=0.05, sigma_max=10.0), nfe=4))
    assert fitted(inside, PROCESSES["vp_discrete"]).schedule is inside


# -- noise in steps ------------------------------------------------------------------------


def _noisy(noise: StepNoise, nfe: int = 6) -> Schedule:
    """DDIM that adds the noise at every step but the last."""
    plain = published.ddim(vp_linear(), nfe=nfe, spacing="logsnr")
    steps = [step.model_copy(update={"noise": noise}) for step in plain.steps[:-1]]
    return plain.changed(steps=[*steps, plain.steps[-1]])


@pytest.mark.parametrize("nfe", [4, 9])
def test_an_amount_of_noise_is_kept(nfe: int) -> None:
    noise = StepNoise(kind=NoiseKind.GAMMA, amount=0.3, scale=1.01)
    made = with_nfe(_noisy(noise), nfe).schedule
    added = [step.noise for step in made.steps]
    assert added[: nfe - 2] == [noise] * (nfe - 2)
    assert added[-1] is None
    assert len(compile_plan(made).noisy_rows) >= nfe - 2


def test_a_time_from_which_noise_is_added_stays_as_far_below() -> None:
    process, made = vp_linear(), []
    plain = published.ddim(process, nfe=6, spacing="logsnr")
    times = [process.time_of_lam(process.lam(t) + 0.4) for t in plain.times[1:-1]]
    noises = [StepNoise(kind=NoiseKind.TIME, amount=t) for t in times]
    steps = [s.model_copy(update={"noise": n}) for s, n in zip(plain.steps, noises, strict=False)]
    schedule = plain.changed(steps=[*steps, plain.steps[-1]])
    made = [with_nfe(schedule, 9).schedule, fitted(schedule, edm(sigma_max=20.0)).schedule]
    for each in made:
        below = [
            process.lam(step.noise.amount) - process.lam(t)
            for step, t in zip(each.steps, each.times[1:], strict=True)
            if step.noise is not None
        ]
        assert len(below) >= 5
        assert below == pytest.approx([0.4] * len(below))


def test_noise_from_the_clean_end_stays_there() -> None:
    made = with_nfe(_noisy(StepNoise(kind=NoiseKind.TIME, amount=0.0)), 8).schedule
    assert {step.noise.amount for step in made.steps if step.noise is not None} == {0.0}


def test_levels_that_rise_are_refused() -> None:
    times = (80.0, 1.0, 8.0, 1.0, 0.02)
    restart = StepNoise(kind=NoiseKind.TIME, amount=1.0)
    steps = list(published.ddim_steps(4))
    steps[1] = steps[1].model_copy(update={"noise": restart})
    schedule = Schedule(process=edm(), times=times, steps=steps)
    with pytest.raises(InvalidSchedule, match=r"times\[2\]: a restart raises it from 1.0 to 8.0"):
        with_nfe(schedule, 6)
    with pytest.raises(InvalidSchedule, match=r"times\[2\]: a restart raises it"):
        fitted(schedule, edm(sigma_max=20.0))
