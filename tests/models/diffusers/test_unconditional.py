"""Unconditional pipelines: searched end to end, and replayed in the pipeline they came from."""

from pathlib import Path

import pytest
import torch

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)

from s3search.evaluation.noise import BLOCK, block_generator
from s3search.processes import edm
from s3search.run.launching import launch
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Rung
from s3search.study.database.store import open_study
from tests.support import pipelines

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


def test_the_pipelines_own_noise_is_measured_where_the_space_has_noise(tmp_path: Path) -> None:
    folder = pipelines.ddpm(tmp_path / "pipe")
    config = pipelines.study(
        tmp_path,
        {"path": str(folder)},
        space={"noise": {"eta": [0.0, 1.0]}},
        search={"baselines": True},
    )
    launch(config, lambda _: None)
    with open_study(config.storage.url, config.study.name) as store:
        trials = {trial.origin.label: trial for trial in store.trials()}
        values = store.values(Rung.SEARCH, config.search.n_images)
    own = trials["DDPMScheduler of the pipeline"]
    assert own.schedule.is_stochastic and values[own.id] is not None
    quiet = trials["DDPMScheduler of the pipeline, without its noise"]
    assert not quiet.schedule.is_stochastic and values[quiet.id] is not None


def test_a_latent_model_without_condition_is_searched_exported_and_replayed(
    tmp_path: Path,
) -> None:
    folder = pipelines.ldm(tmp_path / "pipe")
    images = {"images": "tests.support.pipelines:references", "size": 16}
    config = pipelines.study(tmp_path, {"path": str(folder)}, reference=images)
    output = tmp_path / "schedule.json"
    evaluator = pipelines.searched(config, output)
    schedule = Schedule.load(output)
    ours, theirs = pipelines.both_ways(evaluator, folder, output)
    assert pipelines.is_close(theirs, ours)
    assert evaluator.images(schedule, 5, noise_seed=1).shape == (5, 3, 16, 16)


def test_a_score_model_is_searched_and_its_score_is_read_as_such(tmp_path: Path) -> None:
    """Its pipeline corrects by Langevin steps and replays no schedule; the network is the same."""
    folder = pipelines.score(tmp_path / "pipe")
    config = pipelines.study(tmp_path, {"path": str(folder)})
    evaluator = pipelines.searched(config, tmp_path / "schedule.json")
    denoiser = evaluator.denoiser
    assert denoiser.process == edm(sigma_min=0.01, sigma_max=50.0)
    sigma = torch.tensor([0.5, 3.0, 20.0])
    x = torch.randn((3, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * 5
    with torch.no_grad():
        score = denoiser.network(x, sigma).sample
        found = denoiser(x, sigma)
    assert pipelines.is_close(found, x + sigma.reshape(-1, 1, 1, 1) ** 2 * score, 1e-5)
    shown = denoiser.decode(torch.tensor([0.0, 0.5, 1.0]))
    assert shown.tolist() == [-1.0, 0.0, 1.0]  # its images lie in [0, 1]
    clean = evaluator.images(Schedule.load(tmp_path / "schedule.json"), 2, noise_seed=1)
    assert clean.shape == (2, 3, 8, 8)
