"""The sampling loop: what it leaves alone, what it refuses, and in which numbers it works."""

from typing import Any

import pytest
import torch
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess, edm, vp_linear
from s3search.schedules import published
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support.helpers import PROCESSES, gaussian, max_abs, noise

_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


@_EACH
def test_many_steps_reach_the_end_of_the_exact_flow(process: NoiseProcess) -> None:
    denoiser, z = gaussian(process), noise()
    schedule = published.unipc(process, nfe=60, order=3)
    x = z * process.sigma(schedule.times[0])
    exact = denoiser.exact_flow(x, schedule.times[0], schedule.times[-1])
    assert max_abs(sample(denoiser, compile_plan(schedule), z) - exact) < 2e-4 * max_abs(exact)


@_EACH
def test_images_do_not_depend_on_the_batch_size(process: NoiseProcess) -> None:
    denoiser, plan = gaussian(process), compile_plan(published.unipc(process, nfe=6))
    z = noise(7)
    together = sample(denoiser, plan, z)
    apart = torch.cat([sample(denoiser, plan, part) for part in z.split([1, 4, 2])])
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [published.unipc, published.heun, published.ddim])
def test_inputs_and_answers_are_not_modified(make) -> None:  # type: ignore[no-untyped-def]
    denoiser, seen = gaussian(edm()), []

    class Watched:
        process, sample_shape = denoiser.process, denoiser.sample_shape

        def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
            answer = denoiser(x, t)
            seen.append((x, x.clone(), answer, answer.clone()))
            return answer

    z = noise()
    before = z.clone()
    plan = compile_plan(make(edm(), nfe=5))
    tables = plan.p.copy(), plan.q.copy()
    sample(Watched(), plan, z)
    assert torch.equal(z, before)
    assert (plan.p == tables[0]).all()
    assert (plan.q == tables[1]).all()
    for x, x_then, answer, answer_then in seen:
        assert torch.equal(x, x_then)
        assert torch.equal(answer, answer_then)


def test_same_noise_gives_the_same_images() -> None:
    plan = compile_plan(published.dpmpp_2m(edm(), nfe=5))
    assert torch.equal(*(sample(gaussian(edm()), plan, noise()) for _ in range(2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_keep_the_dtype_of_the_noise(dtype: torch.dtype) -> None:
    plan, denoiser = compile_plan(published.dpmpp_2m(edm(), nfe=6)), gaussian(edm())
    images = sample(denoiser, plan, noise(dtype=dtype))
    assert images.dtype == dtype
    exact = sample(denoiser, plan, noise())
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    assert max_abs(images.double() - exact) < tolerance * max_abs(exact)


def test_condition_goes_to_every_call() -> None:
    seen = []

    class Conditioned:
        process, sample_shape = edm(), (1, 2, 2)

        def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
            seen.append(condition)
            assert t.shape == (len(x),)
            return 0.5 * x

    sample(Conditioned(), compile_plan(published.unipc(edm(), nfe=4)), noise(), labels=3)
    assert seen == [{"labels": 3}] * 4


def test_plan_of_another_process_is_refused() -> None:
    plan = compile_plan(published.ddim(vp_linear(), nfe=3))
    with pytest.raises(InvalidSchedule, match=r"^process: the schedule was made for"):
        sample(gaussian(edm()), plan, noise())


def test_edm_plans_run_on_networks_of_another_range() -> None:
    plan = compile_plan(published.ddim(edm(0.01, 40.0), nfe=3))
    assert sample(gaussian(edm()), plan, noise()).isfinite().all()
