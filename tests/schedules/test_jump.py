"""Gaussian jumps: exact on Gaussian data, analytic starts as limits, JSON, refusals."""

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s3search.errors import IncompatibleStatistics, InvalidSchedule
from s3search.models.gaussian import eigenmode_gains
from s3search.processes import NoiseProcess, edm, flow, vp_linear
from s3search.rules import Prediction, Taylor
from s3search.schedules import published
from s3search.schedules.jump import GaussianJump
from s3search.schedules.retime import retime
from s3search.schedules.schedule import Schedule, Start, StartKind, Step
from s3search.schedules.spacing import noisy_time
from s3search.search.trial import schedule_key
from s3search.solvers.plan import check_table, compile_plan
from s3search.solvers.sample import sample
from tests.support.helpers import PROCESSES, gaussian, max_abs, noise

_MEAN = [[[0.3, -0.5], [0.1, 0.8]]]
_EACH_PROCESS = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


def gaussian_jump(
    from_time: float,
    mean: np.ndarray,  # (C, H, W)
    eigenvalues: np.ndarray,  # (M,)
    eigenvectors: np.ndarray,  # (M, M), columns
    *,
    n_modes: int,
) -> GaussianJump:
    """The jump that keeps the ``n_modes`` largest eigenvalues; the others get their average."""
    values = np.asarray(eigenvalues, dtype=np.float64)
    order = np.argsort(values)[::-1]
    kept, left = order[:n_modes], order[n_modes:]
    return GaussianJump(
        from_time=from_time,
        mean=np.asarray(mean, dtype=np.float64).tolist(),
        eigenvalues=values[kept].tolist(),
        eigenvectors=np.asarray(eigenvectors, dtype=np.float64)[:, kept].T.tolist(),
        rest=float(values[left].mean()) if len(left) else 0.0,
    )


def _jump(process: NoiseProcess, n_modes: int = 4) -> GaussianJump:
    data = gaussian(process)
    assert data.eigenvectors is not None
    return gaussian_jump(
        noisy_time(process),
        data.mean.reshape(1, 2, 2).numpy(),
        data.eigenvalues.numpy(),
        data.eigenvectors.numpy(),
        n_modes=n_modes,
    )


def _late(process: NoiseProcess, n: int = 4) -> Schedule:
    """DPM-Solver++(2M) without the first of its n intervals."""
    times = published.dpmpp_2m(process, nfe=n).times[1:]
    return published.on_times(process, times, published.dpm_multistep_steps(n - 1, order=2))


@_EACH_PROCESS
def test_jump_is_the_exact_flow_of_gaussian_data(process: NoiseProcess) -> None:
    schedule = published.with_jump(_late(process), _jump(process))
    z, first = noise(), noisy_time(process)
    x = z * process.sigma(first)
    expected = gaussian(process).exact_flow(x, first, schedule.times[0])
    found = compile_plan(schedule).first_state(z)
    assert max_abs(found - expected) < 1e-12 * max(1.0, max_abs(expected))


@_EACH_PROCESS
def test_jump_saves_the_call_and_keeps_the_end(process: NoiseProcess) -> None:
    """With many steps after it, the images are those of the whole exact flow."""
    schedule = published.with_jump(_late(process, 60), _jump(process))
    assert schedule.nfe == 59
    z, first = noise(), noisy_time(process)
    exact = gaussian(process).exact_flow(z * process.sigma(first), first, schedule.times[-1])
    assert max_abs(sample(gaussian(process), compile_plan(schedule), z) - exact) < 0.01


def test_directions_left_out_share_their_average() -> None:
    low = _jump(vp_linear(), n_modes=2)
    assert low.eigenvalues == pytest.approx((1.5, 0.7))
    assert low.rest == pytest.approx(0.12)
    full = _jump(vp_linear())
    values = [1.5, 0.7, 0.12, 0.12]
    same = full.model_copy(update={"eigenvalues": tuple(values)})
    states = [
        compile_plan(published.with_jump(_late(vp_linear()), jump)).first_state(noise())
        for jump in (low, same)
    ]
    assert max_abs(states[0] - states[1]) < 1e-13


@_EACH_PROCESS
@pytest.mark.parametrize("kind", [StartKind.AVERAGE_X0, StartKind.ZERO_X0])
def test_point_data_make_the_analytic_starts(process: NoiseProcess, kind: StartKind) -> None:
    """Without variance the jump is the first-order step whose D is the mean image, or zero."""
    mean = _MEAN if kind is StartKind.AVERAGE_X0 else [[[0.0, 0.0], [0.0, 0.0]]]
    first, late = noisy_time(process), _late(process)
    step = Step(predictor=Taylor(prediction=Prediction.DATA, order=1))
    image = mean if kind is StartKind.AVERAGE_X0 else None
    started = Schedule(
        process=process,
        times=(first, late.times[0]),
        steps=(step,),
        start=Start(kind=kind, image=image),
    )
    jumping = published.with_jump(late, GaussianJump(from_time=first, mean=mean))
    z = noise()

    def unused(x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        raise AssertionError("no call is needed")

    unused.process = process  # type: ignore[attr-defined]
    expected = sample(unused, compile_plan(started), z)  # type: ignore[arg-type]
    assert max_abs(compile_plan(jumping).first_state(z) - expected) < 1e-12


def test_jump_survives_json_and_has_its_own_identity() -> None:
    late = _late(edm())
    schedule = published.with_jump(late, _jump(edm(), n_modes=2))
    again = Schedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert again == schedule
    assert again.id == schedule.id != late.id
    assert schedule_key(schedule) != schedule_key(late)
    assert schedule_key(schedule) != schedule_key(published.with_jump(late, _jump(edm())))
    table = json.loads(json.dumps(compile_plan(schedule).to_dict()))
    assert table["noise_scale"] == 80.0
    check_table(schedule, table)
    table["start_map"]["gain"] *= 1.01
    with pytest.raises(InvalidSchedule, match="plan"):
        check_table(schedule, table)
    assert "start_map" not in compile_plan(late).to_dict()


def test_exported_map_is_three_lines_of_numpy() -> None:
    plan = compile_plan(published.with_jump(_late(vp_linear()), _jump(vp_linear(), n_modes=2)))
    table, z = plan.to_dict(), noise()
    own = {key: np.array(value) for key, value in table["start_map"].items()}
    x = table["noise_scale"] * z.flatten(1).numpy()
    u = own["directions"]
    x = own["offset"].reshape(-1) + own["gain"] * x + (own["gains"] * (x @ u.T)) @ u
    assert max_abs(plan.first_state(z).flatten(1) - torch.as_tensor(x)) < 1e-13


def test_retimed_jump_makes_the_same_picture() -> None:
    schedule = published.with_jump(_late(vp_linear()), _jump(vp_linear(), n_modes=3))
    moved = retime(schedule, edm(sigma_max=200.0))
    ends = [sample(gaussian(s.process), compile_plan(s), noise()) for s in (schedule, moved)]
    alpha = vp_linear().alpha(schedule.times[-1])
    assert max_abs(ends[0] / alpha - ends[1]) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jump_keeps_dtype_and_noise(dtype: torch.dtype) -> None:
    plan = compile_plan(published.with_jump(_late(flow()), _jump(flow())))
    z = noise(dtype=dtype)
    before = z.clone()
    assert plan.first_state(z).dtype == dtype
    assert torch.equal(z, before)


def test_closed_form_of_a_jump_is_refused() -> None:
    plan = compile_plan(published.with_jump(_late(edm()), _jump(edm())))
    with pytest.raises(IncompatibleStatistics, match="Gaussian jump"):
        eigenmode_gains(plan, np.ones(4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"from_time": 1e-3}, r"start.jump.from_time: the jump must fall"),
        ({"from_time": 2.0}, r"start.jump.from_time: 2.0"),
        ({"mean": [[[0.0], [0.0, 1.0]]]}, "rectangular"),
        ({"eigenvalues": [1.0]}, "one eigenvalue"),
        ({"eigenvalues": [-1.0, 1.0]}, "one eigenvalue"),
        ({"eigenvectors": [[1.0, 0.0], [0.0, 1.0]]}, "4 pixels"),
        ({"eigenvectors": [[1.0, 0.0, 0.0, 0.0], [0.6, 0.7, 0.0, 0.0]]}, "orthonormal"),
        ({"rest": -0.1}, "rest"),
        ({"variance": 0.1}, "unknown key"),
    ],
)
def test_impossible_jumps_are_refused(change: dict[str, Any], message: str) -> None:
    schedule = published.with_jump(_late(vp_linear()), _jump(vp_linear(), n_modes=2))
    data = copy.deepcopy(schedule.to_dict())
    data["start"]["jump"].update(change)
    with pytest.raises(InvalidSchedule, match=message):
        Schedule.from_dict(data)
