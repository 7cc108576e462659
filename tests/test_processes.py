"""Noise processes: levels, their inverses, floats against tensors, and what is refused."""

import math
from typing import Any

import pytest
import torch

from s3search.errors import InvalidSchedule
from s3search.processes import (
    NoiseProcess,
    edm,
    flow,
    process_from_dict,
    vp_cosine,
    vp_discrete,
    vp_linear,
)
from tests.support.helpers import PROCESSES

_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


def _inner_times(process: NoiseProcess, n: int = 40) -> list[float]:
    low, high = process.time_range
    return [low + (high - low) * (i + 0.37) / (n + 1) for i in range(n)]


@_EACH
def test_time_of_lam_inverts_lam(process: NoiseProcess) -> None:
    low, high = process.time_range
    for t in _inner_times(process):
        assert process.time_of_lam(process.lam(t)) == pytest.approx(t, abs=1e-11 * (high - low))


@_EACH
def test_lam_falls_with_time_and_is_the_log_of_the_ratio(process: NoiseProcess) -> None:
    times = _inner_times(process)
    lams = [process.lam(t) for t in times]
    assert lams == sorted(lams, reverse=True)
    for t, lam in zip(times, lams, strict=True):
        assert math.exp(lam) == pytest.approx(process.alpha(t) / process.sigma(t), rel=1e-12)


@_EACH
def test_clean_time_is_clean(process: NoiseProcess) -> None:
    t = process.clean_time
    assert (process.alpha(t), process.sigma(t), process.lam(t)) == (1.0, 0.0, math.inf)


@_EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 9])  # torch computes the rest of a vector another way
def test_clean_time_is_clean_in_tensors(process: NoiseProcess, dtype: torch.dtype, n: int) -> None:
    t = torch.full((n,), process.clean_time, dtype=dtype)
    torch.testing.assert_close(process.alpha(t), torch.ones_like(t), rtol=0, atol=0)
    torch.testing.assert_close(process.sigma(t), torch.zeros_like(t), rtol=0, atol=0)


@pytest.mark.parametrize("s", [0.001, 0.008, 0.02, 0.1])
def test_cosine_levels_keep_their_digits_near_the_clean_end(s: float) -> None:
    """In float32 too, and against the textbook's cosines where those have the digits."""
    process = vp_cosine(s)
    times = [10.0**-k for k in range(1, 8)]
    floats = torch.tensor([process.sigma(x) for x in times], dtype=torch.float64)
    rounded = process.sigma(torch.tensor(times, dtype=torch.float32))
    torch.testing.assert_close(rounded.double(), floats, rtol=1e-6, atol=0)
    for t in (0.1, 0.5, 0.9):
        cosines = [math.cos((x + s) / (1 + s) * math.pi / 2) for x in (t, 0.0)]
        assert process.alpha(t) == pytest.approx(cosines[0] / cosines[1], rel=1e-14)


@_EACH
def test_floats_and_tensors_agree(process: NoiseProcess) -> None:
    times = [*_inner_times(process), process.clean_time, process.time_range[1]]
    t = torch.tensor(times, dtype=torch.float64)
    for levels in (process.alpha, process.sigma):
        floats = torch.tensor([levels(x) for x in times], dtype=torch.float64)
        torch.testing.assert_close(levels(t), floats, rtol=1e-13, atol=1e-15)
        assert levels(t.float()).dtype == torch.float32


@pytest.mark.parametrize("name", ["vp_linear", "vp_cosine", "vp_discrete"])
def test_vp_levels_lie_on_the_unit_circle(name: str) -> None:
    process = PROCESSES[name]
    for t in _inner_times(process):
        assert process.alpha(t) ** 2 + process.sigma(t) ** 2 == pytest.approx(1.0, abs=1e-14)


def test_flow_starts_at_pure_noise() -> None:
    assert flow().alpha(1.0) == 0.0
    assert flow().lam(1.0) == -math.inf


def test_discrete_table_is_the_product_of_one_minus_beta() -> None:
    betas = [0.1, 0.2, 0.3]
    process = vp_discrete(betas)
    for i in range(3):
        product = math.prod(1 - beta for beta in betas[: i + 1])
        assert process.alpha(float(i)) ** 2 == pytest.approx(product, rel=1e-14)
    between = math.log(process.alpha(0.25))
    ends = [math.log(process.alpha(t)) for t in (0.0, 1.0)]
    assert between == pytest.approx(0.75 * ends[0] + 0.25 * ends[1], rel=1e-13)


def test_discrete_line_goes_on_below_the_first_level_but_not_to_alpha_one() -> None:
    process = vp_discrete("linear")
    assert process.check_time(-0.3) is None
    assert process.alpha(-0.3) > process.alpha(0.0)
    assert process.check_time(-0.99) is not None
    assert process.check_time(-1.0) is None


@_EACH
@pytest.mark.parametrize("t", [math.nan, math.inf, -5.0])
def test_impossible_times_are_refused(process: NoiseProcess, t: float) -> None:
    assert process.check_time(t) is not None


@_EACH
def test_process_survives_its_dict(process: NoiseProcess) -> None:
    assert process_from_dict(process.model_dump(mode="json")) == process


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "edmm"},
        {"type": "edm", "sigma_mim": 0.1},
        {"type": "edm", "sigma_min": -1.0},
        {"type": "edm", "sigma_min": math.nan},
        {"type": "vp_discrete", "betas": [0.1], "n": 2},
        {"type": "vp_discrete", "betas": [0.1, 1.5], "n": 2},
        {"type": "vp_discrete", "betas": "cubic"},
        None,
        [1],
    ],
)
def test_wrong_processes_are_refused_by_name(data: Any) -> None:
    with pytest.raises(InvalidSchedule, match=r"^process"):
        process_from_dict(data)


def test_edm_levels_do_not_depend_on_the_trained_range() -> None:
    assert edm(0.01, 50.0).same_levels(edm())
    assert not edm().same_levels(vp_linear())
    assert not vp_cosine(0.01).same_levels(vp_cosine())
