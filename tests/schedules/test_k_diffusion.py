"""k-diffusion's samplers and lists of sigmas, against their formulas written out."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from torch import Tensor

from s3search.processes import edm
from s3search.schedules import published
from s3search.schedules.published.k_diffusion import K_SAMPLERS, K_SIGMAS
from s3search.schedules.spacing import End, EndRule
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support.helpers import gaussian, max_abs, noise


def _dpmpp_2s(sigmas: Sequence[float]) -> Tensor:
    """Two calls a step, the second at the geometric mean; Euler to 0."""
    model, x = gaussian(edm()), noise() * sigmas[0]
    for now, then in pairwise(sigmas):
        clean = model(x, x.new_full((len(x),), now))
        if then == 0.0:
            x = clean
            continue
        middle = math.sqrt(now * then)
        half = middle / now * x - (middle / now - 1.0) * clean
        clean = model(half, x.new_full((len(x),), middle))
        x = then / now * x - (then / now - 1.0) * clean
    return x


def _heun(sigmas: Sequence[float]) -> Tensor:
    """The trapezoid rule in sigma; Euler to 0."""
    model, x = gaussian(edm()), noise() * sigmas[0]
    for now, then in pairwise(sigmas):
        slope = (x - model(x, x.new_full((len(x),), now))) / now
        ahead = x + (then - now) * slope
        if then > 0.0:
            other = (ahead - model(ahead, x.new_full((len(x),), then))) / then
            ahead = x + (then - now) * (slope + other) / 2
        x = ahead
    return x


@pytest.mark.parametrize(("name", "formula"), [("dpmpp_2s", _dpmpp_2s), ("heun", _heun)])
def test_a_sampler_makes_the_images_of_its_formula(
    name: str, formula: Callable[[Sequence[float]], Tensor]
) -> None:
    sigmas = K_SIGMAS["karras"](4, edm())
    schedule = K_SAMPLERS[name].make(edm(), sigmas)
    assert schedule.nfe == 7
    assert (
        max_abs(sample(gaussian(edm()), compile_plan(schedule), noise()) - formula(sigmas)) < 1e-9
    )


def test_every_sampler_has_steps_of_its_own_on_every_list() -> None:
    plans = set()
    for make in K_SIGMAS.values():
        sigmas = make(5, edm(sigma_min=0.01, sigma_max=50.0))
        assert sigmas[0] == 50.0
        assert sigmas[-2:] == pytest.approx([0.01, 0.0])
        assert make(1, edm(sigma_max=50.0)) == [50.0, 0.0]
        for sampler in K_SAMPLERS.values():
            plans.add(sampler.make(edm(), sigmas).id)
    assert len(plans) == len(K_SAMPLERS) * len(K_SIGMAS)


def test_the_lists_are_those_of_their_formulas() -> None:
    low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
    middle = [(high + i / 3 * (low - high)) ** 7 for i in range(4)]
    assert K_SIGMAS["karras"](4, edm()) == pytest.approx([*middle, 0.0])
    even = [80.0 * (0.002 / 80.0) ** (i / 3) for i in range(4)]
    assert K_SIGMAS["exponential"](4, edm()) == pytest.approx([*even, 0.0])


def test_lms_keeps_its_order_on_the_last_step_and_rho_ab_does_not() -> None:
    end = End(rule=EndRule.DENOISE)
    made = published.lms(edm(), nfe=8, order=4)
    assert made == K_SAMPLERS["lms"].make(edm(), list(made.times))
    lowered = published.rho_ab(edm(), nfe=8, order=4, end=end)
    assert lowered.times == made.times
    assert lowered.steps[:-1] == made.steps[:-1]
    assert lowered.steps[-1] == published.ddim_steps(1)[0]
