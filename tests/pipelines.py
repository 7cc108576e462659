# ruff: noqa: PLC0415  # diffusers is imported where it is used, as the docstring says
"""Pipelines of every kind with tiny random weights, as `save_pretrained` writes them; and what a
study of one needs beside it.

Workers import this for the extractor and the reference, so diffusers is imported where it is used.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s3search.evaluation.evaluator import Evaluator
from s3search.launching import launch
from s3search.study.config import StudyConfig, parse_config
from s3search.study.export import best_schedule, save_export
from s3search.study.store import open_study


def pooled() -> Callable[[Tensor], Tensor]:
    """Means of the four quarters of each channel as features."""

    def features(images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)

    return features


def references(n: int = 64, channels: int = 3, size: int = 8) -> Tensor:
    """Some images in [-1, 1]."""
    generator = torch.Generator().manual_seed(3)
    return torch.rand((n, channels, size, size), generator=generator) * 2 - 1


def study(folder: Path, model: dict[str, Any], **tables: Any) -> StudyConfig:
    """A search of a few evaluations of the pipeline in ``model``, in this process."""
    data: dict[str, Any] = {
        "study": {"name": "t"},
        "model": {"loader": "diffusers", **model},
        "space": {"nfe": [3], "starts": ["network"]},  # DDPM, SD3 and Flux replay no other
        "metric": {"features": "tests.pipelines:pooled"},
        "reference": {"images": "tests.pipelines:references"},
        "search": {
            "algorithm": "evolution",
            "baselines": False,
            "evaluations": 4,
            "n_images": 12,
            "batch": 4,
        },
        "validation": {"n_images": 14, "finalists": 1},
        "storage": {"url": f"sqlite:///{folder}/study.db"},
        "cluster": {"address": "inline", "workers": 1},
    }
    for name, table in tables.items():
        data[name] = {**data[name], **table}
    return parse_config(data)


def unet(**options: Any) -> Any:
    """A U-Net without condition."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    return UNet2DModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D"),
            **options,
        }
    ).eval()


def ddpm(folder: Path, **scheduler: Any) -> Path:
    """DDPMPipeline: 3 x 8 x 8 images."""
    from diffusers import DDPMPipeline, DDPMScheduler

    DDPMPipeline(unet=unet(), scheduler=DDPMScheduler(**scheduler)).save_pretrained(folder)
    return folder


def searched(config: StudyConfig, output: Path) -> Evaluator:
    """Runs the study, exports its best schedule to ``output`` and returns an evaluator of it."""
    launch(config, lambda _: None)
    with open_study(config.storage.url, config.study.name) as store:
        schedule, _ = best_schedule(store)
    save_export(schedule, output)
    return Evaluator(config.evaluator_spec)


def replayed(folder: Path, schedule: Path) -> Any:
    """The pipeline of ``folder`` with the exported schedule for its scheduler, whose ``last`` will
    be the state it ends with: pipelines clamp what they return.
    """
    from diffusers import DiffusionPipeline

    from s3search.integrations.diffusers import S3Scheduler

    class Recording(S3Scheduler):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            output = super().step(*args, **kwargs)
            self.last = output[0]
            return output

    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.scheduler = Recording.from_schedule(schedule, pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def is_close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether all numbers agree to a part of the largest, which is not small."""
    scale = float(expected.abs().max())
    assert scale > 0.1, "the images to compare are flat"
    return (
        found.shape == expected.shape and float((found - expected).abs().max()) < tolerance * scale
    )
