"""What a new user is told of three models, beside stock schedulers measured from outside."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install s3search[diffusers]"
)

from s3search.evaluation.evaluator import Evaluator
from s3search.formats.exporters.schedule_json import save_export
from s3search.metrics.frechet import FeatureStatistics, FrechetReference
from s3search.schedules.published import dpmpp_2m
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support import small_nets
from tests.support.claims import (
    MODELS,
    NFE,
    OUTSIDE_SEED,
    Claim,
    Outside,
    brought,
    claim_of,
    study,
)
from tests.support.outside import Against, against_best, frechet, run_stock, stock, stock_on_flows

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning:diffusers.*"
)

SEARCHED, MEASURED = 60, 120  # images of a search's evaluation; held out, and outside
BUDGETS = (20, 60)  # 300 and more: python -m tests.benchmarks.bench_claims


@pytest.mark.slow
def test_a_pipelines_study_claims_no_more_than_stock_schedulers_allow(tmp_path: Path) -> None:
    """After a small budget, and when it is raised."""
    pipeline = brought("DDPMPipeline", tmp_path)
    outside = Outside(pipeline, MEASURED)
    for evaluations in BUDGETS:
        config = study(
            pipeline, tmp_path, evaluations=evaluations, n_images=SEARCHED, n_validated=MEASURED
        )
        claim = claim_of(config, tmp_path)
        _check(claim, outside.against(claim.schedule))


def _check(claim: Claim, measured: Against) -> None:
    """Neither words nor numbers say more than can be measured, as far as it can be measured."""
    assert claim.verdict in ("beats", "loses", "undecided", "not covered")
    if claim.verdict == "beats":
        assert measured.ratio.interval[1] >= 1, (claim, measured)
    assert claim.ratio is not None
    for said, found in (
        (claim.ratio, measured.ratio),
        (claim.less_real, measured.less_real),
    ):
        if said is not None and found is not None:
            assert said.interval[0] <= found.interval[1], (claim, measured)


# -- that what measures from outside is right -----------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_an_exported_schedule_makes_our_images_outside(name: str, tmp_path: Path) -> None:
    model = brought(name, tmp_path)
    config = study(model, tmp_path, evaluations=2, n_images=2, n_validated=2)
    denoiser = Evaluator(config.evaluator_spec).denoiser
    schedule = dpmpp_2m(denoiser.process, nfe=NFE)
    save_export(schedule, tmp_path / "schedule.json")
    draw = torch.Generator().manual_seed(OUTSIDE_SEED)
    noise = torch.randn((4, *model.real.shape[1:]), generator=draw)
    expected = sample(denoiser, compile_plan(schedule), noise).clamp(-1, 1)
    found = model.replay(tmp_path / "schedule.json", noise).clamp(-1, 1)
    assert float(expected.std()) > 0.3
    assert torch.allclose(found, expected, atol=5e-3)  # a pipeline divides by alpha = 0.006


@pytest.mark.parametrize("load", [small_nets.epsilon_on_vp, small_nets.rectified_flow])
def test_the_models_see_the_clean_image_and_the_slip_does_not(
    load: Callable[[], small_nets.SmallDenoiser],
) -> None:
    process = load().process
    real = small_nets.images()[:32]
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    for lam in (3.0, 1.0, 0.0):
        t = process.time_of_lam(lam)
        noisy = process.alpha(t) * real + process.sigma(t) * noise
        times = torch.full((len(real),), t)
        seen = _error(load()(noisy, times), real)
        assert seen < 0.6 * _error(noisy / process.alpha(t), real)
        if load is small_nets.epsilon_on_vp:
            assert _error(small_nets.epsilon_slip()(noisy, times), real) > 5 * seen


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).square().mean())


def test_the_distance_outside_is_ours() -> None:
    draw = np.random.default_rng(0)
    of, other = draw.normal(size=(300, 8)), 1.5 * draw.normal(size=(200, 8)) + 0.3
    ours = FrechetReference.of(FeatureStatistics.of(other)).distance(FeatureStatistics.of(of))
    assert frechet(of, other) == pytest.approx(ours, rel=1e-9)
    others = {"far": other[:100] + 1.0, "near": other[:100]}
    measured = against_best(0.5 * of[:100] + 2.0, others, of)
    assert measured.name == "near"
    assert measured.real < measured.stock < measured.found
    ratio, less_real = measured.ratio, measured.less_real
    assert less_real is not None
    assert ratio.value == measured.stock / measured.found > less_real.value
    assert ratio.interval[0] < ratio.value < ratio.interval[1] < 1


def test_stock_schedulers_make_as_many_calls_as_asked() -> None:
    without = set()
    for name, scheduler in [*stock({}).items(), *stock_on_flows().items()]:
        calls: list[Tensor] = []

        def network(x: Tensor, t: Tensor, calls: list[Tensor] = calls) -> Tensor:
            calls.append(t)
            return 0.9 * x

        images = run_stock(scheduler, NFE, network, torch.randn(2, 1, 4, 4))
        assert len(calls) == (0 if images is None else NFE), name
        without |= set() if calls else {name.split()[0]}
    assert without == {"PNDMScheduler"}  # whose Runge-Kutta beginning takes more
