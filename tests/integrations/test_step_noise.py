"""Stochastic schedules in diffusers: where the noise comes from, and that it is theirs."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)

import diffusers

from s3search import Schedule, compile_plan, published, sample
from s3search.errors import InvalidSchedule
from s3search.formats.exporters.runtime.run_plan import run_plan
from s3search.formats.exporters.schedule_json import export_dict
from s3search.formats.importers.diffusers import schedule_of
from s3search.integrations.diffusers import S3Scheduler
from s3search.models.diffusers.scheduler_config import process_of
from s3search.processes import NoiseProcess, edm, flow, vp_discrete
from s3search.rules import NoiseKind, StepNoise
from s3search.schedules.schedule import Start, StartKind, Step
from s3search.solvers.coefficients import as_coefficients
from tests.formats.exporters.files import exported
from tests.support import pipelines
from tests.support.stock import apart

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning:diffusers.*"
)

_SEED, _SHAPE = 7, (2, 3, 8, 8)
_NOISES = {
    "eta": StepNoise(amount=0.7, scale=1.01),
    "gamma": StepNoise(kind=NoiseKind.GAMMA, amount=0.4),
    "lcm": StepNoise(kind=NoiseKind.GAMMA, amount=1.0),
}


def _noisy(schedule: Schedule, noise: StepNoise) -> Schedule:
    """Noise in every step but the last."""
    inner = [step.model_copy(update={"noise": noise}) for step in schedule.steps[:-1]]
    return schedule.changed(steps=(*inner, schedule.steps[-1]))


class _Answers:
    """A U-Net as the denoiser of DDPM's process."""

    sample_shape = _SHAPE[1:]

    def __init__(self, network: Any, config: Any) -> None:
        self.network, self.process = network, process_of(config)

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        at = float(t.flatten()[0])
        alpha, sigma = self.process.alpha(at), self.process.sigma(at)
        with torch.no_grad():
            return (x - sigma * self.network(x, t).sample) / alpha

    def of_sigma(self, x: Tensor, sigma: Tensor) -> Tensor:
        """As k-diffusion calls it."""
        t = self.process.time_of_lam(-math.log(float(sigma[0])))
        return self(self.process.alpha(t) * x, torch.full((len(x),), t, dtype=x.dtype))


@pytest.fixture(scope="module")
def unet() -> Any:
    return pipelines.unet().double().eval()


def _draws(n: int) -> list[Tensor]:
    """What n draws of float64 from the seed's generator are."""
    generator = torch.Generator().manual_seed(_SEED)
    return [torch.randn(_SHAPE, generator=generator, dtype=torch.float64) for _ in range(n)]


def _final(unet: Any, scheduler: Any, generator: Any, x: Tensor | None = None) -> Tensor:
    """Where the loop of a pipeline ends."""
    if x is None:
        x = _draws(1)[0]
    scheduler.set_timesteps(scheduler.num_steps if hasattr(scheduler, "num_steps") else None)
    x = x * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            answer = unet(scheduler.scale_model_input(x, t), t).sample
            x = scheduler.step(answer, t, x, generator=generator).prev_sample
    return x


def _stochastic(name: str) -> Schedule:
    process = vp_discrete()
    if name in _NOISES:  # LCM's steps go to the clean end, where no second order is
        base = published.ddim if name == "lcm" else published.dpmpp_2m
        return _noisy(base(process, nfe=5), _NOISES[name])
    return _MADE[name](process)


_MADE: dict[str, Callable[[NoiseProcess], Schedule]] = {
    "sde": lambda process: published.dpmpp_2m_sde(process, nfe=5, s_noise=1.01),
    "draws used again": lambda process: published.seeds_2(process, nfe=5),
    "corrected": lambda process: published.sa_solver(process, nfe=5, tau=0.8),
}


@pytest.mark.parametrize("is_free", [False, True], ids=["rules", "free steps"])
@pytest.mark.parametrize("name", [*_NOISES, *_MADE])
def test_one_noise_makes_one_image_everywhere(
    unet: Any, name: str, is_free: bool, tmp_path: Path
) -> None:
    """In our loop, in plain Python, as a sampler of k-diffusion, and in a pipeline."""
    config, schedule = diffusers.DDPMScheduler().config, _stochastic(name)
    if is_free:
        schedule = as_coefficients(schedule)
    plan, denoiser = compile_plan(schedule), _Answers(unet, config)
    x, *drawn = _draws(1 + len(plan.noisy_rows))
    assert len(drawn) == 4
    ours = sample(denoiser, plan, x, step_noise=drawn)
    own, _ = exported("k-diffusion", schedule, tmp_path)
    given = iter(drawn)
    theirs = own["sample_s3"](
        denoiser.of_sigma,
        x * own["sigmas"][0],
        noise_sampler=lambda sigma, sigma_next: next(given),
    )
    torch.testing.assert_close(theirs, ours, rtol=1e-7, atol=1e-7)
    plain = run_plan(
        export_dict(schedule)["plan"],
        lambda x, t: denoiser(x, torch.full((len(x),), t, dtype=x.dtype)),
        x,
        step_noise=drawn,
    )
    torch.testing.assert_close(plain, ours, rtol=1e-9, atol=1e-9)
    last: list[Tensor] = []

    class Recording(S3Scheduler):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            output = super().step(*args, **kwargs)
            last.append(output.prev_sample)
            return output

    pipe = diffusers.DDPMPipeline(unet=unet, scheduler=diffusers.DDPMScheduler())
    pipe.scheduler = Recording.from_schedule(schedule, config)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(_SEED)
    pipe(batch_size=2, num_inference_steps=5, output_type="pt", generator=generator)
    # it draws the first state from the same generator, and tells the network float32 times
    assert apart(last[-1], ours) < 1e-4


def test_a_list_of_generators_draws_for_each_image(unet: Any) -> None:
    schedule = _noisy(published.ddim(vp_discrete(), nfe=4), StepNoise())
    scheduler = S3Scheduler.from_schedule(schedule, diffusers.DDPMScheduler().config)
    x = _draws(1)[0]

    def alone(i: int) -> Tensor:
        return _final(unet, scheduler, torch.Generator().manual_seed(i), x[i : i + 1])

    both = _final(unet, scheduler, [torch.Generator().manual_seed(i) for i in (0, 1)], x)
    torch.testing.assert_close(both, torch.cat([alone(0), alone(1)]))
    assert not torch.allclose(both[:1], alone(1))


def test_half_precision_draws_in_half_precision(unet: Any) -> None:
    schedule = _noisy(published.ddim(vp_discrete(), nfe=2), StepNoise())
    scheduler = S3Scheduler.from_schedule(schedule, diffusers.DDPMScheduler().config)
    x = _draws(1)[0].half()
    generator = torch.Generator().manual_seed(1)
    output = scheduler.step(0 * x, scheduler.timesteps[0], x, generator=generator)
    assert output.prev_sample.dtype == torch.float16
    plain = published.ddim(vp_discrete(), nfe=2)
    plan, quiet = compile_plan(schedule), compile_plan(plain)
    assert plan.n_rows == quiet.n_rows
    drawn = torch.randn(_SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float16)
    x0 = x.float() / plan.levels[0].alpha  # of an answer that is 0
    state = float(plan.p[1, 0]) * x.float() + float(plan.q[1, 0]) * x0
    expected = state + float(plan.noise[1]) * drawn.float()
    torch.testing.assert_close(output.prev_sample.float(), expected, rtol=2e-3, atol=2e-3)


def test_image_to_image_keeps_the_noise_of_the_steps_that_are_left(unet: Any) -> None:
    schedule = _noisy(published.dpmpp_2m(vp_discrete(), nfe=5), StepNoise(amount=0.5))
    scheduler = S3Scheduler.from_schedule(schedule, diffusers.DDPMScheduler().config)
    x, generator = _draws(1)[0], torch.Generator().manual_seed(3)
    before = generator.get_state()
    scheduler.set_begin_index(3)
    for t in scheduler.timesteps[3:]:
        x = scheduler.step(0 * x, t, x, generator=generator).prev_sample
    assert torch.isfinite(x).all()
    fresh = torch.Generator()
    fresh.set_state(before)
    torch.randn(_SHAPE, generator=fresh, dtype=torch.float64)  # the fourth of five steps alone
    assert torch.equal(fresh.get_state(), generator.get_state())


def test_noise_of_a_start_is_drawn_with_the_first_state() -> None:
    noise = StepNoise(kind=NoiseKind.GAMMA, amount=0.3)
    base = published.ddim(vp_discrete(), nfe=3)
    scheduler = S3Scheduler.from_schedule(
        base.changed(start=Start(noise=noise)), diffusers.DDPMScheduler().config
    )
    sigma = compile_plan(base).levels[0].sigma
    assert scheduler.init_noise_sigma == pytest.approx(sigma, rel=1e-12)
    assert scheduler.num_steps == 3


def test_an_analytic_start_before_a_noisy_step_is_refused() -> None:
    base = _noisy(published.ddim(vp_discrete(), nfe=3), StepNoise())
    schedule = base.changed(start=Start(kind=StartKind.ZERO_X0))
    with pytest.raises(InvalidSchedule, match="scale_model_input, which is given no generator"):
        S3Scheduler.from_schedule(schedule, diffusers.DDPMScheduler().config)


def test_a_schedule_moved_to_the_pipelines_process_keeps_its_noise(unet: Any) -> None:
    """EDM's sigmas with churn and a restart, on DDPM's table."""
    churn = Step(
        predictor=published.ddim_steps(1)[0].predictor,
        noise=StepNoise(kind=NoiseKind.TIME, amount=1.0),
    )
    plain = published.ddim_steps(1)[0]
    schedule = Schedule(
        process=edm(),
        times=(80.0, 1.0, 8.0, 1.0, 0.05),
        steps=(plain, churn, plain, plain),
    )
    config = diffusers.DDPMScheduler().config
    scheduler = S3Scheduler.from_schedule(schedule, config)
    generator = torch.Generator().manual_seed(_SEED)
    found = _final(unet, scheduler, generator)
    first, last = compile_plan(schedule).levels[0], process_of(config)
    alpha = 1.0 / (1.0 + first.sigma**2) ** 0.5
    denoiser, plan = _Answers(unet, config), compile_plan(scheduler._schedule)
    x, drawn = _draws(1)[0], _draws(1)
    assert plan.levels[0].alpha == pytest.approx(alpha)
    ours = sample(denoiser, plan, x, step_noise=drawn)
    assert apart(found, ours) < 1e-4
    assert last.same_levels(plan.process)


# -- diffusers' own stochastic schedulers --------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 6])
def test_ancestral_steps_are_diffusers_own(unet: Any, n: int) -> None:
    config = {"timestep_spacing": "trailing"}
    theirs = diffusers.EulerAncestralDiscreteScheduler(**config)
    quiet = schedule_of("EulerDiscreteScheduler", config, n)
    schedule = _noisy(quiet, StepNoise()) if n > 1 else quiet
    ours = S3Scheduler.from_schedule(schedule, diffusers.EulerDiscreteScheduler(**config).config)
    theirs.set_timesteps(n)
    x = _draws(1)[0]
    made = []
    for scheduler in (theirs, ours):
        generator = torch.Generator().manual_seed(3)
        y = x * scheduler.init_noise_sigma
        with torch.no_grad():
            for t in scheduler.timesteps:
                answer = unet(scheduler.scale_model_input(y, t), t).sample
                y = scheduler.step(answer, t, y, generator=generator).prev_sample
        made.append(y)
    assert apart(*made) < 1e-4


def test_flow_pipelines_pass_no_generator_and_draw_torchs_own() -> None:
    schedule = _noisy(published.flow_euler(flow(), nfe=3), StepNoise(amount=1.0, kind="gamma"))
    scheduler = S3Scheduler.from_schedule(
        schedule, diffusers.FlowMatchEulerDiscreteScheduler().config
    )
    x = _draws(1)[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        found = scheduler.step(0 * x, scheduler.timesteps[0], x).prev_sample
        torch.manual_seed(5)
        drawn = torch.randn(_SHAPE, dtype=torch.float64)
    t = schedule.times[1]
    torch.testing.assert_close(found, (1 - t) * x + t * drawn, rtol=1e-6, atol=1e-6)
