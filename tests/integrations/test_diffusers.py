"""S3Scheduler in real pipelines against our own loop, and against diffusers' own solvers.

The pipelines have tiny random weights; nothing is downloaded.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)
pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install diffusers transformers"
)

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DEISMultistepScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from diffusers.utils import logging
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from s3search import Schedule, compile_plan, published, sample
from s3search.errors import IncompatibleStatistics, InvalidSchedule
from s3search.formats.importers.diffusers import schedule_of
from s3search.integrations.diffusers import S3Scheduler
from s3search.models.diffusers.scheduler_config import process_of
from s3search.processes import NoiseProcess, edm, flow, vp_discrete, vp_linear
from s3search.rules import Adams, EmsStatistics, Prediction
from s3search.schedules.jump import GaussianJump
from s3search.schedules.published import dpm_multistep_steps, on_times, unipc_steps
from s3search.schedules.schedule import (
    Corrector,
    CorrectorKind,
    ModelPatch,
    Start,
    StatisticsReference,
    Step,
)
from s3search.schedules.spacing import End, EndRule
from s3search.solvers.coefficients import as_coefficients
from s3search.solvers.sample import run_plan

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning:diffusers.*"
)

_DENOISE = End(rule=EndRule.DENOISE)
_SEED = 7


def _implicit(process: NoiseProcess) -> Schedule:
    """Two Heun-like steps that call the network twice at one level, then a multistep one."""
    trapezoid = Adams(start=-2, points=(-2, -1))
    twice = Step(
        predictor=Adams(), corrector=Corrector(kind=CorrectorKind.IMPLICIT, rule=trapezoid)
    )
    last = Step(predictor=Adams(points=(-2, -1)))
    base = published.ddim(process, nfe=3)
    first = Step(predictor=base.steps[0].predictor) if process.alpha(base.times[0]) == 0 else twice
    return Schedule(process=process, times=base.times, steps=(first, twice, last))


def _corrected_at_the_end(process: NoiseProcess) -> Schedule:
    """DDIM whose last state is corrected with a call there."""
    base = published.ddim(process, nfe=3)
    trapezoid = Corrector(kind=CorrectorKind.PSEUDO, rule=Adams(start=-2, points=(-2, -1)))
    last = Step(predictor=base.steps[-1].predictor, corrector=trapezoid)
    return Schedule(process=process, times=base.times, steps=(*base.steps[:-1], last))


def _analytic(process: NoiseProcess, kind: str = "zero_x0", image: Any = None) -> Schedule:
    base = published.dpmpp_2m(process, nfe=4)
    start = Start(kind=kind, image=image)
    return Schedule(process=process, times=base.times, steps=base.steps, start=start)


_SCHEDULES: dict[str, Callable[[NoiseProcess], Schedule]] = {
    "ddim": lambda p: published.ddim(p, nfe=3),
    "dpmpp_2m": lambda p: published.dpmpp_2m(p, nfe=5),
    "dpmpp_3m": lambda p: published.dpmpp_3m(p, nfe=5),
    "dpmpp_2s": lambda p: published.dpmpp_2s(p, nfe=4),
    "unipc": lambda p: published.unipc(p, nfe=5, order=3),
    "unipc_noise": lambda p: published.unipc(p, nfe=4, order=2, prediction=Prediction.NOISE),
    "implicit": _implicit,
    "denoise": lambda p: published.dpmpp_2m(p, nfe=4, end=_DENOISE),
    "free": lambda p: as_coefficients(published.dpmpp_2m(p, nfe=4, end=_DENOISE)),
    "free_implicit": lambda p: as_coefficients(_implicit(p)),
    "free_corrected": lambda p: as_coefficients(_corrected_at_the_end(p)),
}
# a singlestep pair and a noise prediction have no value from pure noise
_FLOW_SCHEDULES = {
    name: make for name, make in _SCHEDULES.items() if name not in ("dpmpp_2s", "unipc_noise")
}


@dataclass
class _Denoiser:
    """Our denoiser around a network F(x, t) that answers as the config says."""

    network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    config: Any
    sample_shape: tuple[int, int, int] = (3, 8, 8)

    @property
    def process(self) -> NoiseProcess:
        return process_of(self.config)

    def __call__(self, x: torch.Tensor, t: torch.Tensor, **condition: Any) -> torch.Tensor:
        process = self.process
        alpha = process.alpha(t.double()).to(x.dtype).reshape(-1, 1, 1, 1)
        sigma = process.sigma(t.double()).to(x.dtype).reshape(-1, 1, 1, 1)
        if process.type == "flow":
            return x - sigma * self.network(x, 1000 * t)
        answer = self.network(x, t)
        match self.config["prediction_type"]:
            case "epsilon":
                return (x - sigma * answer) / alpha
            case "v_prediction":
                return alpha * x - sigma * answer
            case _:
                return answer


def _close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-8) -> bool:
    scale = expected.abs().max()
    return bool((found - expected).abs().max() <= tolerance * scale)


def _noise(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(_SEED), dtype=dtype)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(_SEED)


@pytest.fixture(scope="module")
def unet() -> UNet2DModel:
    torch.manual_seed(0)
    return (
        UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        )
        .double()
        .eval()
    )


class _UnclampedPipeline(DDPMPipeline):
    """DDPMPipeline clamps images to [0, 1]; this keeps what the scheduler returned last."""

    def final(self, schedule: Any, config: Any, **kwargs: Any) -> torch.Tensor:
        self.scheduler = _Recording.from_schedule(schedule, config)
        self.set_progress_bar_config(disable=True)
        self(num_inference_steps=self.scheduler.num_steps, output_type="pt", **kwargs)
        return self.scheduler.last


class _Recording(S3Scheduler):
    last: torch.Tensor

    def step(self, *args: Any, **kwargs: Any) -> Any:
        output = super().step(*args, **kwargs)
        self.last = output.prev_sample
        return output


def _ddpm_expected(unet: UNet2DModel, schedule: Schedule, config: Any, n: int) -> torch.Tensor:
    """Our loop; DDPMPipeline starts from unit noise, sigma(t_0) = 0.99998 times that is ours."""
    denoiser = _Denoiser(lambda x, t: unet(x, t).sample, config)
    with torch.no_grad():
        return run_plan(denoiser, compile_plan(schedule), _noise((n, 3, 8, 8)))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", _SCHEDULES)
def test_ddpm_pipeline_makes_the_images_of_our_loop(
    unet: UNet2DModel, name: str, prediction: str
) -> None:
    config = DDPMScheduler(prediction_type=prediction).config
    schedule = _SCHEDULES[name](vp_discrete())
    pipe = _UnclampedPipeline(unet=unet, scheduler=DDPMScheduler())
    found = pipe.final(schedule, config, batch_size=2, generator=_generator())
    assert pipe.scheduler.num_steps == schedule.nfe == len(pipe.scheduler.timesteps)
    # timesteps travel as float32
    assert _close(found, _ddpm_expected(unet, schedule, config, 2), 1e-4)


def _on(process: NoiseProcess, make: Callable[[NoiseProcess, Any], Any]) -> Schedule:
    """Steps with inner nodes, made on a plain schedule's times."""
    times, steps = make(process, published.ddim(process, nfe=3).times)
    return on_times(process, times, steps)


_FAMILIES: dict[str, Callable[[NoiseProcess], Schedule]] = {
    "dpm_2": lambda p: on_times(
        p,
        published.ddim(p, nfe=5).times,
        dpm_multistep_steps(5, order=2, prediction=Prediction.NOISE),
    ),
    "dpm_3s": lambda p: published.dpm_singlestep(p, nfe=6, order=3, prediction=Prediction.NOISE),
    "dpmpp_3s": lambda p: published.dpmpp_3s(p, nfe=6),
    "unipc_bh1": lambda p: published.unipc(p, nfe=5, order=2, variant="bh1"),
    "deis": lambda p: published.deis(p, nfe=5, order=3),
    "rho_ab": lambda p: published.rho_ab(p, nfe=5, order=3),
    "rho_rk": lambda p: _on(p, lambda q, times: published.runge_kutta_on(q, times, "rk4")),
    "kutta3": lambda p: _on(p, lambda q, times: published.runge_kutta_on(q, times, "kutta3")),
    "ipndm": lambda p: published.ipndm(p, nfe=5, order=4),
    "heun": lambda p: published.heun(p, nfe=5, end=_DENOISE),
    "dpm2": lambda p: published.dpm2(p, nfe=5, end=_DENOISE),
    "ghvb": lambda p: published.momentum(p, nfe=5, order=3, beta=0.3),
    "heavy ball": lambda p: published.momentum(p, nfe=5, order=3, beta=0.5, kind="heavy_ball"),
    "nesterov": lambda p: published.momentum(p, nfe=5, order=3, beta=0.5, kind="nesterov"),
    "bdia": lambda p: published.bdia(p, nfe=5, gamma=0.5),
    "autodiffusion": lambda p: published.ddim_on(p, [999, 700, 350, 20]),
}


@pytest.mark.parametrize("name", _FAMILIES)
def test_pipeline_replays_every_family(unet: UNet2DModel, name: str) -> None:
    config = DDPMScheduler(prediction_type="epsilon").config
    schedule = _FAMILIES[name](vp_discrete())
    pipe = _UnclampedPipeline(unet=unet, scheduler=DDPMScheduler())
    found = pipe.final(schedule, config, batch_size=2, generator=_generator())
    assert pipe.scheduler.num_steps == schedule.nfe
    assert _close(found, _ddpm_expected(unet, schedule, config, 2))


def test_v3_schedule_is_replayed_with_its_statistics(unet: UNet2DModel, tmp_path: Path) -> None:
    config, path = DDPMScheduler().config, tmp_path / "ems.safetensors"
    lams = np.linspace(-5.1, 4.6, 31)[:, None, None, None]
    pixel = np.linspace(0.0, 0.3, 192).reshape(3, 8, 8)
    ems = EmsStatistics(
        lam_start=-5.1, lam_end=4.6, l=1 / (1 + np.exp(lams + pixel)), s=0 * pixel + 0 * lams,
        b=0.1 * pixel + 0 * lams,
    )  # fmt: skip
    ems.save(path)
    process = process_of(config)
    times = [process.time_of_lam(float(ems.lams[node])) for node in (1, 8, 15, 22, 29)]
    reference = StatisticsReference(digest=ems.digest)
    steps = published.dpm_solver_v3_steps(4, order=3)
    schedule = published.on_times(process, times, steps, statistics=reference)
    made = S3Scheduler.from_schedule(schedule, config, statistics=path)
    made.save_pretrained(str(tmp_path / "saved"))
    scheduler = S3Scheduler.from_pretrained(str(tmp_path / "saved"))
    x = _noise((2, 3, 8, 8))
    expected = run_plan(
        _Denoiser(lambda x, t: unet(x, t).sample, config),
        compile_plan(schedule, ems),
        x * process.sigma(times[0]),
    ).detach()
    x = x * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = unet(scheduler.scale_model_input(x, t), t).sample
            x = scheduler.step(output, t, x).prev_sample
    assert _close(x, expected, 1e-4)
    with pytest.raises(IncompatibleStatistics, match="none were given"):
        S3Scheduler.from_schedule(schedule, config)


def test_images_come_as_from_sample_and_do_not_depend_on_the_batch(unet: UNet2DModel) -> None:
    config = DDPMScheduler().config
    schedule = published.unipc(vp_discrete(), nfe=5)
    pipe = _UnclampedPipeline(unet=unet, scheduler=DDPMScheduler())
    denoiser = _Denoiser(lambda x, t: unet(x, t).sample, config)
    with torch.no_grad():
        expected = sample(denoiser, compile_plan(schedule), _noise((3, 3, 8, 8)))
    three = pipe.final(schedule, config, batch_size=3, generator=_generator())
    assert _close(three, expected, 1e-4)
    one = pipe.final(schedule, config, batch_size=1, generator=_generator())
    assert _close(one, three[:1], 1e-6)


def test_pipeline_can_be_called_again(unet: UNet2DModel) -> None:
    pipe = DDPMPipeline(unet=unet, scheduler=DDPMScheduler())
    pipe.set_progress_bar_config(disable=True)
    schedules = [published.dpmpp_2m(vp_discrete(), nfe=n) for n in (4, 3)]
    pipe.scheduler = S3Scheduler.from_schedule(schedules, pipe.scheduler.config)
    assert pipe.scheduler.available_steps == (4, 3)

    def images(n: int) -> torch.Tensor:
        out = pipe(num_inference_steps=n, generator=_generator(), output_type="pt")
        return out.images

    first, other, again = images(4), images(3), images(4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_saved_pipeline_is_loaded_with_its_schedule(unet: UNet2DModel, tmp_path: Path) -> None:
    process = vp_discrete()
    path = tmp_path / "schedule.json"
    published.unipc(process, nfe=4).save(path)
    pipe = DDPMPipeline(unet=unet, scheduler=DDPMScheduler(prediction_type="v_prediction"))
    pipe.scheduler = S3Scheduler.from_schedule(path, pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path / "pipe")
    loaded = DDPMPipeline.from_pretrained(tmp_path / "pipe", torch_dtype=torch.float64)
    loaded.set_progress_bar_config(disable=True)
    assert isinstance(loaded.scheduler, S3Scheduler)
    expected, found = (
        p(num_inference_steps=4, generator=_generator(), output_type="pt").images
        for p in (pipe, loaded)
    )
    assert torch.equal(found, expected)


def test_scheduler_round_trips_and_gives_the_models_config_back(tmp_path: Path) -> None:
    config = DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1).config
    schedule = published.dpmpp_2m(process_of(config), nfe=4)
    scheduler = S3Scheduler.from_schedule(schedule, config)
    scheduler.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert stored["s3_schedules"] == [json.loads(json.dumps(schedule.to_dict()))]
    loaded = S3Scheduler.from_pretrained(tmp_path)
    assert torch.equal(loaded.timesteps, scheduler.timesteps)
    assert loaded.config.steps_offset == 1
    assert process_of(loaded.config) == process_of(config)
    again = S3Scheduler.from_schedule(published.ddim(process_of(config), nfe=2), loaded.config)
    assert again.num_steps == 2
    assert DDIMScheduler.from_config(loaded.config).config.beta_schedule == "scaled_linear"


def test_wrong_number_of_steps_says_which_ones_exist() -> None:
    scheduler = S3Scheduler.from_schedule(
        published.ddim(vp_discrete(), nfe=4), DDPMScheduler().config
    )
    with pytest.raises(InvalidSchedule, match=r"50 was asked, .* has 4 .*num_inference_steps=4"):
        scheduler.set_timesteps(50)
    with pytest.raises(InvalidSchedule, match="leave them out"):
        scheduler.set_timesteps(timesteps=[999, 700, 400, 100])


def test_schedules_that_cannot_be_replayed_are_refused() -> None:
    config = DDPMScheduler().config
    patched = Schedule(
        process=vp_discrete(),
        times=(999.0, 500.0, 0.0),
        steps=published.ddim_steps(2),
        model_patch=ModelPatch(skip_scale=(1.1,)),
    )
    with pytest.raises(InvalidSchedule, match="model_patch"):
        S3Scheduler.from_schedule(patched, config)
    one = published.ddim(vp_discrete(), nfe=1)
    no_call = Schedule(
        process=one.process, times=one.times, steps=one.steps, start=Start(kind="zero_x0")
    )
    with pytest.raises(InvalidSchedule, match="never calls"):
        S3Scheduler.from_schedule(no_call, config)
    with pytest.raises(InvalidSchedule, match="two schedules make 1 calls"):
        S3Scheduler.from_schedule([one, one], config)
    with pytest.raises(InvalidSchedule, match=r"from_schedule\("):
        S3Scheduler.from_config(config)


def test_schedule_of_another_process_follows_the_same_trajectory(unet: UNet2DModel) -> None:
    """x / alpha is the same where lam is: an EDM schedule on a VP model, once more in sigma."""
    config = DDPMScheduler().config
    process = vp_discrete()
    schedule = published.unipc(edm(sigma_min=0.02, sigma_max=100.0), nfe=4)
    pipe = _UnclampedPipeline(unet=unet, scheduler=DDPMScheduler())
    found = pipe.final(schedule, config, batch_size=1, generator=_generator())

    def in_sigma_space(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        alpha = (1 + sigma[0] ** 2) ** -0.5
        t = torch.full_like(sigma, process.time_of_lam(-float(sigma[0].log())))
        return alpha_denoiser(x * alpha, t)

    alpha_denoiser = _Denoiser(lambda x, t: unet(x, t).sample, config)
    first = process.alpha(process.time_of_lam(edm().lam(100.0)))
    last = process.alpha(process.time_of_lam(edm().lam(0.02)))
    with torch.no_grad():
        ve = run_plan(in_sigma_space, compile_plan(schedule), _noise((1, 3, 8, 8)) / first)
    assert _close(found, ve * last, 1e-4)


def test_schedule_beyond_the_models_noise_is_refused() -> None:
    config = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    ).config
    with pytest.raises(InvalidSchedule, match=r"times\[0\].*80.*at most 14\.6"):
        S3Scheduler.from_schedule(published.ddim(edm(), nfe=4), config)
    with pytest.raises(InvalidSchedule, match="pure noise"):
        S3Scheduler.from_schedule(published.ddim(flow(), nfe=4), config)


def test_continuous_vp_schedule_runs_on_the_discrete_model() -> None:
    config = DDPMScheduler().config
    scheduler = S3Scheduler.from_schedule(published.ddim(vp_linear(), nfe=4), config)
    assert scheduler.timesteps.dtype == torch.float32
    assert float(scheduler.timesteps[0]) == pytest.approx(999, abs=8)


def test_whole_times_are_integers_so_that_tables_can_be_indexed() -> None:
    times = (999.0, 600.0, 200.0, -1.0)
    schedule = on_times(vp_discrete(), times, dpm_multistep_steps(3, order=2))
    # the same betas as a table: times go through lam and come back whole
    table = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    for config in (DDPMScheduler().config, DDPMScheduler(trained_betas=table).config):
        scheduler = S3Scheduler.from_schedule(schedule, config)
        scheduler.set_timesteps(3, device="cpu")
        assert scheduler.timesteps.tolist() == [999, 600, 200]
        assert scheduler.timesteps.dtype == torch.int64


def test_start_far_from_unit_noise_is_warned_about(
    unet: UNet2DModel, caplog: pytest.LogCaptureFixture
) -> None:
    middle = on_times(vp_discrete(), (400.0, 200.0, -1.0), published.ddim_steps(2))
    usual = published.ddim(vp_discrete(), nfe=2)
    pipe = _UnclampedPipeline(unet=unet, scheduler=DDPMScheduler())
    config = pipe.scheduler.config
    logging.enable_propagation()
    try:
        pipe.final(usual, config)
        assert not caplog.records
        pipe.final(middle, config)
    finally:
        logging.disable_propagation()
    assert "did not read init_noise_sigma" in caplog.text


def test_clipping_is_off_unless_asked_for(unet: UNet2DModel) -> None:
    config = DDPMScheduler(prediction_type="sample", clip_sample_range=0.01).config
    schedule = published.ddim(vp_discrete(), nfe=2, end=_DENOISE)
    x = _noise((1, 3, 8, 8))

    def image(thresholding: str | None) -> torch.Tensor:
        scheduler = S3Scheduler.from_schedule(schedule, config, thresholding=thresholding)
        state = x
        for t in scheduler.timesteps:
            state = scheduler.step(5 * x, t, state).prev_sample
        return state

    assert _close(image(None), 5 * x)
    assert _close(image("config"), (5 * x).clamp(-0.01, 0.01))
    assert _close(image("dynamic"), (5 * x).clamp(-1, 1))
    with pytest.raises(ValueError, match="clamp"):
        S3Scheduler.from_schedule(schedule, config, thresholding="clamp")


def test_half_precision_sums_are_made_in_float32() -> None:
    config = DDPMScheduler(prediction_type="v_prediction").config
    schedule = published.dpmpp_3m(vp_discrete(), nfe=6)
    x = _noise((1, 3, 8, 8))

    def image(dtype: torch.dtype) -> torch.Tensor:
        scheduler = S3Scheduler.from_schedule(schedule, config)
        state = x.to(dtype)
        for t in scheduler.timesteps:
            answer = (0.3 * state.double()).to(dtype)
            state = scheduler.step(answer, t, state, return_dict=False)[0]
            assert state.dtype == dtype
        return state.double()

    assert _close(image(torch.float16), image(torch.float64), 4e-3)


# ---- Stable Diffusion: guidance, latents, an analytic start, image to image


@pytest.fixture(scope="module")
def sd_parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = [*"abcdefgh", *(f"{letter}</w>" for letter in "abcdefgh")]
    words = [*letters, "ab</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8
    )
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    return {
        "unet": unet.double().eval(),
        "vae": _tiny_vae().double().eval(),
        "text_encoder": CLIPTextModel(text).double().eval(),
        "tokenizer": tokenizer,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)


def _sd_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
    )


def _guided(pipe: Any, prompt: str, scale: float, n: int) -> Callable[..., torch.Tensor]:
    with torch.no_grad():
        positive, negative = pipe.encode_prompt(prompt, "cpu", 1, True)
    text = torch.cat([negative.expand(n, -1, -1), positive.expand(n, -1, -1)])

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        both = pipe.unet(torch.cat([x, x]), torch.cat([t, t]), encoder_hidden_states=text).sample
        without, given = both.chunk(2)
        return without + scale * (given - without)

    return network


_SD_SCHEDULES = {
    **_SCHEDULES,
    "zero_x0": _analytic,
    "unit_noise": lambda p: _analytic(p, "unit_noise"),
    "average_x0": lambda p: _analytic(
        p, "average_x0", torch.linspace(-1, 1, 256).reshape(4, 8, 8).tolist()
    ),
}


@pytest.mark.parametrize("name", _SD_SCHEDULES)
def test_stable_diffusion_makes_the_latents_of_our_loop(
    sd_parts: dict[str, Any], name: str
) -> None:
    pipe = StableDiffusionPipeline(**sd_parts, scheduler=_sd_scheduler())
    pipe.set_progress_bar_config(disable=True)
    process = process_of(pipe.scheduler.config)
    assert process == vp_discrete("scaled_linear", beta_start=0.00085, beta_end=0.012)
    schedule = _SD_SCHEDULES[name](process)
    pipe.scheduler = S3Scheduler.from_schedule(schedule, pipe.scheduler.config)
    noise = _noise((2, 4, 8, 8))
    found = pipe(
        "ab c",
        num_images_per_prompt=2,
        num_inference_steps=pipe.scheduler.num_steps,
        guidance_scale=7.5,
        latents=noise,
        output_type="latent",
    ).images
    denoiser = _Denoiser(_guided(pipe, "ab c", 7.5, 2), pipe.scheduler.config)
    with torch.no_grad():
        expected = sample(denoiser, compile_plan(schedule), noise)
    assert _close(found, expected, 1e-4)


@pytest.mark.parametrize("name", ["ddim", "dpmpp_3m", "unipc", "implicit", "zero_x0"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_image_to_image_continues_from_the_noised_image(
    sd_parts: dict[str, Any], name: str, strength: float
) -> None:
    pipe = StableDiffusionImg2ImgPipeline(**sd_parts, scheduler=_sd_scheduler())
    pipe.set_progress_bar_config(disable=True)
    config = pipe.scheduler.config
    process = process_of(config)
    schedule = _SD_SCHEDULES[name](process)
    pipe.scheduler = S3Scheduler.from_schedule(schedule, config)
    n, clean = pipe.scheduler.num_steps, torch.full((1, 4, 8, 8), 0.3, dtype=torch.float64)
    found = pipe(
        "ab c",
        image=clean,
        strength=strength,
        num_inference_steps=n,
        guidance_scale=7.5,
        generator=_generator(),
        output_type="latent",
    ).images
    # an exact denoiser of the one image `clean` would return it; here only the start is checked
    begin = n - min(int(n * strength), n)
    t = float(pipe.scheduler.timesteps[begin])
    noisy = process.alpha(t) * clean + process.sigma(t) * _noise((1, 4, 8, 8))
    twin = S3Scheduler.from_schedule(schedule, config)
    denoiser = _guided(pipe, "ab c", 7.5, 1)
    assert found.shape == clean.shape
    twin.set_begin_index(begin)
    state = twin.add_noise(clean, _noise((1, 4, 8, 8)), twin.timesteps[begin : begin + 1])
    assert _close(state, noisy, 1e-5)
    with torch.no_grad():
        for step_time in twin.timesteps[begin:]:
            answer = denoiser(twin.scale_model_input(state, step_time), step_time[None])
            state = twin.step(answer, step_time, state).prev_sample
    assert _close(found, state, 1e-4)


def test_image_to_image_of_a_perfect_model_returns_the_image() -> None:
    config = DDPMScheduler(prediction_type="sample").config
    clean = _noise((1, 3, 8, 8)) + 1
    for name, make in {**_SCHEDULES, "zero_x0": _analytic}.items():
        schedule = make(vp_discrete())
        for begin in range(schedule.nfe):
            scheduler = S3Scheduler.from_schedule(schedule, config)
            scheduler.set_begin_index(begin)
            times = scheduler.timesteps[begin:]
            noise = _noise((1, 3, 8, 8))
            state = scheduler.add_noise(clean, noise, times[:1])
            for t in times:
                state = scheduler.step(clean, t, state).prev_sample
            last = schedule.times[-1]
            process = schedule.process
            expected = process.alpha(last) * clean + process.sigma(last) * noise
            assert _close(state, expected, 1e-5), (name, begin)


# ---- class-conditional DiT, flow matching, EDM


@pytest.mark.parametrize("name", ["unipc", "implicit", "unit_noise", "denoise"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_dit_makes_the_images_of_our_loop(name: str, guidance: float) -> None:
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,  # the variance is learned
        num_layers=1,
        norm_num_groups=1,
        sample_size=8,
        num_embeds_ada_norm=1000,
    ).double()
    for parameter in transformer.parameters():  # adaLN-zero starts as a constant
        torch.nn.init.normal_(parameter, std=0.1)
    transformer.eval()
    vae = _tiny_vae().double().eval()
    pipe = DiTPipeline(transformer=transformer, vae=vae, scheduler=DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    schedule = _SD_SCHEDULES[name](vp_discrete())
    pipe.scheduler = S3Scheduler.from_schedule(schedule, pipe.scheduler.config)
    found = pipe(
        class_labels=[3, 5],
        guidance_scale=guidance,
        num_inference_steps=pipe.scheduler.num_steps,
        generator=_generator(),
        output_type="pt",
    )

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        labels = torch.tensor([3, 5])
        given = transformer(x, timestep=t, class_labels=labels).sample[:, :4]
        if guidance == 1.0:
            return given
        null = transformer(x, timestep=t, class_labels=torch.full((2,), 1000)).sample[:, :4]
        return null + guidance * (given - null)

    with torch.no_grad():
        denoiser = _Denoiser(network, pipe.scheduler.config)
        latents = sample(denoiser, compile_plan(schedule), _noise((2, 4, 8, 8)))
        decoded = vae.decode(latents / vae.config.scaling_factor).sample
    images = getattr(found, "images", found)
    assert _close(images, (decoded / 2 + 0.5).clamp(0, 1), 2e-4)


@pytest.fixture(scope="module")
def sd3() -> StableDiffusion3Pipeline:
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=8,
        caption_projection_dim=8,
        pooled_projection_dim=8,
        pos_embed_max_size=8,
    )
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    absent = (
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
        "text_encoder_3",
        "tokenizer_3",
    )
    pipe = StableDiffusion3Pipeline(
        transformer=transformer.double().eval(),
        vae=_tiny_vae().double().eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        **dict.fromkeys(absent),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _sd3_latents(pipe: Any, schedule: Any, **kwargs: Any) -> torch.Tensor:
    config = FlowMatchEulerDiscreteScheduler(shift=3.0).config
    pipe.scheduler = S3Scheduler.from_schedule(schedule, config)
    text = {name: _noise((1, *shape)) for name, shape in _SD3_TEXT.items()}
    return pipe(
        height=8,
        width=8,
        guidance_scale=3.0,
        latents=_noise((1, 4, 8, 8)),
        output_type="latent",
        **text,
        **{"num_inference_steps": pipe.scheduler.num_steps, **kwargs},
    ).images


_SD3_TEXT = {
    "prompt_embeds": (5, 8),
    "negative_prompt_embeds": (5, 8),
    "pooled_prompt_embeds": (8,),
    "negative_pooled_prompt_embeds": (8,),
}


_FLOW_SCHEDULES |= {
    "flow_euler": lambda p: published.flow_euler(p, nfe=3, shift=3.0),
    "flow_2m": lambda p: published.flow_2m(p, nfe=4, shift=3.0),
    "flow_heun": lambda p: published.flow_heun(p, nfe=5, shift=3.0),
}


@pytest.mark.parametrize("name", _FLOW_SCHEDULES)
def test_flow_pipeline_makes_the_latents_of_our_loop(
    sd3: StableDiffusion3Pipeline, name: str
) -> None:
    schedule = _FLOW_SCHEDULES[name](flow())
    found = _sd3_latents(sd3, schedule)
    text, pooled = _noise((1, 5, 8)), _noise((1, 8))

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        # the positive and the negative prompt are the same here, so guidance changes nothing
        return sd3.transformer(x, text, pooled, t, return_dict=False)[0]

    with torch.no_grad():
        denoiser = _Denoiser(network, sd3.scheduler.config)
        expected = sample(denoiser, compile_plan(schedule), _noise((1, 4, 8, 8)))
    assert _close(found, expected, 1e-4)


def test_flow_pipeline_may_bring_its_own_sigmas_and_mu(sd3: StableDiffusion3Pipeline) -> None:
    schedule = published.unipc(flow(), nfe=4)
    expected = _sd3_latents(sd3, schedule)
    found = _sd3_latents(sd3, schedule, sigmas=[1.0, 0.75, 0.5, 0.25], mu=0.5)
    assert torch.equal(found, expected)


def test_euler_on_shifted_times_is_flow_match_euler(sd3: StableDiffusion3Pipeline) -> None:
    own = FlowMatchEulerDiscreteScheduler(shift=3.0)
    own.set_timesteps(4)
    times = own.sigmas.double().tolist()
    assert times[0] == 1.0
    schedule = on_times(flow(), times, published.ddim_steps(4))
    found = _sd3_latents(sd3, schedule)
    sd3.scheduler = own
    text = {name: _noise((1, *shape)) for name, shape in _SD3_TEXT.items()}
    expected = sd3(
        height=8,
        width=8,
        guidance_scale=3.0,
        latents=_noise((1, 4, 8, 8)),
        output_type="latent",
        num_inference_steps=4,
        **text,
    ).images
    assert _close(found, expected.double(), 1e-4)


def test_analytic_start_is_refused_where_the_input_is_never_scaled(
    sd3: StableDiffusion3Pipeline,
) -> None:
    with pytest.raises(InvalidSchedule, match="scale_model_input"):
        _sd3_latents(sd3, _analytic(flow()))


def test_pipeline_is_told_the_schedules_network_times(unet: UNet2DModel) -> None:
    base = published.unipc(vp_discrete(), nfe=4)
    told = [None, *(0.97 * t for t in base.times[1:-1])]
    schedule = published.with_network_times(base, told)
    plan, noise = compile_plan(schedule), _noise((1, 3, 8, 8))
    scheduler = S3Scheduler.from_schedule(schedule, DDPMScheduler().config)
    assert scheduler.timesteps.tolist() == pytest.approx(plan.network_times, abs=1e-3)
    state = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(state, t)
        state = scheduler.step(unet(seen, t).sample, t, state).prev_sample
    denoiser = _Denoiser(lambda x, t: unet(x, t).sample, DDPMScheduler().config)
    assert _close(state, run_plan(denoiser, plan, noise * plan.levels[0].sigma), 1e-4)
    scheduler.set_timesteps()
    scheduler.set_begin_index(1)
    with pytest.raises(InvalidSchedule, match="network_time"):
        scheduler.scale_model_input(noise, scheduler.timesteps[1])


@pytest.mark.parametrize("kind", ["dc_solver", "dualfast"])
def test_pipeline_replays_compensated_predictions(unet: UNet2DModel, kind: str) -> None:
    process, config = vp_discrete(), DDPMScheduler().config
    ratios = (1.0, 1.0, 1.1, 0.9)
    schedule = (
        published.dc_solver(process, ratios)
        if kind == "dc_solver"
        else published.dualfast(published.dpmpp_2m(process, nfe=4), published.falling(0.2, 4))
    )
    plan, noise = compile_plan(schedule), _noise((1, 3, 8, 8))
    scheduler = S3Scheduler.from_schedule(schedule, config)
    for begin in (0, 1):
        scheduler.set_timesteps()
        scheduler.set_begin_index(begin)
        state = noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps[begin:]:
            state = scheduler.step(unet(state, t).sample, t, state).prev_sample
        if not begin:
            denoiser = _Denoiser(lambda x, t: unet(x, t).sample, config)
            assert _close(state, run_plan(denoiser, plan, noise * plan.levels[0].sigma), 1e-4)
        assert bool(state.isfinite().all())


def test_pipeline_jumps_before_its_first_call(unet: UNet2DModel) -> None:
    process, config = vp_discrete(), DDPMScheduler().config
    base = published.dpmpp_2m(process, nfe=5)
    image = torch.linspace(-0.5, 0.5, 3 * 64).reshape(3, 8, 8)
    jump = GaussianJump(from_time=base.times[0], mean=image.tolist(), rest=0.3)
    schedule = published.with_jump(
        on_times(process, base.times[1:], dpm_multistep_steps(4, order=2)), jump
    )
    plan, noise = compile_plan(schedule), _noise((1, 3, 8, 8))
    scheduler = S3Scheduler.from_schedule(schedule, config)
    assert len(scheduler.timesteps) == plan.nfe == 4
    state = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(state, t)
        state = scheduler.step(unet(seen, t).sample, t, state).prev_sample
    denoiser = _Denoiser(lambda x, t: unet(x, t).sample, config)
    assert _close(state, sample(denoiser, plan, noise), 1e-4)


def test_edm_model_is_preconditioned() -> None:
    """F = 0 leaves D = c_skip x; with F of an exact Gaussian denoiser every output kind agrees."""
    schedule = published.unipc(edm(), nfe=5, spacing="karras")
    noise = _noise((1, 3, 8, 8))
    spread, data = 0.3, 0.5

    def exact(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return x * spread**2 / (spread**2 + sigma**2)

    plan = compile_plan(schedule)
    expected = run_plan(lambda x, t: exact(x, float(t[0])), plan, noise * plan.levels[0].sigma)
    for kind, sign in (("epsilon", 1), ("v_prediction", -1)):
        config = EDMEulerScheduler(prediction_type=kind).config
        scheduler = S3Scheduler.from_schedule(schedule, config)
        state = noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            sigma = float((4 * t.double()).exp())
            seen = scheduler.scale_model_input(state, t)
            assert _close(seen, state / (sigma**2 + data**2) ** 0.5, 1e-5)
            c_out = sign * sigma * data / (sigma**2 + data**2) ** 0.5
            skip = data**2 / (sigma**2 + data**2)
            answer = (exact(state, sigma) - skip * state) / c_out
            state = scheduler.step(answer, t, state).prev_sample
        assert _close(state, expected, 1e-4)


# ---- diffusers' own solvers on the same times


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("family", ["dpmpp", "unipc"])
def test_our_solver_is_diffusers_solver(unet: UNet2DModel, family: str, order: int) -> None:
    """Both end clean (final_sigmas_type zero) and lower the order at the end."""
    n = 7
    options: dict[str, Any] = {"solver_order": order, "lower_order_final": True}
    own = (
        DPMSolverMultistepScheduler(**options)
        if family == "dpmpp"
        else UniPCMultistepScheduler(**options, solver_type="bh2", final_sigmas_type="zero")
    )
    own.set_timesteps(n)
    times = (*map(float, own.timesteps), -1.0)
    steps = (
        dpm_multistep_steps(n, order=order, lower_order_final=True)
        if family == "dpmpp"
        else unipc_steps(n, order=order, variant="bh2")
    )
    schedule = on_times(vp_discrete(), times, steps)
    ours = S3Scheduler.from_schedule(schedule, own.config)
    assert ours.timesteps.tolist() == own.timesteps.tolist()

    def image(scheduler: Any) -> torch.Tensor:
        state = _noise((1, 3, 8, 8))
        with torch.no_grad():
            for t in scheduler.timesteps:
                state = scheduler.step(unet(state, t).sample, t, state).prev_sample
        return state

    assert _close(image(ours), image(own), 1e-4)


_LEADING = {
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
_NOISE = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
_OWN: dict[str, tuple[Any, dict[str, Any]]] = {
    "deis 1": (DEISMultistepScheduler, {"solver_order": 1}),
    "deis 2": (DEISMultistepScheduler, {"solver_order": 2}),
    "deis 3": (DEISMultistepScheduler, {"solver_order": 3}),
    "heun": (HeunDiscreteScheduler, _LEADING),
    "dpm 2": (DPMSolverMultistepScheduler, {"solver_order": 2, **_NOISE}),
    "dpm 3": (DPMSolverMultistepScheduler, {"solver_order": 3, **_NOISE}),
    "dpmpp 2, taylor": (DPMSolverMultistepScheduler, {"solver_type": "heun"}),
    "dpmpp 2s": (DPMSolverSinglestepScheduler, {"solver_order": 2}),
    "dpmpp 3s": (DPMSolverSinglestepScheduler, {"solver_order": 3}),
    "dpmpp 3s, taylor": (
        DPMSolverSinglestepScheduler,
        {"solver_order": 3, "solver_type": "heun"},
    ),
    "unipc bh1": (
        UniPCMultistepScheduler,
        {"solver_order": 3, "solver_type": "bh1", "final_sigmas_type": "sigma_min"},
    ),
    "flow heun": (FlowMatchHeunDiscreteScheduler, {"shift": 3.0}),
}


@pytest.mark.parametrize("name", _OWN)
def test_imported_schedule_is_diffusers_solver(unet: UNet2DModel, name: str) -> None:
    """The importer's schedule of a config, replayed, ends at their image.

    Known differences.  Theirs rounds its tables to float32, 1e-7 of the image.  DEIS tells the
    network the whole timestep nearest to its level; with `linspace` levels those are the same,
    with `use_karras_sigmas` they are not, and ours is called at the level itself.  DEIS ends at
    the lowest training level, Heun at the clean end.  Heun keeps its state at x / alpha and scales
    the network's input; ours keeps x, so theirs starts from x / alpha.  Heun's `linspace` times
    lie between indices, where it interpolates sigma and we interpolate log alpha: the levels are
    equal and the timesteps told differ, so the times here are whole (`leading`).
    """
    make, options = _OWN[name]
    own = make(**options)
    own.set_timesteps(7)
    schedule = schedule_of(type(own).__name__, own.config, 7)
    ours = S3Scheduler.from_schedule(schedule, own.config)
    assert ours.timesteps.tolist() == pytest.approx(own.timesteps.tolist(), abs=1e-4)

    def image(scheduler: Any, state: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            for t in scheduler.timesteps:
                scales = hasattr(scheduler, "scale_model_input")  # a flow's schedulers do not
                seen = scheduler.scale_model_input(state, t) if scales else state
                state = scheduler.step(unet(seen, t).sample, t, state).prev_sample
        return state

    start = _noise((1, 3, 8, 8))
    scale = 1.0 / schedule.process.alpha(schedule.times[0]) if name == "heun" else 1.0
    assert _close(image(ours, start), image(own, start * scale), 1e-4)


def test_processes_are_read_from_configs() -> None:
    assert process_of(DDPMScheduler().config) == vp_discrete()
    assert process_of(FlowMatchEulerDiscreteScheduler(shift=3.0).config) == flow()
    assert process_of(UniPCMultistepScheduler(use_flow_sigmas=True).config) == flow()
    assert process_of(EDMEulerScheduler(sigma_max=10.0).config) == edm(sigma_max=10.0)
    with pytest.raises(InvalidSchedule, match="beta_schedule: 'x'"):
        process_of({"beta_schedule": "x", "_class_name": "DDIMScheduler"})


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_levels_are_those_of_diffusers(name: str, zero_snr: bool) -> None:
    own = DDPMScheduler(beta_schedule=name, rescale_betas_zero_snr=zero_snr)
    process = process_of(own.config)
    table = own.alphas_cumprod.double()
    found = torch.tensor([process.alpha(float(i)) for i in range(1000)]).double()
    # where SNR is 0, diffusers has 0 or 2^-12 according to the scheduler; we have at most 2^-12
    assert torch.allclose(found[:-1], table.sqrt()[:-1], rtol=2e-4, atol=1e-5)
    assert found[-1] <= max(2.0**-12, table[-1].sqrt() * 1.001)
    assert bool((found[1:] < found[:-1]).all())


def test_continuous_time_models_are_refused() -> None:
    config = EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous"
    ).config
    with pytest.raises(InvalidSchedule, match="continuous"):
        process_of(config)
