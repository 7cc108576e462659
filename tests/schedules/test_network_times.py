"""Network times apart from the solver's: what they change, what they leave, what is refused."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.models.gaussian import eigenmode_gains
from s3search.processes import NoiseProcess, edm, flow, vp_discrete, vp_linear
from s3search.rules import LINEAR_PREDICTIONS, Adams, Prediction, Taylor
from s3search.rules.linear_form import combine
from s3search.schedules import published
from s3search.schedules.retime import retime
from s3search.schedules.schedule import Schedule, Start, StartKind, Step
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import run_plan, sample
from tests.support.helpers import EXAMPLES, gaussian, max_abs, noise, schedules


def _shifted(process: NoiseProcess, factor: float = 0.9) -> Schedule:
    """DPM-Solver++(2M) told 0.9 of every time but the first."""
    base = published.dpmpp_2m(process, nfe=4)
    return published.with_network_times(base, [None, *(factor * t for t in base.times[1:-1])])


@EXAMPLES
@given(schedules(), st.lists(st.floats(0.1, 0.9), min_size=6, max_size=6))
def test_every_shifted_schedule_compiles_and_survives_json(
    schedule: Schedule, places: list[float]
) -> None:
    assume(schedule.start.kind is StartKind.NETWORK)
    assume(not any(step.mixes_predictions for step in schedule.steps))
    low, high = schedule.process.time_range
    n_called = schedule.n_steps + (schedule.steps[-1].corrector is not None)
    told = [low + (high - low) * place for place in places[:n_called]]
    shifted = published.with_network_times(schedule, told)
    assert shifted.nfe == schedule.nfe
    assert Schedule.from_dict(shifted.to_dict()) == shifted
    plan, seen = compile_plan(shifted), []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return x * 0.1

    run_plan(network, plan, noise())
    assert tuple(seen) == plan.network_times
    assert set(seen) == set(told)


def test_being_told_the_own_time_changes_nothing() -> None:
    base = published.unipc(vp_linear(), nfe=5)
    assert published.with_network_times(base, base.times[:-1]).id == base.id


@pytest.mark.parametrize("prediction", LINEAR_PREDICTIONS)
def test_one_step_uses_the_prediction_at_the_level_told(prediction: Prediction) -> None:
    process, s, t, told = vp_linear(), 0.8, 0.4, 0.7
    step = Step(predictor=Taylor(prediction=prediction, order=1))
    schedule = Schedule(
        process=process, times=[s, t], steps=[step], start=Start(network_time=told)
    )
    denoiser, x = gaussian(process), noise()
    alpha = {time: process.alpha(time) for time in (s, t, told)}
    sigma = {time: process.sigma(time) for time in (s, t, told)}
    d = denoiser(x, x.new_full((len(x),), told))
    eps = (x - alpha[told] * d) / sigma[told]
    if prediction is Prediction.DATA:
        expected = alpha[t] * d + sigma[t] * (x - alpha[s] * d) / sigma[s]
    else:
        expected = alpha[t] * (x - sigma[s] * eps) / alpha[s] + sigma[t] * eps
    assert max_abs(run_plan(denoiser, compile_plan(schedule), x) - expected) < 1e-13


class _Corrupt(Adams):
    def next_state(self, history: Any, to: Any) -> Any:
        """A row that is off by one part in a million."""
        return combine(((1.0, super().next_state(history, to)), (1e-6, history[-1].data)))


def test_corrupt_row_does_not_survive_a_shift() -> None:
    schedule = published.with_network_times(published.euler(vp_linear(), nfe=3), [0.9, 0.5, 0.1])
    broken = schedule.steps[1].model_copy(update={"predictor": _Corrupt()})
    steps = (schedule.steps[0], broken, schedule.steps[2])
    with pytest.raises(InvalidSchedule, match=r"^steps\[1\]: .*does not carry a constant image"):
        compile_plan(schedule.model_copy(update={"steps": steps}))


def test_closed_form_of_a_shifted_plan_is_what_sampling_makes() -> None:
    process = edm()
    plan, denoiser = compile_plan(_shifted(process)), gaussian(process)
    gains = eigenmode_gains(plan, denoiser.eigenvalues.numpy())
    z = noise()
    u = denoiser.eigenvectors
    assert u is not None
    modes = z.flatten(1) @ u * z.new_tensor(gains.noise[0])
    modes += (denoiser.mean @ u) * z.new_tensor(gains.mean[0])
    assert max_abs(sample(denoiser, plan, z).flatten(1) - modes @ u.T) < 1e-11


def test_retimed_schedule_is_told_the_time_of_equal_lam() -> None:
    schedule = _shifted(vp_linear())
    moved = retime(schedule, edm())
    for step, other in zip(schedule.steps, moved.steps, strict=True):
        if step.network_time is None:
            assert other.network_time is None
            continue
        lam = vp_linear().lam(step.network_time)
        assert edm().lam(other.network_time) == pytest.approx(lam, abs=1e-9)


def test_later_fields_leave_the_id_and_json_of_other_schedules_alone() -> None:
    known = {
        "de42c34b28fae0eec0350d7636ede940": published.unipc(edm(), nfe=5, order=3),
        "c0f9bb162c073fd47f5dd9c610925a81": published.dpmpp_2m(flow(), nfe=6),
        "9e0111d5c7b846b1f131930b847b22c7": published.heun(edm(), nfe=9),
        "128a2f72c917162e165ef5efe4f2a6dd": published.ddim(vp_linear(), nfe=4),
    }
    assert {schedule.id for schedule in known.values()} == set(known)
    for schedule in known.values():
        wire = schedule.to_dict()
        assert wire["start"] == {"kind": "network", "image": None}
        assert all(step.keys() == {"predictor", "corrector"} for step in wire["steps"])


@pytest.mark.parametrize(
    ("owner", "told", "message"),
    [
        (1, 2.0, "network_time: 2.0"),
        (1, 0.0, "pure noise or the clean end"),
        (3, 0.5, "is not called after the last step"),
        ("start", 0.5, r"start.network_time: at pure noise"),
    ],
)
def test_impossible_network_times_are_refused(owner: Any, told: float, message: str) -> None:
    data = published.ddim(flow(), nfe=4).to_dict()
    place = data["start"] if owner == "start" else data["steps"][owner]
    place["network_time"] = told
    with pytest.raises(InvalidSchedule, match=message):
        Schedule.from_dict(data)


def test_analytic_start_takes_no_network_time() -> None:
    data = published.ddim(vp_discrete(), nfe=4).to_dict()
    data["start"] = {"kind": "zero_x0", "network_time": 900.0}
    with pytest.raises(InvalidSchedule, match="makes no call"):
        Schedule.from_dict(data)


def test_as_many_network_times_as_called_points() -> None:
    with pytest.raises(InvalidSchedule, match="calls at 4 points, found 2"):
        published.with_network_times(published.ddim(edm(), nfe=4), [1.0, 2.0])


def test_a_velocity_refuses_to_be_told_other_times() -> None:
    base = published.flow_2m(flow(), nfe=4)
    with pytest.raises(InvalidSchedule, match="mixes D and eps"):
        published.with_network_times(base, [None, 0.5, None, None])
