"""Classifier-free guidance: fixed, in an interval of times, and what it costs."""

import pytest
import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.models.diffusers.guidance import Guidance, parse_guidance
from s3search.processes import edm, vp_discrete


def _answer(guidance: Guidance, t: list[float]) -> tuple[list[float], list[str]]:
    """F where the given answer is 1 and the null answer 0, and which networks were asked."""
    asked: list[str] = []
    given, null = torch.ones(len(t), 1), torch.zeros(len(t), 1)

    def plain() -> Tensor:
        asked.append("plain")
        return given

    def doubled() -> Tensor:
        asked.append("doubled")
        return torch.cat([null, given])

    found = guidance.answer(torch.tensor(t), plain, doubled)
    return found.flatten().tolist(), asked


def test_guidance_moves_the_answer_away_from_the_null_answer() -> None:
    assert _answer(Guidance(scale=3.0), [5.0, 1.0]) == ([3.0, 3.0], ["doubled"])
    assert _answer(Guidance(), [5.0]) == ([1.0], ["plain"])


def test_outside_its_interval_nothing_is_doubled() -> None:
    guidance = Guidance(scale=3.0, interval=(0.3, 2.0))
    assert _answer(guidance, [0.3, 2.0]) == ([3.0, 3.0], ["doubled"])
    assert _answer(guidance, [2.1, 5.0]) == ([1.0, 1.0], ["plain"])
    assert _answer(guidance, [2.1, 1.0]) == ([1.0, 3.0], ["doubled"])


def test_batches_are_counted_call_by_call() -> None:
    times = [80.0, 5.0, 2.0, 0.3, 0.1]
    assert Guidance().network_batches(times) == 5
    assert Guidance(scale=2.0).network_batches(times) == 10
    assert Guidance(scale=2.0, interval=(0.3, 2.0)).network_batches(times) == 7


@pytest.mark.parametrize("scale", [0.5, "7", True, float("inf"), float("nan")])
def test_a_scale_that_is_none_is_refused(scale: object) -> None:
    with pytest.raises(InvalidConfig, match="guidance_scale: needs a number of at least 1"):
        parse_guidance(scale, None, edm())  # type: ignore[arg-type]


@pytest.mark.parametrize("interval", [[1.0], [2.0, 1.0], [1.0, "a"], [0.0, 1.0, 2.0]])
def test_an_interval_that_is_none_is_refused(interval: list[float]) -> None:
    with pytest.raises(InvalidConfig, match=r"guidance_interval: .*vp_discrete: -1 to 999"):
        parse_guidance(2.0, interval, vp_discrete())


def test_an_interval_needs_guidance() -> None:
    with pytest.raises(InvalidConfig, match="nothing to limit"):
        parse_guidance(1.0, [0.3, 2.0], edm())
