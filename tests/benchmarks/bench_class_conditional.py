"""Guidance as an axis of the search, on a class-conditional U-Net trained here.

A `UNet2DModel` of diffusers learns scikit-learn's 8x8 digits with a class embedding whose last row
stands for no class, and is saved as a pipeline (DDPM's scheduler, noise prediction).  Then
schedules of five calls are searched at fixed guidance scales, and once with a scale for every
call, each with the same budget.

Run with ``python -m tests.benchmarks.bench_class_conditional FOLDER``; on one thread training
takes five minutes, each search as long.  What is in FOLDER is not made again.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from s3search.models import digits
from s3search.models.diffusers.conditions import Classes, Given
from s3search.models.diffusers.denoiser import Pipeline, PipelineDenoiser
from s3search.models.diffusers.guidance import Guidance
from s3search.models.diffusers.scheduler_config import OwnSampler, model_of
from s3search.run.launching import launch
from s3search.schedules.schedule import Schedule
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig, config_from_text
from s3search.study.results.frame import best_of, evaluations_frame, validated

N_CLASSES, NULL_CLASS = 10, 10
DROPOUT = 0.1  # of the class, so that the null class is learned
BATCH, LEARNING_RATE, EMA = 128, 1e-3, 0.999
TRAINING_SECONDS = 300.0
FIXED_SCALES, LIMITS = (1.0, 2.0), (1.0, 4.0)

STUDY = """\
[study]
name = "{name}"
[model]
loader = "tests.benchmarks.bench_class_conditional:load"
path = "{folder}"
guidance_scale = {scale}
[space]
preset = "usf"
nfe = [5]
{guidance}
[metric]
features = "digits"
[reference]
images = "digits"
[search]
algorithm = "evolution"
evaluations = {evaluations}
n_images = 500
[validation]
n_images = 2000
finalists = 5
[storage]
url = "sqlite:///{folder}/study.db"
[cluster]
address = "inline"
workers = 1
"""


def load(path: str, *, guidance_scale: float = 1.0) -> PipelineDenoiser:
    """The saved pipeline's network as a denoiser; the ``[model]`` loader of this benchmark.

    No pipeline class of diffusers runs a `UNet2DModel` with classes, so this is a loader of its
    own on the parts of the built-in one.
    """
    from diffusers import DDPMPipeline  # noqa: PLC0415  slow import

    pipe = DDPMPipeline.from_pretrained(path)
    config = dict(pipe.scheduler.config)
    parts = Pipeline(
        network=pipe.unet,
        answer=_answer,
        source=Classes(None, N_CLASSES),
        sample_shape=(1, 8, 8),
    )
    own = OwnSampler(scheduler=type(pipe.scheduler).__name__, config=config)
    guidance = Guidance(scale=guidance_scale)
    denoiser = PipelineDenoiser(parts, model_of(config), guidance, own, b"classes")
    denoiser.eval().requires_grad_(False)
    return denoiser


def _answer(network: Any, x: Tensor, t: Tensor, given: Given) -> Tensor:
    found: Tensor = network(x, t, class_labels=given["class_labels"], return_dict=False)[0]
    return found


def unet() -> Any:
    """The untrained network, of 0.6 million parameters."""
    from diffusers import UNet2DModel  # noqa: PLC0415  slow import

    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
        norm_num_groups=8,
        num_class_embeds=N_CLASSES + 1,
    )


def train(folder: Path, seconds: float = TRAINING_SECONDS) -> None:
    """Trains for so long and saves the pipeline."""
    from diffusers import DDPMPipeline, DDPMScheduler  # noqa: PLC0415  slow import

    images, labels = digits.images(), digits.labels()
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = unet()
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA)
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000, clip_sample=False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    began, n_steps, total = time.monotonic(), 0, 0.0
    while (elapsed := time.monotonic() - began) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1.0 - elapsed / seconds)
        own = torch.randint(len(images), (BATCH,), generator=generator)
        noise = torch.randn((BATCH, 1, 8, 8), generator=generator)
        t = torch.randint(1000, (BATCH,), generator=generator)
        dropped = torch.rand(BATCH, generator=generator) < DROPOUT
        given = labels[own].masked_fill(dropped, NULL_CLASS)
        x = scheduler.add_noise(images[own], noise, t)
        loss = functional.mse_loss(network(x, t, class_labels=given, return_dict=False)[0], noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(network)
        n_steps, total = n_steps + 1, total + loss.item()
        if n_steps % 500 == 0:
            print(f"step {n_steps}, {elapsed:.0f} s, loss {total / 500:.4f}", flush=True)
            total = 0.0
    DDPMPipeline(average.module.eval(), scheduler).save_pretrained(folder)
    print(f"trained {n_steps} steps of {BATCH} images in {seconds:.0f} s", flush=True)


def _study(folder: Path, name: str, scale: float, guidance: str, evaluations: int) -> StudyConfig:
    text = STUDY.format(
        folder=folder.resolve(), name=name, scale=scale, guidance=guidance, evaluations=evaluations
    )
    return config_from_text(text, name)


def studies(folder: Path, evaluations: int) -> list[StudyConfig]:
    """Of each scale one that keeps it, and one with a scale for each call that begins there."""
    limits = f"guidance = [{LIMITS[0]}, {LIMITS[1]}]"
    fixed = [_study(folder, f"fixed at {w:g}", w, "", evaluations) for w in FIXED_SCALES]
    searched = [
        _study(folder, f"call by call, baselines at {w:g}", w, limits, evaluations)
        for w in FIXED_SCALES
    ]
    return [*fixed, *searched]


def _report(config: StudyConfig) -> None:
    """The best found and the best published schedule on held-out noise, and the scales found."""
    with open_study(config.storage.url, config.study.name) as store:
        scored = validated(evaluations_frame(store), config)
        for row in best_of(scored):
            if row is None:
                continue
            low, high = row.held_out.interval or (row.value, row.value)
            name = row.name if row.is_baseline else "found"
            print(
                f"| {config.study.name} | {name} | {row.search_value:.2f} | {row.value:.2f} "
                f"({low:.2f} to {high:.2f}) | "
                f"{_scales(store.schedule(row.schedule_id))} |"
            )


def _scales(schedule: Schedule) -> str:
    patch = schedule.model_patch
    if patch is None or patch.guidance_scale is None:
        return "the study's"
    return ", ".join(f"{scale:.2f}" for scale in patch.guidance_scale)


def main(folder: Path, evaluations: int = 60) -> None:
    """Trains, searches and prints the table."""
    torch.set_num_threads(1)
    if not (folder / "model_index.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        train(folder)
    for config in studies(folder, evaluations):
        began = time.monotonic()
        launch(config, lambda _: None)
        print(f"{config.study.name}: {time.monotonic() - began:.0f} s", flush=True)
        _report(config)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
