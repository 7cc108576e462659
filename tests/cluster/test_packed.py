"""What travels to Ray's workers: once, and whatever the program has."""

import threading
from functools import partial

import pytest
import ray.cloudpickle
import torch
from torch import nn

import s3search
from s3search.cluster.ray.packed import packed
from s3search.errors import InvalidConfig


def test_a_class_of_the_program_arrives_with_its_weights() -> None:
    class Own(nn.Linear):
        """A class that no module has."""

    model = Own(2, 3)
    model.tied = model.weight
    arrived = ray.cloudpickle.loads(packed(partial(dict, model=model)))()["model"]
    assert type(arrived).__name__ == "Own"
    assert torch.equal(arrived.weight, model.weight)
    assert arrived.weight.requires_grad
    assert arrived.tied is arrived.weight


def test_a_function_may_use_the_package() -> None:
    package = ray.cloudpickle.loads(packed(partial(dict, package=s3search)))()["package"]
    assert package is s3search


def test_what_cannot_travel_is_said_to_stay() -> None:
    with pytest.raises(InvalidConfig, match=r"cannot travel .*lock.* use workers=\"inline\""):
        packed(partial(dict, lock=threading.Lock()))
