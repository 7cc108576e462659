"""Shapes of samples, and what is done to samples of any."""

import pytest
import torch

from s3search.errors import InvalidConfig
from s3search.solvers.shapes import (
    are_pictures,
    checked_shape,
    over_the_rest,
    without_variance,
)


@pytest.mark.parametrize("shape", [(5,), (6, 3), (3, 4, 4), (2, 5, 3, 3)])
def test_a_number_for_each_sample_multiplies_all_of_it(shape: tuple[int, ...]) -> None:
    x = torch.ones((2, *shape))
    made = over_the_rest(torch.tensor([2.0, -3.0]).double(), x) * x
    assert made.shape == x.shape
    assert made.dtype == x.dtype
    assert (made[0] == 2.0).all() and (made[1] == -3.0).all()


@pytest.mark.parametrize("shape", [[3, 8, 8], (5,), (1, 2, 3, 4)])
def test_shapes_of_any_rank_are_taken(shape: list[int]) -> None:
    assert checked_shape(shape, "sample_shape") == tuple(shape)


@pytest.mark.parametrize("found", [(), (3, 0), (3, -1), (3, 2.0), (True, 3), "3x3", 3, None])
def test_what_is_no_shape_is_refused(found: object) -> None:
    with pytest.raises(InvalidConfig, match="own: needs the shape of one sample"):
        checked_shape(found, "own")


@pytest.mark.parametrize(
    ("own", "answered", "kept"),
    [
        ((3, 4, 4), (6, 4, 4), (slice(None), slice(3))),  # pictures: twice the channels
        ((6, 3), (6, 6), (slice(None), slice(None), slice(3))),  # tokens: channels come last
        ((2, 3, 4, 4), (4, 3, 4, 4), (slice(None), slice(2))),
        ((6, 3), (6, 3), (slice(None),)),
        ((6, 3), (6, 5), (slice(None),)),  # somebody else says that this is wrong
        ((6, 3), (12, 6), (slice(None),)),
    ],
)
def test_a_learned_variance_is_left_out(
    own: tuple[int, ...], answered: tuple[int, ...], kept: tuple[slice, ...]
) -> None:
    x, answer = torch.zeros(2, *own), torch.randn(2, *answered)
    assert torch.equal(without_variance(answer, x), answer[kept])
    twice = torch.cat([answer, answer])  # guided: the batch without its condition, and with it
    assert torch.equal(without_variance(twice, x), twice[kept])


def test_pictures_and_videos_have_pixels() -> None:
    ranks = {n: are_pictures(torch.zeros((2,) * n)) for n in range(2, 6)}
    assert ranks == {2: False, 3: False, 4: True, 5: True}
