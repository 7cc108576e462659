"""The same network under another process makes the same images, with the same derivatives."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from s3search.evaluation.decoding import network_batches
from s3search.evaluation.fingerprints import modules_of
from s3search.models import digits
from s3search.models.views import seen_as
from s3search.processes import NoiseProcess, edm, flow, vp_cosine, vp_discrete, vp_linear
from s3search.schedules import published
from s3search.schedules.retime import retime
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support.helpers import gaussian, max_abs, noise

VIEWS = {"vp_discrete": vp_discrete(), "vp_linear": vp_linear(), "flow": flow()}
_EACH = pytest.mark.parametrize("process", VIEWS.values(), ids=VIEWS.keys())


@pytest.fixture(scope="module")
def network() -> digits.DigitsDenoiser:
    return digits.load()


@_EACH
@pytest.mark.parametrize("solver", ["ipndm", "unipc", "dpmpp_3s", "heun"])
def test_a_retimed_schedule_makes_the_same_images(
    network: digits.DigitsDenoiser, process: NoiseProcess, solver: str
) -> None:
    end = published.End(rule=published.EndRule.DENOISE, sigma=0.02)
    schedule = getattr(published, solver)(edm(), nfe=5, end=end)
    draw = torch.Generator().manual_seed(0)
    z = torch.randn((3, 1, 8, 8), generator=draw, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2])
    expected = sample(network, compile_plan(schedule), z, labels=labels)
    view = seen_as(network, process)
    images = sample(view, compile_plan(retime(schedule, process)), z, labels=labels)
    assert max_abs(images - expected) < 1e-5


@_EACH
def test_derivatives_are_those_of_the_denoiser_itself(process: NoiseProcess) -> None:
    own, view = gaussian(process), seen_as(gaussian(edm()), process)
    for ratio in (60.0, 1.0, 0.05):
        t = torch.full((2,), process.time_of_lam(-torch.tensor(ratio).log().item()))
        found = []
        for denoiser in (own, view):
            x, at = noise(2).requires_grad_(), t.double().requires_grad_()
            answer = denoiser(x, at)
            slopes = torch.autograd.grad(answer.square().sum(), (x, at))
            found.append((answer.detach(), *slopes))
        for mine, theirs in zip(*found, strict=True):
            assert max_abs(mine - theirs) < 1e-8 * max(1.0, max_abs(mine))


def test_each_image_has_its_own_time() -> None:
    view = seen_as(gaussian(edm()), flow())
    x, t = noise(3), torch.tensor([0.9, 0.1, 0.9], dtype=torch.float64)
    alone = [view(x[i : i + 1], t[i : i + 1]) for i in range(3)]
    assert max_abs(view(x, t) - torch.cat(alone)) < 1e-12


def test_levels_beyond_those_of_the_network_are_told_it_as_the_nearest() -> None:
    told: list[tuple[float, float]] = []

    class Inner:
        process, sample_shape = edm(0.01, 50.0), (1, 2, 2)

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            told.append((float(t[0].detach()), float(x.detach().square().mean().sqrt())))
            return x

    view = seen_as(Inner(), flow())
    ones = torch.ones((1, 1, 2, 2), dtype=torch.float64)
    for t in (1.0, 0.99, 0.5, 1e-4, 0.0):
        at = torch.full((1,), t, dtype=torch.float64, requires_grad=True)
        answer = view(t * ones, at)
        assert torch.isfinite(torch.autograd.grad(answer.sum(), at)[0]).all()
    assert [t for t, _ in told] == pytest.approx([50.0, 50.0, 1.0, 0.01, 0.01])
    assert told[0][1] == pytest.approx(2501.0**0.5)


def test_a_view_has_what_its_denoiser_has_but_for_what_belongs_to_the_process(
    network: digits.DigitsDenoiser,
) -> None:
    view: Any = seen_as(network, flow())
    assert (view.process, view.sample_shape) == (flow(), (1, 8, 8))
    assert view.condition(10, torch.Generator().manual_seed(0))["labels"].shape == (10,)
    assert isinstance(view, nn.Module)
    assert modules_of(view) == [view]
    assert seen_as(network, network.process) is network
    assert not hasattr(view, "decode")
    with pytest.raises(AttributeError):
        _ = view.nothing

    class Guided:
        process, sample_shape, pipeline = edm(), (1, 2, 2), "SomePipeline"

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            return x

        def with_guidance(self, scales: Sequence[float]) -> "Guided":
            return self

        def network_batches(self, times: Sequence[float]) -> int:
            return sum(t > 1.0 for t in times)

    guided: Any = seen_as(Guided(), vp_cosine())
    assert guided.with_guidance([1.0]).process == vp_cosine()
    assert not hasattr(guided, "pipeline")
    schedule = published.ddim(edm(), nfe=4)
    there = retime(published.ddim(edm(sigma_max=80.0), nfe=4), flow())
    plan = compile_plan(there)
    assert network_batches(seen_as(Guided(), flow()), plan) == network_batches(
        Guided(), compile_plan(schedule)
    )
