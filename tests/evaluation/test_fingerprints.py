"""What two objects must differ in to be told apart, and what makes no difference."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from s3search.evaluation.fingerprints import (
    content_digest,
    device_of,
    fingerprint_of,
    label_of,
    modules_of,
)
from s3search.models.denoiser import thresholded
from tests.support.live import Net, network

FACTOR = 2.0


def _around(net: nn.Module, factor: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
    def denoiser(x: Tensor, t: Tensor) -> Tensor:
        found: Tensor = factor * net(x, t)
        return found

    return denoiser


class Guided:
    """A denoiser with a module and a number in it."""

    def __init__(self, net: nn.Module, scale: float) -> None:
        self._net, self._scale = net, scale

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self._scale * self._net(x, t)  # type: ignore[no-any-return]

    def twice(self, x: Tensor, t: Tensor) -> Tensor:
        return self(x, t) + self(x, t)


def _scaled(x: Tensor, t: Tensor) -> Tensor:
    return FACTOR * x


@pytest.mark.parametrize(
    "make",
    [
        Net,
        lambda scale: _around(Net(scale)),
        lambda scale: _around(Net(), scale),
        lambda scale: functools.partial(_around(Net()), factor=scale),
        lambda scale: Guided(Net(scale), 1.0),
        lambda scale: Guided(Net(), scale),
        lambda scale: Guided(Net(), scale).twice,
        lambda scale: thresholded(Net(scale)),
        lambda scale: [Net(), {"scale": torch.tensor(scale)}],
    ],
)
def test_weights_and_numbers_tell_objects_apart(make: Callable[[float], Any]) -> None:
    assert fingerprint_of(make(1.0)) == fingerprint_of(make(1.0))
    assert fingerprint_of(make(1.0)) != fingerprint_of(make(0.5))


def test_a_function_is_known_by_the_names_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint_of(_scaled)
    assert before == fingerprint_of(_scaled) != fingerprint_of(network)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert fingerprint_of(_scaled) != before


def test_how_a_module_is_used_makes_no_difference() -> None:
    model = Net()
    before = fingerprint_of(model)
    model.eval().requires_grad_(False)
    model(torch.zeros(2, 1, 3, 3), torch.ones(2))
    assert fingerprint_of(model) == before
    assert fingerprint_of(model, "process") != before


def test_a_number_on_a_module_makes_one() -> None:
    model = Net()
    before = fingerprint_of(model)
    model.guidance_scale = 2.0
    assert fingerprint_of(model) != before


def test_objects_that_hold_each_other_end() -> None:
    first: list[Any] = [Net()]
    first.append(first)
    assert fingerprint_of(first) == fingerprint_of(first)


def test_every_kind_of_number_has_a_digest() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool):
        ones = torch.ones((2, 3), dtype=dtype)
        assert content_digest(ones) == content_digest(ones.clone())
        assert content_digest(ones) != content_digest(torch.zeros_like(ones))
    assert content_digest(torch.ones(2, 3)) != content_digest(torch.ones(3, 2))
    assert content_digest(torch.ones(4, 4).t()) == content_digest(torch.ones(4, 4))
    assert len(content_digest(torch.ones(0))) == 16


def test_labels_modules_and_devices_are_found() -> None:
    model = Net()
    assert label_of(model) == "Net"
    assert label_of(functools.partial(network)) == "network"
    assert label_of(Guided(model, 1.0).twice) == "Guided.twice"
    assert modules_of(_around(model)) == [model]
    assert modules_of(Guided(model, 1.0)) == [model]
    assert device_of(_around(model.to("meta"))) == torch.device("meta")
    assert device_of(network) == torch.device("cpu")
