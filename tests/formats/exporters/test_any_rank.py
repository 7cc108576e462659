"""What is exported makes the numbers of our loop in states of any rank."""

from pathlib import Path

import diffusers
import pytest
import torch
from torch import Tensor

from s3search.formats.exporters.runtime.run_plan import run_plan
from s3search.formats.exporters.schedule_json import export_dict
from s3search.integrations.diffusers import S3Scheduler
from s3search.models.gaussian import GaussianDenoiser
from s3search.processes import flow
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, Start, StartKind
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from s3search.solvers.shapes import Shape
from s3search.solvers.step_noise import block_noise
from tests.formats.exporters.files import exported

SHAPES = [(12,), (4, 3), (2, 3, 2, 1)]
_EACH = pytest.mark.parametrize("shape", SHAPES)


def _denoiser(shape: Shape) -> GaussianDenoiser:
    return GaussianDenoiser(flow(), torch.full(shape, 0.1), torch.linspace(0.05, 1.0, 12))


def _schedule(shape: Shape, *, begins_at_mean: bool = False) -> Schedule:
    found = published.unipc(flow(), nfe=4, order=2)
    if not begins_at_mean:
        return found
    image = torch.linspace(-0.5, 0.5, 12).reshape(shape).tolist()
    start = Start(kind=StartKind.AVERAGE_X0, image=image)
    return found.changed(start=start, provenance={})


def _ours(schedule: Schedule, shape: Shape) -> tuple[Tensor, Tensor]:
    noise = block_noise(3, 0, 0, shape)[:2].double()
    return noise, sample(_denoiser(shape), compile_plan(schedule), noise)


@_EACH
def test_the_plain_loop(shape: Shape) -> None:
    schedule, denoiser = _schedule(shape, begins_at_mean=True), _denoiser(shape)
    noise, ours = _ours(schedule, shape)
    plan = export_dict(schedule)["plan"]
    made = run_plan(
        plan,
        lambda x, t: denoiser(x, x.new_full((len(x),), t)),
        noise,
        image=noise.new_tensor(plan["image"]),
    )
    torch.testing.assert_close(made, ours)


@_EACH
def test_the_sampler_of_k_diffusion(shape: Shape, tmp_path: Path) -> None:
    schedule, denoiser = _schedule(shape, begins_at_mean=True), _denoiser(shape)
    noise, ours = _ours(schedule, shape)
    names, _ = exported("k-diffusion", schedule, tmp_path)

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, sigma)  # a flow keeps its own states there

    made = names["sample_s3"](model, noise * names["sigmas"][0])
    torch.testing.assert_close(made, ours)


@_EACH
def test_the_scheduler_of_diffusers(shape: Shape) -> None:
    schedule, denoiser = _schedule(shape), _denoiser(shape)
    noise, ours = _ours(schedule, shape)
    config = diffusers.FlowMatchEulerDiscreteScheduler().config
    scheduler = S3Scheduler.from_schedule(schedule, config)
    scheduler.set_timesteps(num_inference_steps=4)
    x = noise * float(scheduler.init_noise_sigma)
    for t in scheduler.timesteps:
        level = t.double() / 1000
        x0 = denoiser(x, level.expand(len(x)))
        x = scheduler.step((x - x0) / level, t, x).prev_sample
    torch.testing.assert_close(x, ours, rtol=1e-5, atol=1e-5)


@_EACH
def test_the_scheduler_of_diffusers_noises_samples(shape: Shape) -> None:
    scheduler = S3Scheduler.from_schedule(
        _schedule(shape), diffusers.FlowMatchEulerDiscreteScheduler().config
    )
    scheduler.set_timesteps(num_inference_steps=4)
    clean, noise = torch.ones((2, *shape)), block_noise(3, 0, 0, shape)[:2]
    at = scheduler.timesteps[1]
    level = float(at) / 1000
    noised = scheduler.scale_noise(clean, at[None], noise)
    torch.testing.assert_close(noised, (1 - level) * clean + level * noise)
