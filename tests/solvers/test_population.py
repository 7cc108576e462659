"""Plans in one batch: the images of each alone, for as many calls as the longest makes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.models import digits
from s3search.processes import NoiseProcess, edm, flow, vp_linear
from s3search.schedules import published
from s3search.solvers.plan import Plan, compile_plan
from s3search.solvers.sample import sample, sample_population
from tests.support.helpers import PROCESSES, gaussian, noise


def _plans(process: NoiseProcess) -> list[Plan]:
    heun = published.flow_heun if process == flow() else published.heun
    made = (
        published.unipc(process, nfe=6, order=3),
        published.ddim(process, nfe=3),
        heun(process, nfe=5),
        published.ddim(process, nfe=1),
    )
    return [compile_plan(schedule) for schedule in made]


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_each_plan_makes_what_it_makes_alone(process: NoiseProcess) -> None:
    denoiser, plans, z = gaussian(process), _plans(process), noise(5)
    for plan, found in zip(plans, sample_population(denoiser, plans, z), strict=True):
        torch.testing.assert_close(found, sample(denoiser, plan, z), rtol=1e-12, atol=1e-12)


def test_each_image_keeps_its_condition_in_every_plan() -> None:
    denoiser, plans = digits.load(), _plans(edm())
    generator = torch.Generator().manual_seed(1)
    z = torch.randn((7, *denoiser.sample_shape), generator=generator)
    condition = denoiser.condition(7, generator)
    for plan, found in zip(plans, sample_population(denoiser, plans, z, **condition), strict=True):
        alone = sample(denoiser, plan, z, **condition)
        assert found.dtype == alone.dtype
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)


class _Counted:
    """Notes the images of every call."""

    def __init__(self) -> None:
        self._inner = gaussian(edm())
        self.process, self.sample_shape = self._inner.process, self._inner.sample_shape
        self.sizes = list[int]()

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        assert len(x) == len(t)
        self.sizes.append(len(x))
        return self._inner(x, t)


def test_call_j_of_all_plans_is_one_call_and_finished_plans_are_in_it_no_more() -> None:
    counted = _Counted()
    sample_population(counted, _plans(edm()), noise(5))  # of 6, 3, 5 and 1 calls; the first alike
    assert counted.sizes == [5, 15, 15, 10, 10, 5]


class _Kept(dict[str, Tensor]):
    def keep(self, key: str, call: int, answer: Tensor) -> None:
        self[key] = answer


def test_answers_that_were_kept_are_not_asked_for_again() -> None:
    plans, z, kept, counted = _plans(edm()), noise(5), _Kept(), _Counted()
    first = sample_population(counted, plans[:2], z, kept)
    counted.sizes.clear()
    again = sample_population(counted, plans, z, kept)
    assert counted.sizes == [5, 5, 5, 5]  # of the third plan alone, behind its first call
    for one, other in zip(first, again, strict=False):
        assert torch.equal(one, other)
    for plan, found in zip(plans, again, strict=True):
        torch.testing.assert_close(found, sample(_Counted(), plan, z), rtol=1e-12, atol=1e-12)


def test_a_plan_of_another_process_is_refused_before_any_call() -> None:
    plans = [*_plans(edm()), compile_plan(published.ddim(vp_linear(), nfe=2))]
    with pytest.raises(InvalidSchedule, match="the model has"):
        sample_population(gaussian(edm()), plans, noise(2))
