"""Scores by their names: each is found, described, and one of the user's is as good."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import s3search
from s3search.errors import InvalidConfig
from s3search.evaluation.plugins import SCORES, call_plugin, imported, parameters_of

PAGE = Path(s3search.__file__).parents[1] / "docs" / "scores.md"


@pytest.mark.parametrize("name", SCORES)
def test_a_built_in_has_a_row_with_its_keys(name: str) -> None:
    keys = parameters_of("metric.score", name, SCORES)
    assert keys is not None
    (row, *_) = (line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}`"))
    assert set(keys) == set(re.findall(r"`(\w+)`", row.split("|")[-2]))
    assert inspect.getdoc(imported("metric.score", SCORES[name]))


def test_a_score_is_called_by_its_name_and_keys() -> None:
    score = call_plugin("metric.score", "ssim", {"window": 7}, SCORES)
    x = torch.zeros(2, 1, 8, 8)
    assert score(x, target=x).tolist() == [1.0, 1.0]
    with pytest.raises(InvalidConfig, match=r"no built-in is called 'psn' \(did you mean 'psnr'"):
        call_plugin("metric.score", "psn", {}, SCORES)
    with pytest.raises(InvalidConfig, match=r"\[metric\] does not fit 'ssim'.*did you mean 'win"):
        call_plugin("metric.score", "ssim", {"windo": 7}, SCORES)


class Contrast:
    """A score as a user would write it."""

    name = "contrast"
    needs = ()
    direction = "maximize"

    def __call__(self, images: Tensor, **_given: object) -> Tensor:
        return images.flatten(1).std(dim=1)


def test_a_users_score_is_loaded_from_its_module() -> None:
    score = call_plugin("metric.score", f"{__name__}:Contrast", {}, SCORES)
    assert score(torch.zeros(2, 3, 4, 4), labels=torch.zeros(2)).tolist() == [0.0, 0.0]
