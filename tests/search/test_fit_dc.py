"""Fitting DC-Solver's ratios: the exact minimum of every step, and better images."""

import pytest
import torch

from s3search.errors import InvalidConfig
from s3search.models.gaussian import GaussianMixture
from s3search.processes import NoiseProcess, edm, flow, vp_linear
from s3search.rules import LINEAR_PREDICTIONS, Prediction
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import End, EndRule
from s3search.search.edit.fit_dc import fit_dc_ratios
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support.helpers import noise


def _mixture(process: NoiseProcess) -> GaussianMixture:
    means = torch.tensor([[1.0, -1.0, 0.5, 0.0], [-0.8, 0.6, -0.5, 0.9], [0.0, 0.3, 1.0, -1.0]])
    return GaussianMixture(
        process, means.reshape(3, 1, 2, 2), torch.tensor([0.2, 0.3, 0.1]), torch.full((3,), 1 / 3)
    )


def _error(schedule: Schedule, process: NoiseProcess, seed: int) -> float:
    z = noise(64, seed=seed)
    fine = published.dpmpp_3m(process, nfe=300)
    exact = sample(_mixture(process), compile_plan(fine), z)
    made = sample(_mixture(process), compile_plan(schedule), z)
    return float((made - exact).square().mean())


@pytest.mark.parametrize("dc_order", [1, 2])
@pytest.mark.parametrize("prediction", LINEAR_PREDICTIONS)
def test_fitted_ratios_cut_the_error_on_other_noise(prediction: Prediction, dc_order: int) -> None:
    process = edm()
    plain = published.unipc(process, nfe=6, order=2, prediction=prediction)
    ratios = fit_dc_ratios(
        _mixture(process), plain, noise(32), dc_order=dc_order, prediction=prediction
    )
    assert ratios[:dc_order] == (1.0,) * dc_order
    assert all(0.5 <= ratio <= 1.5 for ratio in ratios)
    fitted = published.with_ratios(plain, ratios, dc_order=dc_order, prediction=prediction)
    assert _error(fitted, process, 5) < 0.75 * _error(plain, process, 5)


def test_last_ratio_is_the_minimum_over_a_scan() -> None:
    process = vp_linear()
    plain = published.unipc(process, nfe=4, order=2)
    z = noise(16)
    ratios = fit_dc_ratios(_mixture(process), plain, z, n_substeps=60)
    fine = published.on_times(
        process,
        published.dpmpp_3m(process, nfe=400).times,
        published.dpm_multistep_steps(400, order=3),
    )
    exact = sample(_mixture(process), compile_plan(fine), z)

    def loss(last: float) -> float:
        schedule = published.with_ratios(plain, [*ratios[:-1], last])
        made = sample(_mixture(process), compile_plan(schedule), z)
        return float((made - exact).square().mean())

    scan = torch.linspace(0.5, 1.5, 201).tolist()
    assert ratios[-1] == pytest.approx(min(scan, key=loss), abs=0.01)


@pytest.mark.parametrize("make", [published.dpmpp_2m, published.unipc, published.heun])
def test_fit_takes_every_kind_of_corrector_and_a_clean_end(make) -> None:  # type: ignore[no-untyped-def]
    end = End(rule=EndRule.DENOISE)
    process = edm()
    plain = make(process, nfe=7, end=end)
    ratios = fit_dc_ratios(_mixture(process), plain, noise(8), dc_order=1)
    assert len(ratios) == plain.n_steps


def test_fit_starts_from_the_pure_noise_of_a_flow() -> None:
    plain = published.dpmpp_2m(flow(), nfe=5)
    assert len(fit_dc_ratios(_mixture(flow()), plain, noise(8))) == 5


def test_bounds_must_allow_no_compensation() -> None:
    with pytest.raises(InvalidConfig, match="bounds"):
        fit_dc_ratios(_mixture(edm()), published.ddim(edm(), nfe=3), noise(2), bounds=(1.1, 1.2))
