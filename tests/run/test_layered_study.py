"""Whole studies that leave blocks out: launched, exported, and refused where they cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.evaluation.evaluator import Evaluator
from s3search.formats.exporters.schedule_json import save_export
from s3search.integrations.diffusers import S3Scheduler
from s3search.models import digits
from s3search.models.layer_skip import blocks_of, multiply_adds, one_image
from s3search.processes import edm, vp_discrete
from s3search.run.launching import launch
from s3search.schedules import published
from s3search.schedules.layers import skips_layers, with_skipped
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Rung, measure
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig, config_from_text
from s3search.study.results.export import best_schedule
from s3search.study.results.progress import Progress
from tests.support import pipelines
from tests.support.specs import evaluator_spec

TABLES = """
[study]
name = "t"
[model]
loader = "digits"
[space]
preset = "timesteps"
nfe = [2, 3]
cost = 2.0
[metric]
features = "digits"
[reference]
images = "digits"
[search]
algorithm = "autodiffusion"
batch = 4
evaluations = 12
n_images = 100
[validation]
n_images = 100
finalists = 1
[storage]
url = "sqlite:///{folder}/study.db"
[cluster]
address = "inline"
workers = 1
"""


def _config(folder: Path, *overrides: str) -> StudyConfig:
    return config_from_text(TABLES.format(folder=folder), "study", overrides)


def _ignore(_: Progress) -> None:
    pass


def test_a_study_stays_within_its_cost_and_exports_the_patch(tmp_path: Path) -> None:
    config = _config(tmp_path)
    launch(config, _ignore)
    layers = blocks_of(digits.load()).layers
    with open_study(config.storage.url, "t") as store:
        measured = [trial.schedule for trial in store.trials()]
        best, _ = best_schedule(store, 3)
    assert max(map(layers.cost, measured)) <= 2.0 + 1e-9
    assert {own.nfe for own in measured} == {2, 3}
    assert sum(not skips_layers(own) for own in measured) > 12 // 3
    assert best.nfe == 3 and skips_layers(best)
    file = tmp_path / "best.json"
    save_export(best, file)
    assert json.loads(file.read_text())["model_patch"]["skip_layers"]
    assert Schedule.load(file).id == best.id


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.algorithm='s3'", "space.cost: 's3' leaves no blocks out; use 'autodiffusion'"),
        ("space.nfe=[3]", "afford none of the numbers of calls 3 whole"),
        ("space.nfe=[2,9]", "never pay for 9 calls"),
        (
            "model.loader='tests.support.plugins:gaussian'",
            "this model has no block that can be left out",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    tmp_path: Path, override: str, message: str
) -> None:
    overrides = [override]
    if "gaussian" in override:
        plain = (
            "features='tests.support.plugins:pixels'",
            "images='tests.support.plugins:images'",
        )
        overrides += [f"metric.{plain[0]}", f"reference.{plain[1]}"]
    with pytest.raises(InvalidConfig, match=message):
        launch(_config(tmp_path, *overrides), _ignore)
    assert not (tmp_path / "study.db").exists()


def _evaluator(**changes: Any) -> Evaluator:
    return Evaluator(
        evaluator_spec(model="digits", features="digits", reference="digits", **changes)
    )


def test_images_do_not_depend_on_the_batch_and_the_patch_is_undone() -> None:
    plain = published.unipc(edm(), nfe=3)
    schedule = with_skipped(plain, [(), (1,), (0, 2)])
    whole, parts = _evaluator(), _evaluator(batch_size=7)
    before = whole.images(plain, 20, 0)
    changed = whole.images(schedule, 20, 0)
    assert not torch.equal(changed, before)
    torch.testing.assert_close(parts.images(schedule, 20, 0), changed, rtol=1e-4, atol=1e-5)
    assert torch.equal(whole.images(plain, 20, 0), before)
    question = measure(schedule, rung=Rung.USER, n_images=20, noise_seed=0)
    assert whole.evaluate(question).network_batches == 3


def test_blocks_of_a_pipeline_are_left_out_after_it_made_images(tmp_path: Path) -> None:
    folder = pipelines.pixart(tmp_path / "pipe")
    model = {"path": str(folder), "prompts": ["a cat", "a dog"], "held_out": 0}
    evaluator = Evaluator(pipelines.study(tmp_path, model).evaluator_spec)
    plain = published.ddim(evaluator.denoiser.process, nfe=2)
    before = evaluator.images(plain, 2, 0)
    changed = evaluator.images(with_skipped(plain, [(), (0,)]), 2, 0)
    assert not torch.equal(changed, before)
    assert torch.equal(evaluator.images(plain, 2, 0), before)
    layers = evaluator.describe(layers=True).layers
    assert layers is not None
    x, t, condition = one_image(evaluator.denoiser)
    with blocks_of(evaluator.denoiser).left_out([0]):
        measured = multiply_adds(lambda: evaluator.denoiser(x, t, **condition))
    assert layers.call_cost([0]) * layers.multiply_adds == pytest.approx(measured)
    assert layers.share(0) > 0.5  # its text encoder is not called with every call


def test_a_scheduler_cannot_leave_blocks_out() -> None:
    schedule = with_skipped(published.ddim(vp_discrete(), nfe=2), [(), (1,)])
    with pytest.raises(InvalidSchedule, match="model_patch"):
        S3Scheduler.from_schedule(schedule, DDPMScheduler().config)
