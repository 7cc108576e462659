"""Kept answers: by images and call, bounded, the latest calls of plans forgotten first."""

import torch

from s3search.evaluation.denoiser_cache import DenoiserCaches

_SIZE = 4 * 8


def _answer(value: float) -> torch.Tensor:
    return torch.full((2, 1, 2, 2), value)


def test_an_answer_is_of_its_images_alone() -> None:
    cache = DenoiserCaches(100 * _SIZE)
    cache.of("these").keep("a", 0, _answer(1.0))
    found = cache.of("these").get("a")
    assert found is not None
    assert torch.equal(found, _answer(1.0))
    assert cache.of("those").get("a") is None
    assert cache.of("these").get("b") is None


def test_without_room_the_oldest_of_the_latest_calls_go_first() -> None:
    cache = DenoiserCaches(4 * _SIZE)
    answers = cache.of("these")
    for key, call in (("first", 0), ("second", 1), ("third", 2), ("other third", 2)):
        answers.keep(key, call, _answer(0.0))
    answers.get("third")  # the older one is looked at again
    answers.keep("other second", 1, _answer(0.0))
    kept = ("first", "second", "other second", "third")
    assert all(answers.get(key) is not None for key in kept)
    assert answers.get("other third") is None
    for i in range(4):
        answers.keep(f"start {i}", 0, _answer(0.0))
    assert answers.get("second") is None
    assert answers.get("start 3") is not None
    assert answers.get("first") is None  # four are all there is room for


def test_what_is_too_large_is_not_kept_and_clearing_gives_room() -> None:
    cache = DenoiserCaches(_SIZE)
    answers = cache.of("these")
    answers.keep("large", 0, torch.zeros(3, 1, 2, 2))
    assert answers.get("large") is None
    answers.keep("a", 0, _answer(0.0))
    cache.clear()
    answers.keep("b", 5, _answer(0.0))
    assert answers.get("b") is not None
    assert answers.get("a") is None
