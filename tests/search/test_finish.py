"""The finish believes held-out noise no more than it may."""

import numpy as np
import pytest

from s3search.search.finish import (
    Candidate,
    ReusableHoldout,
    choose_finalist,
    monotone_by_nfe,
)


def candidates(search: np.ndarray, held_out: np.ndarray, error: float = 1.0) -> list[Candidate]:
    return [
        Candidate(search_value=float(s), held_out_value=float(h), standard_error=error)
        for s, h in zip(search, held_out, strict=True)
    ]


@pytest.mark.parametrize("k", [8, 50])
def test_the_value_of_the_chosen_among_equals_is_hardly_optimistic(k: int) -> None:
    rng, lowest, chosen = np.random.default_rng(k), [], []
    for seed in range(1500):
        search, held_out = rng.normal(size=(2, k))
        lowest.append(held_out.min())
        chosen.append(choose_finalist(candidates(search, held_out), seed=seed).value)
    assert np.mean(lowest) < (-1.3 if k == 8 else -2.1)  # standard errors; the truth is 0
    assert abs(np.mean(chosen)) < 0.4
    assert abs(np.mean(chosen)) < 0.25 * abs(np.mean(lowest))


def test_with_search_values_as_precise_the_choice_is_no_worse_than_the_lowest() -> None:
    rng, regret = np.random.default_rng(1), []
    for seed in range(1500):
        truth = 3.0 * rng.normal(size=8)
        search, held_out = truth + rng.normal(size=(2, 8))
        index = choose_finalist(candidates(search, held_out), seed=seed).index
        regret.append((truth[index] - truth.min(), truth[held_out.argmin()] - truth.min()))
    ours, of_lowest = np.mean(regret, axis=0)
    assert ours < 1.2 * of_lowest


def test_held_out_noise_overrules_the_search_where_it_is_clear() -> None:
    found = choose_finalist(
        candidates(np.array([1.0, 2.0, 3.0]), np.array([9.0, 1.0, 9.0])), seed=0
    )
    assert (found.index, found.value, found.optimism, found.looks) == (1, 1.0, -1.0, 1)
    close = choose_finalist(candidates(np.array([1.0, 2.0]), np.array([1.5, 1.0])), seed=0)
    assert (close.index, close.optimism, close.looks) == (0, 0.5, 0)


def test_the_margin_is_in_errors_of_the_difference() -> None:
    search, held_out = np.array([1.0, 2.0]), np.array([1.5, 1.0])
    assert choose_finalist(candidates(search, held_out, error=0.05), seed=0).index == 1
    assert choose_finalist(candidates(search, held_out), margin=0.01, seed=0).index == 1


def test_looks_run_out() -> None:
    falling = np.arange(10.0, 0.0, -1.0)
    every = candidates(np.arange(10.0), falling, error=0.01)
    assert choose_finalist(every, looks=20, seed=0).index == 9
    few = choose_finalist(every, looks=3, seed=0)
    assert (few.index, few.looks) == (3, 3)
    assert choose_finalist(every, looks=0, seed=0).index == 0


def test_the_holdout_answers_with_the_search_while_they_agree() -> None:
    holdout = ReusableHoldout(threshold=1.0, noise=0.01, looks=2, seed=0)
    assert [holdout.answer(search=0.3, held_out=0.5) for _ in range(20)] == [0.3] * 20
    assert holdout.looks_left == 2
    answer = holdout.answer(search=0.3, held_out=3.0)
    assert answer is not None and answer != 3.0 and abs(answer - 3.0) < 0.2
    assert holdout.answer(search=3.0, held_out=0.3) != 3.0
    assert holdout.looks_left == 0
    assert holdout.answer(search=0.3, held_out=0.3) is None


def test_the_holdout_is_noisy_by_its_seed() -> None:
    def answers(seed: int) -> list[float | None]:
        holdout = ReusableHoldout(threshold=1.0, noise=0.5, looks=10, seed=seed)
        return [holdout.answer(search=0.0, held_out=1.2) for _ in range(30)]

    assert answers(0) == answers(0) != answers(1)
    assert 0.0 in answers(0) and len(set(answers(0))) > 5


def test_bad_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="no finalists"):
        choose_finalist([], seed=0)
    with pytest.raises(ValueError, match="standard error above 0"):
        choose_finalist(candidates(np.zeros(2), np.zeros(2), error=0.0), seed=0)
    with pytest.raises(ValueError, match="must not be negative"):
        ReusableHoldout(threshold=1.0, noise=0.1, looks=-1, seed=0)


def test_a_number_of_calls_that_fewer_calls_beat_is_found() -> None:
    assert monotone_by_nfe({3: 1.0, 5: 0.5, 4: 0.7}) == {}
    assert monotone_by_nfe({8: 0.13, 5: 0.12, 6: 0.10, 7: 0.11}) == {7: 6, 8: 6}
    assert monotone_by_nfe({5: 0.1, 6: 0.1}) == {}
