"""One network has the same published baselines whatever process it is seen under."""

import math

import pytest
from torch import Tensor

from s3search.models.views import seen_as
from s3search.processes import (
    NoiseProcess,
    edm,
    flow,
    usual_end_time,
    vp_cosine,
    vp_discrete,
    vp_linear,
)
from s3search.schedules.published.baselines import (
    FROM_NOISY_END,
    published_solvers,
    published_solvers_of_before,
    usual_variant,
)
from s3search.schedules.spacing import BEGIN, Spacing
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support.helpers import PROCESSES, gaussian, max_abs, noise

NFE = 4
Images = dict[tuple[str, str], Tensor]
OWN_TIME = ("uniform", "quadratic", "beta")


def _images(process: NoiseProcess) -> Images:
    """x / alpha of every published baseline, by solver and variant."""
    view, z = seen_as(gaussian(edm()), process), noise(2)
    found: Images = {}
    for each in published_solvers(process, NFE):
        plan = compile_plan(each.schedule)
        found[each.solver, each.variant] = sample(view, plan, z) / plan.levels[-1].alpha
    return found


def _end(variant: str) -> float | None:
    """The end level that a variant names."""
    _, rule, *_ = variant.split(", ")
    _, *sigma = rule.split(" ")
    return float(sigma[0]) if sigma else None


@pytest.fixture(scope="module")
def of_edm() -> Images:
    return _images(edm())


def test_a_flow_has_all_that_edm_has_to_the_last_digits(of_edm: Images) -> None:
    of_flow = _images(flow())
    assert set(of_edm) <= set(of_flow)
    for name, images in of_edm.items():
        assert max_abs(of_flow[name] - images) < 1e-8, name
    assert all(FROM_NOISY_END in variant for _, variant in set(of_flow) - set(of_edm))


@pytest.mark.parametrize("process", [vp_linear(), vp_discrete(), vp_cosine()])
def test_a_variance_preserving_process_has_all_whose_levels_it_was_trained_on(
    process: NoiseProcess, of_edm: Images
) -> None:
    found = _images(process)
    lowest = math.exp(-process.lam(usual_end_time(process)))
    expected = {name for name in of_edm if (_end(name[1]) or 1.0) >= 0.999 * lowest}
    assert expected <= set(found)
    is_same = [
        (solver, variant)
        for solver, variant in of_edm
        if (solver, variant) in found
        and _end(variant) is not None
        and variant.split(",")[0] not in OWN_TIME
        and solver != "DEIS tAB-3"  # in the process's own clock
    ]
    assert len(is_same) > 50
    for name in is_same:
        most = 1e-8 if (_end(name[1]) or 0.0) > lowest else 1e-4  # which ends at the lowest
        assert max_abs(found[name] - of_edm[name]) < most, name


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_every_spacing_is_there_and_begins_no_noisier_than_edm(process: NoiseProcess) -> None:
    made = published_solvers(process, NFE)
    assert {each.variant.split(",")[0] for each in made} == {each.value for each in Spacing}
    assert usual_variant(process) in {each.variant for each in made}
    noisiest = min(BEGIN, math.exp(-max(process.lam(process.time_range[1]), -20.0)))
    for each in made:
        ratio = math.exp(-max(process.lam(each.schedule.times[0]), -20.0))
        is_beyond = FROM_NOISY_END in each.variant
        assert is_beyond == (ratio > BEGIN * 1.001), each.name
        assert is_beyond or ratio == pytest.approx(noisiest)
    before = published_solvers_of_before(process, NFE)
    assert {each.schedule.times[0] for each in before} == {process.time_range[1]}
    assert edm().sigma_max == BEGIN
