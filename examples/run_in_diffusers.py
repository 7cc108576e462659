"""Search a pipeline of diffusers that is in memory, and run it with what was found.

pip install '.[diffusers]'      # in a clone of the repository
python examples/run_in_diffusers.py google/ddpm-cifar10-32 folder-of-real-images
"""

import sys
from pathlib import Path
from typing import Any

from torch import Tensor

import s3search
from s3search.integrations.diffusers import S3Scheduler


def main(
    pipe: Any,
    reference: Tensor | str | Path,
    features: Any = "inception",
    evaluations: int = 300,
    n_images: int = 1000,
) -> Any:
    """The first image that the pipeline makes in five network calls.

    Of a pipeline with prompts the search also takes prompts=["...", ...] and guidance_scale=7.5.
    """
    found = s3search.search(
        pipe,
        reference=reference,
        features=features,
        nfe=5,
        space={"starts": ["network"]},  # a DDPM pipeline begins with plain noise
        evaluations=evaluations,
        n_images=n_images,
        validation={"n_images": 4 * n_images, "finalists": 4},
    )
    pipe.scheduler = S3Scheduler.from_schedule(found.schedule, pipe.scheduler.config)
    return pipe(num_inference_steps=pipe.scheduler.num_steps).images[0]


if __name__ == "__main__":
    from diffusers import DiffusionPipeline

    name, folder = sys.argv[1:]
    main(DiffusionPipeline.from_pretrained(name).to("cuda"), folder).save("image.png")
