"""The functions of exported diffusers folders; their source is written into them."""

from pathlib import Path
from typing import Any


def with_schedule(pipe: Any, statistics: str | None = None) -> Any:
    """The pipeline with the schedule beside this file for its scheduler; ``statistics`` is the
    EMS file of a schedule with DPM-Solver-v3 steps.

    Call it with num_inference_steps=pipe.scheduler.num_steps.
    """
    from s3search.integrations.diffusers import S3Scheduler

    schedule = Path(__file__).with_name("schedule.json")
    pipe.scheduler = S3Scheduler.from_schedule(
        schedule, pipe.scheduler.config, statistics=statistics
    )
    return pipe


def guided_arguments(pipe: Any, strength: float | None = None) -> dict[str, Any]:
    """The arguments to call the pipeline with, so that it follows the guidance of the schedule
    beside this file; ``strength`` is for image-to-image.
    """
    from s3search.integrations.diffusers_guidance import guided

    return guided(pipe, Path(__file__).with_name("schedule.json"), strength=strength)
