"""What pipelines can do to a schedule, each with its own sentence before anything is spent."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)

import s3search
from s3search.errors import InvalidConfig
from s3search.integrations.pipelines import load, runs_of
from tests.support import own_pipeline, pipelines


def _ignored(self: Any, answer: Tensor, t: Tensor, x: Tensor) -> Tensor:
    return x - 0.1 * answer


def _fewer(self: Any) -> Tensor:
    return self.scheduler.timesteps[1:]


def _repeated(self: Any) -> Tensor:
    return self.scheduler.timesteps.repeat_interleave(2)[:3]


def _shifted(self: Any) -> Tensor:
    t = self.scheduler.timesteps / 1000
    return 1000 * 3 * t / (1 + 2 * t)


def _asked_for_more(self: Any, answer: Tensor, t: Tensor, x: Tensor) -> Tensor:
    return self.scheduler.step_pred(answer, t, x)


def _told_more(self: Any, answer: Tensor, t: Tensor, x: Tensor) -> Tensor:
    return self.scheduler.step(answer, t, x, per_token_timesteps=t).prev_sample


def _noisy(self: Any, answer: Tensor, t: Tensor, x: Tensor) -> Tensor:
    noise = torch.empty_like(x).uniform_()
    return self.scheduler.step(answer + noise, t, x).prev_sample


def _failing(self: Any, answer: Tensor, t: Tensor, x: Tensor) -> Tensor:
    raise RuntimeError("no such kernel")


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        ({"_stepped": _ignored}, "never called its scheduler's step"),
        ({"_times": _fewer}, "leaves out the first 1 of 2 calls"),
        ({"_times": _repeated}, "the schedule's 2 calls are done"),
        ({"_times": _shifted}, "rescales them behind the scheduler's back"),
        ({"_stepped": _asked_for_more}, "asks its scheduler for what S3Scheduler has not"),
        ({"_stepped": _told_more}, "passes per_token_timesteps"),
        ({"_stepped": _noisy}, "makes other images of the same noise"),
        ({"_stepped": _failing}, "failed in a call of 2 steps with RuntimeError: no such kernel"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pipeline_that_follows_no_schedule_is_refused_with_the_reason(
    methods: dict[str, Callable[..., Any]], sentence: str
) -> None:
    pipe = own_pipeline.changed(**methods)
    own = pipe.scheduler
    with pytest.raises(InvalidConfig, match=sentence):
        runs_of(pipe, prompts=["a"], held_out=0.0)
    assert pipe.scheduler is own


def test_pipeline_that_changes_its_states_has_no_gradient_and_says_why() -> None:
    def halved(self: Any, answer: Tensor, t: Tensor, x: Tensor) -> Tensor:
        return self.scheduler.step(answer, t, x).prev_sample / 2

    model = runs_of(own_pipeline.changed(_stepped=halved), prompts=["a"], held_out=0.0)
    x = torch.randn((1, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    with pytest.raises(s3search.errors.EvaluationFailed, match="changes its states between"):
        model(x, torch.full((1,), 500.0), prompts=torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "prompts: the pipeline's call takes prompt"),
        ({"prompts": ["a"], "call": {"latents": 3}}, "call.latents: leave it out; noise is drawn"),
        ({"prompts": ["a"], "call": {"promt": "a"}}, "call.promt: .* did you mean 'prompt'"),
        ({"prompts": ["a"], "classes": [1]}, "classes: the pipeline's call takes no class_labels"),
        ({"call": {"prompt": "none.png"}}, "call.prompt: cannot read the picture 'none.png'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidConfig, match=sentence):
        runs_of(own_pipeline.striped(), **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "needs either the folder or hub id of a pipeline, or pipeline ="),
        ({"path": "a/b", "pipeline": "a:b"}, "needs either the folder or hub id"),
        ({"pipeline": "tests.support.own_pipeline:none"}, "has no function 'none'"),
        ({"pipeline": "tests.support.pipelines:pooled"}, "is no pipeline that is called"),
        ({"path": "a/b", "dtype": "float8"}, "dtype: 'float8' is not a choice"),
    ],
)
def test_what_is_no_pipeline_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidConfig, match=sentence):
        load(**options)


def test_option_of_another_way_to_drive_a_pipeline_is_refused() -> None:
    given = {"reference": pipelines.references(), "features": pipelines.pooled()}
    with pytest.raises(InvalidConfig, match=r"height: .* called as a whole takes none"):
        s3search.search(own_pipeline.striped(), prompts=["a"], height=8, **given)
