"""Schedules that carry their guidance: measured, counted, and run in pipelines that follow it."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)
pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install diffusers transformers"
)

from diffusers import DiffusionPipeline, StableDiffusionImg2ImgPipeline

from s3search.errors import EvaluationFailed, InvalidConfig, InvalidSchedule
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.noise import NoiseBank
from s3search.integrations.diffusers import S3Scheduler
from s3search.integrations.diffusers_guidance import guided
from s3search.models.diffusers import load
from s3search.run.launching import launch
from s3search.schedules import published
from s3search.schedules.schedule import ModelPatch, Schedule
from s3search.search.questions import Rung, measure
from s3search.solvers.image_to_image import image_to_image_start
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import run_plan, sample
from s3search.study.database.store import open_study
from s3search.study.results.frame import evaluations_frame
from tests.support import pipelines

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning"
)

PROMPT = "a b c"
SCALES = [1.0, 4.0, 2.5, 1.0]


def _loaded(folder: Path, cache: Path, **options: Any) -> Any:
    return load(str(folder), prompts=[PROMPT], held_out=0, cache=str(cache), **options)


@pytest.mark.parametrize("kind", ["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3"])
def test_the_pipeline_follows_the_schedules_guidance(tmp_path: Path, kind: str) -> None:
    folder = getattr(pipelines, kind)(tmp_path / "pipe")
    denoiser = _loaded(folder, tmp_path)
    plain = published.ddim(denoiser.process, nfe=4)
    schedule = published.with_guidance(plain, SCALES)
    schedule.save(tmp_path / "schedule.json")
    noise = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    prompts = torch.tensor([0, 0])
    plan = compile_plan(schedule)
    with torch.no_grad():
        expected = sample(denoiser.with_guidance(SCALES), plan, noise, prompts=prompts)
        fixed = sample(denoiser, plan, noise, prompts=prompts)
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    options = guided(pipe, tmp_path / "schedule.json")
    found = pipe([PROMPT] * 2, latents=noise, output_type="latent", **options).images
    assert pipelines.is_close(found, expected)
    assert not pipelines.is_close(fixed, expected, 1e-3)


def test_image_to_image_begins_with_the_scale_of_its_first_call(tmp_path: Path) -> None:
    folder = pipelines.stable_diffusion(tmp_path / "pipe")
    denoiser = _loaded(folder, tmp_path)
    schedule = published.with_guidance(published.dpmpp_2m(denoiser.process, nfe=4), SCALES)
    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    clean = torch.full((1, 4, 8, 8), 0.3)
    options = guided(pipe, schedule, strength=0.8)  # int(4 * 0.8) = 3 calls
    begin = torch.Generator().manual_seed(0)
    found = pipe(PROMPT, image=clean, generator=begin, output_type="latent", **options).images
    t = compile_plan(schedule).network_times[1]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noisy = denoiser.process.alpha(t) * clean + denoiser.process.sigma(t) * noise
    rest = image_to_image_start(schedule, t)
    assert rest.lowered == ("steps[1].predictor",)
    follows = denoiser.with_guidance(SCALES[1:])
    prompts = torch.tensor([0])
    with torch.no_grad():
        expected = run_plan(
            lambda x, t: follows(x, t, prompts=prompts), compile_plan(rest.schedule), noisy
        )
    assert pipelines.is_close(found, expected)


def test_a_strength_is_asked_for_and_must_leave_a_call(tmp_path: Path) -> None:
    folder = pipelines.stable_diffusion(tmp_path / "pipe")
    text, image = (
        kind.from_pretrained(folder)
        for kind in (DiffusionPipeline, StableDiffusionImg2ImgPipeline)
    )
    process = _loaded(folder, tmp_path).process
    schedule = published.with_guidance(published.ddim(process, nfe=4), SCALES)
    for pipe, strength, said in (
        (text, 0.5, "StableDiffusionPipeline has no use for strength=0.5"),
        (image, None, "StableDiffusionImg2ImgPipeline needs strength"),
        (image, 0.2, "strength: 0.2 leaves 0 of the schedule's 4 calls; it lies between 0.25"),
        (image, 1.5, "strength: 1.5 leaves 4"),
    ):
        with pytest.raises(InvalidSchedule, match=said):
            guided(pipe, schedule, strength=strength)


def test_guidance_call_by_call_is_measured_and_counted(tmp_path: Path) -> None:
    folder = pipelines.stable_diffusion(tmp_path / "pipe")
    model = {"path": str(folder), "prompts": [PROMPT], "held_out": 0, "cache": str(tmp_path)}
    images = {"images": "tests.support.pipelines:references", "size": 16}
    evaluator = Evaluator(pipelines.study(tmp_path, model, reference=images).evaluator_spec)
    plain = published.ddim(evaluator.denoiser.process, nfe=4)

    def measured(*scales: float) -> tuple[float, int]:
        schedule = published.with_guidance(plain, scales) if scales else plain
        found = evaluator.evaluate(measure(schedule, rung=Rung.USER, n_images=5, noise_seed=0))
        assert found.value is not None
        return found.value, found.network_batches

    assert measured(*SCALES)[1] == 6
    assert measured(7.5, 7.5, 7.5, 7.5) == measured()  # the pipeline's own guidance
    assert measured(*SCALES)[0] != measured()[0]


def test_guidance_is_searched_exported_and_followed(tmp_path: Path) -> None:
    folder = pipelines.stable_diffusion(tmp_path / "pipe")
    model = {"path": str(folder), "prompts": [PROMPT], "held_out": 0, "cache": str(tmp_path)}
    config = pipelines.study(
        tmp_path,
        model,
        space={"guidance": [1.0, 9.0]},
        search={"evaluations": 8},
        reference={"images": "tests.support.pipelines:references", "size": 16},
    )
    output = tmp_path / "schedule.json"
    evaluator = pipelines.searched(config, output)
    schedule = Schedule.load(output)
    scales = schedule.model_patch and schedule.model_patch.guidance_scale
    assert scales and len(scales) == schedule.nfe == 3
    with open_study(config.storage.url, "t") as store:
        rows = evaluations_frame(store)
    own = rows[rows["schedule_id"] == schedule.id]
    assert set(own["network_batches"]) == {sum(2 if scale != 1 else 1 for scale in scales)}
    bank = NoiseBank(evaluator.denoiser, torch.device("cpu"))
    noise, _ = next(bank.batches(1, 3, 3))
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    shown = pipe([PROMPT] * 3, latents=noise, output_type="pt", **guided(pipe, output)).images
    images = evaluator.images(schedule, 3, noise_seed=1)
    assert torch.allclose(pipelines.in_unit_range(images), shown, atol=2e-3)


def test_guidance_is_not_searched_where_there_is_none(tmp_path: Path) -> None:
    folder = pipelines.ddpm(tmp_path / "pipe")
    model = {"path": str(folder)}
    config = pipelines.study(tmp_path, model, space={"guidance": [1.0, 9.0]})
    with pytest.raises(InvalidConfig, match=r"space\.guidance: this model has no null condition"):
        launch(config, lambda _: None)
    sd = pipelines.stable_diffusion(tmp_path / "sd")
    model = {"path": str(sd), "prompts": [PROMPT], "held_out": 0, "cache": str(tmp_path)}
    config = pipelines.study(
        tmp_path,
        model,
        space={"guidance": [1.0, 9.0]},
        search={"algorithm": "s3"},
        reference={"images": "tests.support.pipelines:references", "size": 16},
    )
    with pytest.raises(InvalidConfig, match=r"'s3' searches no guidance; use one of evolution"):
        launch(config, lambda _: None)


def test_what_cannot_follow_says_so(tmp_path: Path) -> None:
    dit = DiffusionPipeline.from_pretrained(pipelines.dit(tmp_path / "dit"))
    plain = published.ddim(load(str(tmp_path / "dit")).process, nfe=4)
    schedule = published.with_guidance(plain, SCALES)
    with pytest.raises(InvalidSchedule, match="DiTPipeline cannot change its guidance"):
        guided(dit, schedule)
    with pytest.raises(InvalidSchedule, match="the schedule has none"):
        guided(dit, plain)
    with pytest.raises(InvalidSchedule, match=r"guided\(pipe, schedule\)"):
        S3Scheduler.from_schedule(schedule, dit.scheduler.config)
    ddpm = load(str(pipelines.ddpm(tmp_path / "ddpm")))
    with pytest.raises(EvaluationFailed, match="no null condition"):
        ddpm.with_guidance(SCALES)
    flux = _loaded(pipelines.flux(tmp_path / "flux"), tmp_path, height=16, width=16)
    with pytest.raises(EvaluationFailed, match="no null condition"):
        flux.with_guidance(SCALES)


def test_patches_for_another_network_are_refused(tmp_path: Path) -> None:
    folder = pipelines.ddpm(tmp_path / "pipe")
    evaluator = Evaluator(pipelines.study(tmp_path, {"path": str(folder)}).evaluator_spec)
    plain = published.ddim(evaluator.denoiser.process, nfe=3)
    patched = plain.model_copy(update={"model_patch": ModelPatch(skip_scale=(0.9,))})
    with pytest.raises(EvaluationFailed, match=r"1 skip connections, .* has 4"):
        evaluator.images(patched, 2, noise_seed=0)
