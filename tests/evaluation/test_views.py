"""What a score is given, and what is said where it cannot be had."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from s3search.errors import EvaluationFailed, InvalidConfig
from s3search.evaluation.noise import TARGET
from s3search.evaluation.spec import MetricSpec
from s3search.evaluation.views import Scorer, load_view

IMAGES = torch.linspace(-1.0, 1.0, 12).reshape(3, 1, 2, 2)
LABELS = torch.tensor([1, 2, 1])


def _captions(labels: Tensor) -> Sequence[str]:
    return [f"digit {int(label)}" for label in labels]


def _scorer(function: Any, *, captions: Any = None) -> Scorer:
    spec = MetricSpec(name="live", kind="score", options={"object": "own"})
    view = load_view(spec, torch.device("cpu"), function, captions)
    assert isinstance(view, Scorer)
    return view


def test_a_score_is_given_what_it_asks_for_by_name() -> None:
    seen: dict[str, Any] = {}

    def score(images: Tensor, captions: list[str], target: Tensor, weight: float = 2.0) -> Tensor:
        seen.update(captions=captions, target=target, weight=weight)
        return images.mean(dim=(1, 2, 3))

    view = _scorer(score, captions=_captions)
    found = view.seen(IMAGES, {"labels": LABELS, TARGET: IMAGES + 1.0})
    assert seen["captions"] == ["digit 1", "digit 2", "digit 1"]
    assert seen["weight"] == 2.0
    torch.testing.assert_close(seen["target"], IMAGES + 1.0)
    np.testing.assert_allclose(found[:, 0], IMAGES.mean(dim=(1, 2, 3)).numpy())
    assert found[0, 1] == found[2, 1] != found[1, 1]  # the caption's number


def test_one_that_takes_anything_is_given_all_there_is() -> None:
    def score(images: Tensor, **given: Any) -> Tensor:
        assert sorted(given) == ["captions", "labels"]
        return images.flatten(1).sum(1)

    assert _scorer(score, captions=_captions).seen(IMAGES, {"labels": LABELS}).shape == (3, 2)
    assert _scorer(lambda images: images.flatten(1).sum(1)).seen(IMAGES, {}).shape == (3, 1)


@pytest.mark.parametrize(
    ("needs", "there_is"),
    [("captions", "labels"), ("target", "labels"), ("labels", "nothing beside the images")],
)
def test_what_is_missing_is_named_with_what_there_is(needs: str, there_is: str) -> None:
    class Score:
        def __init__(self) -> None:
            self.needs = (needs,)

        def __call__(self, images: Tensor, **given: Any) -> Tensor:
            raise AssertionError("it is not called")

    condition = {} if needs == "labels" else {"labels": LABELS}
    with pytest.raises(InvalidConfig, match=rf"metric\.score: 'own' needs {needs}.*{there_is}"):
        _scorer(Score()).seen(IMAGES, condition)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (lambda images: images.mean(), InvalidConfig, r"a tensor \(3,\).*returned shape \(\)"),
        (lambda images: images.flatten(1), InvalidConfig, r"returned shape \(3, 4\)"),
        (lambda images: 3.0, InvalidConfig, "returned float"),
        (lambda images: images.flatten(1).sum(1) / 0.0, EvaluationFailed, "not finite"),
    ],
)
def test_answers_that_are_no_scores_are_refused(
    answer: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        _scorer(answer).seen(IMAGES, {})


def test_the_gradient_goes_to_the_images() -> None:
    class Net(nn.Module):
        def forward(self, images: Tensor, labels: Tensor) -> Tensor:
            return (images.flatten(1) * labels[:, None]).sum(1)

    images = IMAGES.clone().requires_grad_()
    found = _scorer(Net()).differentiable(images, {"labels": LABELS})
    assert found.shape == (3, 1)
    (slope,) = torch.autograd.grad(found.sum(), images)
    assert slope.flatten(1)[:, 0].tolist() == [1.0, 2.0, 1.0]


def test_a_direction_that_the_score_denies_is_refused() -> None:
    def score(images: Tensor) -> Tensor:
        return images.flatten(1).sum(1)

    score.direction = "maximize"  # type: ignore[attr-defined]
    with pytest.raises(InvalidConfig, match=r"metric\.direction: 'own' is to be maximized"):
        _scorer(score)


@pytest.mark.parametrize(("name", "words"), [("psnrr", "did you mean 'psnr'"), ("a:b", "import")])
def test_a_score_that_is_not_there_is_named(name: str, words: str) -> None:
    with pytest.raises(InvalidConfig, match=rf"metric\.score: .*{words}"):
        load_view(MetricSpec(name=name, kind="score"), torch.device("cpu"))
