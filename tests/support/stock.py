"""A stock pipeline of diffusers and the schedule that is imported from it, from one noise."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s3search.formats.importers import Request, import_schedule
from s3search.integrations.diffusers import S3Scheduler
from s3search.schedules.schedule import Schedule

_SEED = 9


def with_scheduler(pipe: Any, scheduler: Any, folder: Path) -> Path:
    """Puts the scheduler into the pipeline, and writes what `save_pretrained` does of both but
    for the networks.
    """
    pipe.scheduler = scheduler
    index = {
        "_class_name": type(pipe).__name__,
        "scheduler": ["diffusers", type(scheduler).__name__],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(index))
    scheduler.save_config(folder / "scheduler")
    return folder


def imported(folder: Path, n: int) -> Schedule:
    """What the importer makes of the pipeline in n steps."""
    return import_schedule("diffusers", Request(source=str(folder), steps=n))


def notes_of(schedule: Schedule) -> tuple[str, ...]:
    """The import's notes."""
    return tuple(schedule.provenance["imported"]["notes"])


def both_runs(
    pipe: Any,
    schedule: Schedule,
    n: int,
    noise: Tensor,
    *,
    eta: float | None = None,
    **arguments: Any,
) -> tuple[Tensor, Tensor]:
    """The latents that the pipeline ends with: by its own scheduler in n steps, with this ``eta``,
    and by the schedule from the same noise, that of steps included.
    """
    stock = pipe.scheduler
    pipe.set_progress_bar_config(disable=True)
    theirs = _latents(pipe, n, noise, arguments if eta is None else {**arguments, "eta": eta})
    pipe.scheduler = S3Scheduler.from_schedule(schedule, stock)
    ours = _latents(pipe, schedule.nfe, noise, arguments)
    pipe.scheduler = stock
    return theirs, ours


def _latents(pipe: Any, n: int, noise: Tensor, arguments: dict[str, Any]) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)  # of those that pass no generator on
        found: Tensor = pipe(
            num_inference_steps=n,
            latents=noise.clone(),
            output_type="latent",
            generator=torch.Generator().manual_seed(_SEED),
            **arguments,
        ).images
    return found


def apart(theirs: Tensor, ours: Tensor) -> float:
    """The largest difference, as a part of the largest number."""
    assert torch.isfinite(theirs).all(), "the stock pipeline made no finite latents"
    return float((theirs - ours).abs().max() / theirs.abs().max())
