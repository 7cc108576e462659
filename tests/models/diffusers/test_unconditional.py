"""Unconditional pipelines: searched end to end, and replayed in the pipeline they came from."""

from pathlib import Path

import pytest

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install s3search[diffusers]"
)

from s3search.evaluation.noise import BLOCK, block_generator
from s3search.schedules.schedule import Schedule
from tests import pipelines

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_pixel_model_is_searched_exported_and_replayed(tmp_path: Path, prediction: str) -> None:
    folder = pipelines.ddpm(tmp_path / "pipe", prediction_type=prediction)
    config = pipelines.study(tmp_path, {"path": str(folder)})
    output = tmp_path / "schedule.json"
    evaluator = pipelines.searched(config, output)
    ours = evaluator.images(Schedule.load(output), 5, noise_seed=1)
    pipe = pipelines.replayed(folder, output)
    pipe(
        batch_size=BLOCK,
        generator=block_generator(1, 0),
        num_inference_steps=pipe.scheduler.num_steps,
        output_type="pt",
    )
    assert pipelines.is_close(pipe.scheduler.last[:5], ours)
