"""Batches that do not fit are run in parts."""

from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from s3search.errors import EvaluationFailed
from s3search.models.diffusers.memory import Parts
from s3search.models.diffusers.settings import in_batches


class _Small:
    """Squares at most ``room`` numbers at a time, as a GPU would refuse more."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x * x


def test_a_batch_that_does_not_fit_is_halved_once_and_for_all() -> None:
    network, parts, x = _Small(3), Parts("the network"), torch.arange(10.0)
    for _ in range(2):
        assert torch.equal(parts(10, lambda own: network(x[own])), x * x)
    assert network.sizes == [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert parts.largest == 2


def test_a_batch_that_fits_is_not_cut() -> None:
    network, x = _Small(10), torch.arange(10.0)
    assert torch.equal(Parts("the network")(10, lambda own: network(x[own])), x * x)
    assert network.sizes == [10]
    Parts("the VAE", largest=4)(10, lambda own: network(x[own]))
    assert network.sizes[1:] == [4, 4, 2]


def test_where_one_image_does_not_fit_the_evaluation_fails_with_advice() -> None:
    network, x = _Small(0), torch.arange(4.0)
    with pytest.raises(EvaluationFailed, match=r"the VAE does not fit .*model\.dtype"):
        Parts("the VAE")(4, lambda own: network(x[own]))
    with pytest.raises(ZeroDivisionError):
        Parts("the VAE")(4, lambda own: x[own] / (1 // 0))


def test_prompts_are_encoded_as_many_at_once_as_fit() -> None:
    class Bare:
        components: ClassVar[dict[str, object]] = {}

    sizes: list[int] = []

    def encode(
        texts: Sequence[str | None], negative: bool, device: torch.device
    ) -> dict[str, Tensor]:
        sizes.append(len(texts))
        if len(texts) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"text": torch.tensor([float(text or 0) for text in texts])}

    found = in_batches(Bare(), encode)([str(i) for i in range(20)], False, torch.device("cpu"))
    assert found["text"].tolist() == list(range(20))
    assert sizes == [16, 8, 4, 4, 4, 4, 4]
