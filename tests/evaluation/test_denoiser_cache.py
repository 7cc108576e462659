"""Kept predictions: by images and call, bounded, the latest calls of plans forgotten first."""

import torch

from s3search.evaluation.denoiser_cache import DenoiserCache
from s3search.processes import edm
from s3search.schedules import published
from s3search.solvers.plan import compile_plan
from s3search.solvers.prefix import call_keys

_SIZE = 4 * 8


def _prediction(value: float) -> torch.Tensor:
    return torch.full((2, 1, 2, 2), value)


def test_a_prediction_is_of_its_images_alone() -> None:
    cache, plan = DenoiserCache(100 * _SIZE), compile_plan(published.ddim(edm(), nfe=2))
    (these, later), (those, _) = (call_keys(plan, images) for images in ("these", "those"))
    assert None not in (these, later, those)
    cache.keep(str(these), 0, _prediction(1.0))
    found = cache.get(str(these))
    assert found is not None
    assert torch.equal(found, _prediction(1.0))
    assert cache.get(str(those)) is None
    assert cache.get(str(later)) is None


def test_without_room_the_oldest_of_the_latest_calls_go_first() -> None:
    cache = DenoiserCache(4 * _SIZE)
    for key, call in (("first", 0), ("second", 1), ("third", 2), ("other third", 2)):
        cache.keep(key, call, _prediction(0.0))
    cache.get("third")  # the older one is looked at again
    cache.keep("other second", 1, _prediction(0.0))
    kept = ("first", "second", "other second", "third")
    assert all(cache.get(key) is not None for key in kept)
    assert cache.get("other third") is None
    for i in range(4):
        cache.keep(f"start {i}", 0, _prediction(0.0))
    assert cache.get("second") is None
    assert cache.get("start 3") is not None
    assert cache.get("first") is None  # four are all there is room for


def test_what_is_too_large_is_not_kept_and_clearing_gives_room() -> None:
    cache = DenoiserCache(_SIZE)
    cache.keep("large", 0, torch.zeros(3, 1, 2, 2))
    assert cache.get("large") is None
    cache.keep("a", 0, _prediction(0.0))
    cache.clear()
    cache.keep("b", 5, _prediction(0.0))
    assert cache.get("b") is not None
    assert cache.get("a") is None
