"""Guidance as an axis of the search: scales per call, inherited and changed."""

import numpy as np
import pytest

from s3search.processes import edm
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.evolution import Evolution
from s3search.search.algorithms.guided import (
    GuidedSearch,
    changed_scales,
    drawn_scales,
    resized,
    scales_of,
    without_guidance,
)
from s3search.search.space import SpaceConfig
from s3search.search.trial import Trial
from tests.support.searches import facts, measured, proposals, setup_of

LIMITS = (1.0, 8.0)
N = 4


def _search(seed: int = 0) -> GuidedSearch:
    baselines = {"DDIM": published.ddim(edm(), nfe=N)}
    space = SpaceConfig(nfe=(N,), guidance=LIMITS)
    return GuidedSearch(setup_of(space, edm(), nfe=(N,), seed=seed, seeds=baselines), Evolution)


def _distance(schedule: Schedule) -> float:
    """Least for a scale of 3 in the second half and none before."""
    scales = scales_of(schedule) or (7.5,) * N
    return float(np.abs(np.log(np.array(scales) / [1.0, 1.0, 3.0, 3.0])).sum())


def _run(search: GuidedSearch, n: int) -> list[Trial]:
    return proposals(lambda: search, n, _distance)


def test_baselines_are_proposed_as_they_are_and_all_others_with_scales() -> None:
    first, *others = _run(_search(), 30)
    assert first.origin.text == "baseline: DDIM"
    assert scales_of(first.schedule) is None
    for trial in others:
        scales = scales_of(trial.schedule)
        assert scales is not None and len(scales) == trial.schedule.nfe == N
        assert all(1.0 <= scale <= 8.0 for scale in scales)
    assert {"guidance", "mutation"} <= {trial.origin.text for trial in others}


def test_parents_are_measured_schedules_and_nothing_is_proposed_twice() -> None:
    found = _run(_search(), 60)
    ids = [trial.schedule.id for trial in found]
    assert len(set(ids)) == len(ids)
    for i, trial in enumerate(found):
        assert set(trial.parents) <= set(ids[:i])


def test_the_search_finds_the_interval_and_its_scale() -> None:
    found = _run(_search(), 150)
    values = [_distance(trial.schedule) for trial in found]
    assert values[0] > 5
    assert min(values) < 0.5
    assert min(values) < 0.5 * min(values[:20])


def test_proposals_follow_from_what_was_told_alone() -> None:
    told = _run(_search(), 12)
    again = _search()
    for trial in told:
        again.tell(measured(trial, _distance(trial.schedule)))
    assert facts(again.propose(12, [])) == facts(_run(_search(), 13)[12])
    pending = [again.propose(12, [])]
    assert again.propose(13, pending).schedule.id != pending[0].schedule.id


def test_failed_measurements_are_no_parents() -> None:
    search = _search()
    for number in range(8):
        trial = search.propose(number, [])
        search.tell(measured(trial, None))
        assert trial.parents == ()


@pytest.mark.parametrize("limits", [(1.0, 8.0), (2.0, 3.0), (1.0, 1.0)])
def test_scales_stay_in_their_limits(limits: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    low, high = limits
    seen = set()
    for _ in range(100):
        scales = drawn_scales(limits, 5, rng)
        for _ in range(5):
            scales = changed_scales(limits, scales, rng)
            assert len(scales) == 5
            assert all(low <= scale <= high for scale in scales)
        seen.add(scales)
    assert len(seen) > 50 or low == high


def test_other_numbers_of_calls_take_the_scales_of_the_nearest_place() -> None:
    assert resized((1.0, 2.0, 3.0), 3) == (1.0, 2.0, 3.0)
    assert resized((1.0, 3.0), 4) == (1.0, 1.0, 3.0, 3.0)
    assert resized((1.0, 1.0, 3.0, 3.0), 2) == (1.0, 3.0)


def test_scales_can_be_taken_off_again() -> None:
    plain = published.unipc(edm(), nfe=3)
    assert without_guidance(plain) is plain
    assert without_guidance(published.with_guidance(plain, [1, 2, 1])) == plain
